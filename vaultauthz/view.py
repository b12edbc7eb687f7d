"""What the admin endpoint sees and asks of a running engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vaultauthz.admin.view import Readiness, Waiting
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.engine import Engine
from vaultauthz.observe.metrics import Metrics


class View:
    """An ``AdminView`` over an engine and its metrics.

    ``recorded``: whether checks can be. ``turned_away``: whether gateways are, since it is about
    to stop. ``besides``: what else there is to say, by a key.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        recorded: Callable[[], bool],
        turned_away: Callable[[], bool] = lambda: False,
        besides: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._recorded = recorded
        self._turned_away = turned_away
        self._besides = besides

    def ready(self) -> Readiness:
        """The engine's readiness, with every upstream that has no credential now."""
        waiting = tuple(
            Waiting(row.stage, row.upstream, row.last_error or row.state)
            for row in self._engine.keeper.waiting()
        )
        recorded = self._recorded()
        ready = self._engine.ready and recorded and not self._turned_away()
        besides = tuple(self._besides().items())
        return Readiness(ready, waiting, recorded=recorded, besides=besides)

    def leases(self) -> list[LeaseRow]:
        """Every login (its upstream is "") and every lease."""
        return self._engine.keeper.rows()

    def metrics(self) -> str:
        """The metrics in Prometheus's text format."""
        return self._metrics.text()

    def rotate(self, upstream: str, stage: str | None) -> tuple[str, ...]:
        """Ask for a replacement; the stages in which it was asked."""
        return self._engine.keeper.rotate(upstream, stage)

    def revoke(self, upstream: str, stage: str | None) -> tuple[str, ...]:
        """End the credential now and get another; the stages in which it was asked."""
        return self._engine.keeper.revoke(upstream, stage)
