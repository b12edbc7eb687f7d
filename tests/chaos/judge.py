"""Whether what was seen may be seen: pure rules over times, which are the run's own clock's seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from tests.chaos.bounds import BOUNDS, OURS, SDS, Bound, Cause


@dataclass(frozen=True)
class Window:
    """A fault's time: from ``begin`` until it has been undone at ``end``, and ``recovers`` more."""

    begin: float
    end: float
    recovers: float
    disturbs: frozenset[str]
    label: str
    lossless: bool = False  # no request may be lost meanwhile
    restart: bool = False  # of ours: what it knew is gone

    @property
    def over(self) -> float:
        """When it has recovered."""
        return self.end + self.recovers


@dataclass(frozen=True)
class End:
    """A credential's end: not before ``earliest``, and surely by ``latest`` (infinity: never proven)."""

    cause: Cause
    earliest: float
    latest: float


@dataclass
class Life:
    """What is known of a credential. ``time`` is its end by Vault's own last word."""

    place: str
    ttl: float
    time: End
    ends: list[End] = field(default_factory=list)
    caller: str = ""  # whose it is, with `per: caller`

    @property
    def all_ends(self) -> list[End]:
        """Its time first."""
        return [self.time, *self.ends]


class Verdict(Enum):
    """What a use was."""

    GOOD = "good"
    CROSSED = "ended on its way"
    INSIDE = "dead inside its bound"
    OUTSIDE = "dead outside"


@dataclass(frozen=True)
class Judged:
    """A verdict, the cause that it stems from, and for how long the credential had been dead."""

    verdict: Verdict
    cause: Cause = Cause.TIME
    dead: float = 0.0
    counted: float = 0.0  # of that, what counts against the bound


def uncovered(begin: float, end: float, windows: Iterable[Window]) -> float:
    """How many seconds from ``begin`` to ``end`` lie in no window, its recovery included."""
    total, at = 0.0, begin
    for window in sorted(windows, key=lambda one: one.begin):
        if window.begin >= end:
            break
        total += max(0.0, min(window.begin, end) - at)
        at = max(at, window.over)
        if at >= end:
            return total
    return total + max(0.0, end - at)


def unknowing(windows: Iterable[Window]) -> list[Window]:
    """The restarts of ours, and with each the faults that have kept it from a credential since.

    Those that are on while it comes back, and those that begin before these are over.
    """
    found: list[Window] = []
    over = -inf
    for window in sorted(windows, key=lambda one: one.begin):
        if window.restart or (found and window.begin <= over and window.disturbs):
            found.append(window)
            over = max(over, window.over)
    return found


def use(
    mode: str,
    life: Life,
    sent: float,
    answered: float,
    *,
    refused: bool,
    windows: Sequence[Window],
    late: float = 0.0,
) -> Judged:
    """Judge one use of a credential.

    ``sent``: when the client sent its request, before any check. ``answered``: when the service had
    asked about the credential. ``refused``: its word. ``late``: for how long this machine was seen to
    stand still around then, which a bound that is not 0 grows by.
    """
    worst = Judged(Verdict.GOOD)
    for end in life.all_ends:
        if end.latest >= sent:
            continue
        bound = BOUNDS[mode][end.cause]
        hiding = [window for window in windows if window.disturbs & bound.hidden]
        hiding += unknowing(windows) if OURS in bound.hidden and mode == SDS else []
        counted = uncovered(end.latest, sent, hiding)
        outside = counted > allowed(bound, life.ttl, late)
        verdict = Verdict.OUTSIDE if outside else Verdict.INSIDE
        found = Judged(verdict, end.cause, sent - end.latest, counted)
        if worst.verdict is not Verdict.OUTSIDE and (outside or worst.verdict is Verdict.GOOD):
            worst = found
    if worst.verdict is not Verdict.GOOD or not refused:
        return worst
    known = [end for end in life.all_ends if end.earliest <= answered]
    if known:
        return Judged(Verdict.CROSSED, known[0].cause)
    return Judged(Verdict.OUTSIDE, Cause.UNKNOWN)


def allowed(bound: Bound, ttl: float, late: float) -> float:
    """The bound in seconds, for a credential of this TTL."""
    fixed = bound.seconds + bound.share * ttl
    return fixed + late if fixed else 0.0


def excused(sent: float, answered: float, windows: Iterable[Window]) -> list[Window]:
    """The faults by which a request that was sent and answered then may have been refused."""
    return [w for w in windows if not w.lossless and w.begin <= answered and sent <= w.over]


def lateness(late: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """The longest stop of this machine that touches this time; each is (when it was over, how long)."""
    return max((long for at, long in late if at - long <= end and begin <= at), default=0.0)


def never() -> End:
    """Of a secret whose end nobody has told yet."""
    return End(Cause.TIME, inf, inf)
