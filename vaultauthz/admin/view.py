"""What the admin server shows and asks for: a protocol, and the one over a running engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from vaultauthz.admin.overview import Asked, Overview, ServerFacts, Sources, overview
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.events import REVOKE_ASKED, ROTATE_ASKED, AskedBy
from vaultauthz.core.history import Tone
from vaultauthz.core.lease_row import LeaseRow, ShownTrouble
from vaultauthz.version import __version__

__all__ = ["AdminView", "AskedBy", "EndingCertificate", "LeaseRow", "Readiness", "WaitingUpstream"]


@dataclass(frozen=True, slots=True)
class WaitingUpstream:
    """An upstream without its credential. ``reason`` is a phrase of ours, never Vault's text."""

    stage: str
    upstream: str
    reason: str
    optional: bool = False  # readiness does not wait for it


@dataclass(frozen=True, slots=True)
class Readiness:
    """``waiting`` names what is missing now, optional upstreams too; ``ready`` leaves those out.

    ``started``: a gateway may ask, as each of the others has had its credential. While requests cannot be
    ``recorded`` they are refused, and it is neither. ``besides`` is what else there is to say,
    which need not stand in the way: phrases of ours by a key.
    """

    started: bool
    ready: bool
    waiting: tuple[WaitingUpstream, ...] = ()
    recorded: bool = True
    besides: tuple[tuple[str, str], ...] = ()


class AdminView(Protocol):
    """Called from several threads at once. Nothing here may wait for Vault."""

    def ready(self) -> Readiness:
        """Whether every upstream that is not optional has had its credential, has it now, and checks are recorded."""
        ...

    def leases(self) -> list[LeaseRow]:
        """Every lease, in any order."""
        ...

    def certificates(self) -> list[EndingCertificate]:
        """Every certificate in use that ends, by use, stage and upstream."""
        ...

    def overview(self, asked: Asked) -> Overview:
        """What the page shows."""
        ...

    def metrics(self) -> str:
        """The metrics in Prometheus's text format 0.0.4."""
        ...

    def rotate(self, upstream: str, stage: str | None, operator: AskedBy) -> tuple[str, ...]:
        """Ask for a replacement; the stages in which it was asked, () when there is none such.

        ``stage`` is None for all of the upstream's stages.
        """
        ...

    def revoke(self, upstream: str, stage: str | None, operator: AskedBy) -> tuple[str, ...]:
        """Ask that the lease be revoked; answers as ``rotate`` does."""
        ...


class KeptLeases(Protocol):
    """Whoever keeps the leases; nothing here may wait for Vault."""

    def waiting(self) -> Iterable[LeaseRow]:
        """What has no credential now."""

    def rows(self) -> list[LeaseRow]:
        """Every login (its upstream is "") and every lease."""


# A wish (``ROTATE_ASKED`` or ``REVOKE_ASKED``), upstream, stage and who asks; the stages in which it was asked.
Ask = Callable[[str, str, str | None, AskedBy], tuple[str, ...]]


class KeptView:
    """An ``AdminView`` over what is kept.

    ``started`` and ``recorded``: whether gateways may ask, and checks can be written down. ``metrics``
    is the text of a scrape. ``besides``: what else there is to say, by a key. ``shown``: the rows with
    what others know of them. ``in_use``: the certificates in use that end, by the rows. ``ask``: carries
    out what operators want. ``sources``: where the page has the rest from.
    """

    def __init__(
        self,
        keeper: KeptLeases,
        metrics: Callable[[], str],
        started: Callable[[], bool],
        recorded: Callable[[], bool],
        besides: Callable[[], Mapping[str, str]],
        *,
        ask: Ask,
        shown: Callable[[list[LeaseRow]], list[LeaseRow]] = lambda rows: rows,
        in_use: Callable[[list[LeaseRow]], list[EndingCertificate]] = lambda _: [],
        sources: Sources | None = None,
    ) -> None:
        self._keeper = keeper
        self._sources = sources
        self.metrics = metrics
        self._started = started
        self._recorded = recorded
        self._besides = besides
        self._shown = shown
        self._in_use = in_use
        self.rotate = partial(ask, ROTATE_ASKED)
        self.revoke = partial(ask, REVOKE_ASKED)

    def ready(self) -> Readiness:
        """Whether it is, with every upstream that has no credential now."""
        waiting = tuple(
            WaitingUpstream(row.stage, row.upstream, row.last_error or row.state, row.optional)
            for row in self._keeper.waiting()
        )
        recorded = self._recorded()
        started = recorded and self._started()
        ready = started and all(upstream.optional for upstream in waiting)
        besides = tuple(self._besides().items())
        return Readiness(started, ready, waiting, recorded=recorded, besides=besides)

    def leases(self) -> list[LeaseRow]:
        """Every login and lease."""
        return self._shown(self._keeper.rows())

    def certificates(self) -> list[EndingCertificate]:
        """Those in use that end."""
        return self._in_use(self._keeper.rows())

    def overview(self, asked: Asked) -> Overview:
        """See ``AdminView``."""
        sources = self._sources or _nothing_besides()
        now = sources.clock()
        readiness, rows = self.ready(), self.leases()  # made under the keeper's lock: once
        sources = replace(sources, certificates=lambda: self._in_use(rows))
        found = overview(now, rows, _of_readiness(readiness), sources, asked)
        found.told["ready"], found.told["started"] = readiness.ready, readiness.started
        return found


def _of_readiness(readiness: Readiness) -> Iterator[ShownTrouble]:
    if not readiness.recorded:
        yield ShownTrouble(Tone.BAD, "The audit log cannot be written: every check is refused", "")
    for key, phrase in readiness.besides:
        tone = Tone.WARN if key == "stopping" else Tone.BAD
        yield ShownTrouble(tone, f"{key}: {phrase}", "")


def _nothing_besides() -> Sources:
    server = ServerFacts(__version__, time.time())
    return Sources(time.monotonic, time.time, lambda: server)
