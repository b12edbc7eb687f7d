"""Everything but the gateways' doors: keeper, broker and audit log from one config."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from vaultauthz.broker import Binding, Broker, Table
from vaultauthz.config.values import Config
from vaultauthz.core.decision import Decision
from vaultauthz.core.events import CheckRecorder, Event, Listener
from vaultauthz.core.request import Request
from vaultauthz.core.routing import Routes
from vaultauthz.leases.clock import boottime
from vaultauthz.leases.keeper import Keeper
from vaultauthz.vault.session import Session


class Engine:
    """``check`` requests from ``start`` to ``close``.

    ``recorders`` are asked to write each check down before its answer goes out;
    ``listeners`` hear of everything that happens to logins and leases. Both must
    be quick, and listeners must not call back into the engine.
    """

    def __init__(
        self,
        config: Config,
        recorders: Iterable[CheckRecorder] = (),
        listeners: Iterable[Listener] = (),
    ) -> None:
        self._listeners = tuple(listeners)
        self._recorders = tuple(recorders)
        self.keeper = Keeper(self._announce)
        for name, stage in config.stages.items():
            self.keeper.add_stage(name, Session(config.vault, stage.auth, boottime))
        self.broker = Broker(self._table(config), self._record, boottime)

    def _table(self, config: Config) -> Table:
        bindings = [
            Binding(upstream.name, stage, upstream.callers, self.keeper.add(stage, upstream))
            for upstream in config.upstreams.values()
            for stage in upstream.stages
        ]
        passes = config.unmatched == "pass"
        return Table(bindings, Routes.of(config.routes), pass_unmatched=passes)

    def _announce(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def _record(self, request: Request, decision: Decision) -> bool:
        recorded = True
        for record in self._recorders:  # all are told, also when one says no
            recorded = record(request, decision) and recorded
        return recorded

    def start(self) -> None:
        """Log in and fetch, in the background; ``ready`` tells when that is done."""
        self.keeper.start()

    @property
    def ready(self) -> bool:
        """Whether every upstream that is not ``optional`` has had its credential."""
        return self.keeper.ready

    def check(self, request: Request) -> Decision:
        """Whether the request may go on, and with which credential. Safe for threads."""
        return self.broker.check(request)

    def close(self, timeout: float = 5.0) -> bool:
        """Revoke what was leased; True when all of it was, within ``timeout`` seconds."""
        self.broker.table = Table((), Routes())
        return self.keeper.stop(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
