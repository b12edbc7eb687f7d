"""Every request and every use of a credential, judged once its time is past, and counted."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import judge
from tests.chaos.bounds import BACK, DATABASE, FIRST_BACK
from tests.chaos.judge import Judged, Verdict, Window
from tests.chaos.ledger import Ledger
from tests.chaos.services import CUT, Use
from tests.chaos.traffic import Asked

# By then every end that explains a use is known: the longest freeze, and the calls that waited meanwhile.
JUDGED_AFTER = 16.0
# A stop of the machine that may make Envoy's timeouts (2 s) or a client's pass.
STARVED = 0.7
_KEPT = 40  # failures that are shown whole; the others are counted


@dataclass
class Findings:
    """What was seen that may not be, each with what is needed to look into it."""

    dead: list[dict[str, Any]] = field(default_factory=list)
    anothers: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, **context: Any) -> dict[str, Any]:
        """One more."""
        self.counts[what] += 1
        kept: list[dict[str, Any]] = getattr(self, what)
        if len(kept) < _KEPT:
            kept.append(context)
        return context


class Record:
    """Takes uses and requests from any thread; ``settle`` judges those that are old enough."""

    def __init__(self, mode: str, ledger: Ledger, began: float) -> None:
        self.mode, self.ledger, self.began = mode, ledger, began
        self.slack = 0.0  # seconds by which every bound but «never» is longer
        self.windows: list[Window] = []
        self.late: deque[tuple[float, float]] = deque(maxlen=10_000)
        self.counts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # by reason
        self.inside: Counter[str] = Counter()  # dead inside their bounds, by cause
        self.crossed: Counter[str] = Counter()  # ended on their way, by cause
        self.excused: Counter[str] = Counter()  # what was not answered well, by fault
        self.longest: dict[str, float] = {}  # dead inside bounds, in seconds that count
        self.found = Findings()
        self._lock = threading.Lock()
        self._sent: dict[str, tuple[float, str]] = {}
        self._answered: deque[tuple[float, str]] = deque()
        self._uses: deque[Use] = deque()
        self._asked: deque[Asked] = deque()
        self._newest: dict[str, tuple[int, float]] = {}  # KV: the newest that arrived, and when

    def sent(self, trace: str, at: float, caller: str) -> None:
        """A request is about to be sent."""
        self._sent[trace] = (at, caller)

    def use(self, use: Use) -> None:
        """A service was given a credential."""
        with self._lock:
            self._uses.append(use)

    def asked(self, asked: Asked) -> None:
        """A client has its answer."""
        with self._lock:
            self._asked.append(asked)

    def settle(self, until: float) -> list[str]:
        """Judge what ended before ``until``; the lines that tell of what may not be."""
        with self._lock:
            uses = _due(self._uses, until)
            asked = _due(self._asked, until)
        lines = [line for use in uses for line in self._judge_use(use)]
        lines += [line for one in asked for line in self._judge_asked(one)]
        self._answered += ((one.answered, one.trace) for one in asked)
        # A service may take longer than the client whose gateway was killed meanwhile.
        while self._answered and self._answered[0][0] < until - JUDGED_AFTER:
            self._sent.pop(self._answered.popleft()[1], None)
        return lines

    # --- a use ---

    def _judge_use(self, use: Use) -> Iterable[str]:
        self.counts["uses"] += 1
        sent, caller = self._sent.get(use.trace, (use.at, ""))
        life = self.ledger.life(use.credential) if use.credential else None
        if life is None:
            yield self._tell("anothers", use, sent, f"not known: {use.why}")
            return
        if life.place != use.place.name:
            yield self._tell("anothers", use, sent, f"it is {life.place}'s")
        elif use.place.per_caller and self.ledger.owned_by(use.credential, caller) != caller:
            yield self._tell("anothers", use, sent, f"another caller's, and this is {caller}")
        refused = use.good is False
        if CUT in use.why:
            stopped = judge.excused(use.at, use.answered, self.windows)
            refused = not any(DATABASE in window.disturbs for window in stopped)
        windows, late = self._near(sent), judge.lateness(self.late.copy(), sent - 2, use.answered)
        late += self.slack
        found = judge.use(
            self.mode,
            life,
            sent,
            use.answered,
            refused=refused,
            windows=windows,
            late=late,
        )
        self.counts[found.verdict.value] += 1
        if found.verdict is Verdict.CROSSED:
            self.crossed[found.cause.value] += 1
        if found.verdict is Verdict.INSIDE:
            self.inside[found.cause.value] += 1
            self.longest[found.cause.value] = max(
                self.longest.get(found.cause.value, 0.0), found.counted
            )
        elif found.verdict is Verdict.OUTSIDE:
            yield self._tell("dead", use, sent, _why(found, life.ttl), ends=str(life.all_ends))
        if use.place.kv:
            yield from self._order(use, sent)

    def _order(self, use: Use, sent: float) -> Iterable[str]:
        """An older version never again, once a newer one has arrived."""
        number = int(use.credential.split(".")[1])
        newest, since = self._newest.get(use.place.name, (0, 0.0))
        if number > newest:
            self._newest[use.place.name] = (number, use.at)
        elif number < newest and sent > since:
            yield self._tell("dead", use, sent, f"version {number} after {newest}")

    def _tell(self, what: str, use: Use, sent: float, why: str, **more: Any) -> str:
        near = [self._shown(w) for w in self.windows if w.begin - 15 < sent < w.over + 30]
        self.found.add(
            what, place=use.place.name, credential=_short(use), sent=sent - self.began,
            arrived=use.at - self.began, asked=use.answered - self.began, good=use.good, said=use.why,
            why=why, near=near, late=judge.lateness(self.late.copy(), sent - 2, use.answered), **more,
        )  # fmt: skip
        return f"!! {sent - self.began:7.1f} s  {use.place.name} was given {_short(use)}: {why}"

    # --- a request ---

    def _judge_asked(self, one: Asked) -> Iterable[str]:
        self.counts["requests"] += 1
        if one.status in (200, 401):
            self.counts[{200: "allowed", 401: "rejected"}[one.status]] += 1
            return
        reason = f"{one.status} {one.reason}".strip()
        self.refused[reason] += 1
        longer = FIRST_BACK - BACK if one.place.per_caller else 0.0
        windows = judge.excused(one.sent - longer, one.answered, self._near(one.sent))
        if one.status == 502:  # a service that cannot ask PostgreSQL
            windows = [w for w in windows if DATABASE in w.disturbs]
        elif one.status not in (0, 503, 504):
            windows = []
        if windows:
            self.excused[windows[-1].label] += 1
        elif judge.lateness(self.late.copy(), one.sent - 2, one.answered) > STARVED:
            self.counts["starved"] += 1
        else:
            near = [self._shown(w) for w in self.windows if w.begin - 15 < one.sent < w.over + 30]
            self.found.add(
                "refused", place=one.place.name, caller=one.caller, status=one.status, reason=one.reason,
                sent=one.sent - self.began, answered=one.answered - self.began, near=near,
            )  # fmt: skip
            if self.found.counts["refused"] <= _KEPT:
                yield (
                    f"!! {one.sent - self.began:7.1f} s  {one.place.name} refused: {reason}, "
                    f"{one.answered - one.sent:.2f} s, while nothing was wrong"
                )

    # --- what was going on ---

    def seen(self, window: Window) -> Counter[str]:
        """How many of those not judged yet were answered how while it lasted; for its line."""
        with self._lock:
            asked = [a for a in self._asked if window.begin <= a.sent <= window.end]
        return Counter(
            {200: "ok", 401: "dead"}.get(a.status, a.reason or str(a.status)) for a in asked
        )

    def _near(self, sent: float) -> list[Window]:
        return [w for w in self.windows if w.over > sent - 90 and w.begin < sent + 60]

    def _shown(self, window: Window) -> str:
        return f"{window.label} {window.begin - self.began:.1f}-{window.end - self.began:.1f}"

    def at(self) -> float:
        """Seconds of the run."""
        return time.monotonic() - self.began


def _due(waiting: deque[Any], until: float) -> list[Any]:
    due = [one for one in waiting if one.answered < until]
    kept = [one for one in waiting if one.answered >= until]
    waiting.clear()
    waiting.extend(kept)
    return due


def _why(found: Judged, ttl: float) -> str:
    return f"{found.cause.value}, {found.dead:.2f} s ago, of which {found.counted:.2f} s count; TTL {ttl:g} s"


def _short(use: Use) -> str:
    return use.credential if not use.place.kv else use.credential.rpartition(".")[0]
