"""One run: the plan carried out in order, everything judged meanwhile, and the last look at the end."""

from __future__ import annotations

import functools
import heapq
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.chaos import faults
from tests.chaos.bed import Bed
from tests.chaos.judge import Window
from tests.chaos.plan import RESTARTS, Step
from tests.chaos.record import JUDGED_AFTER
from tests.chaos.traffic import Traffic
from tests.chaos.watch import Sample, Ticker, resident

_PAUSE = 0.05
_OURS = "ours."  # how the names of the faults of our process begin
_AGAIN = 0.5  # seconds until a fault is tried again that another one is in the way of
_SAMPLE_EVERY = 2.0
_PAGES_EVERY = 7.0
PAGES = ("/", "/leases", "/overview", "/metrics", "/readyz")


@dataclass
class Seen:
    """What is kept of a run beside its record."""

    samples: list[Sample] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)  # secrets on an admin page
    failed: list[str] = field(default_factory=list)  # faults that could not be done


class Run:
    """Carries a plan out. All parts are started from the thread that calls ``go``."""

    def __init__(self, bed: Bed, steps: Iterable[Step], tell: Callable[[str], object]) -> None:
        self.bed, self.seen = bed, Seen()
        self._tell = tell
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._born: dict[int, float] = {}
        self._sampled = self._paged = 0.0
        for step in steps:
            self._at(step.at, functools.partial(self._begin, step))

    def go(self, seconds: float, rate: float) -> None:
        """Until the time is over and every fault has been undone."""
        bed, record = self.bed, self.bed.record
        record.began = time.monotonic()
        traffic = Traffic(
            bed.port,
            tuple(bed.places.values()),
            bed.callers,
            rate=rate,
            begun=record.sent,
            note=record.asked,
        )
        with Ticker(record.late.append), traffic:
            while record.at() < seconds or self._events:
                if self._events and self._events[0][0] <= record.at():
                    heapq.heappop(self._events)[2]()
                else:
                    self._look()
                    time.sleep(_PAUSE)

    def judge(self, until: float) -> None:
        """Everything that ended before ``until``."""
        lines = self.bed.record.settle(until)
        for line in lines[:8]:
            self._tell(line)
        if len(lines) > 8:
            self._tell(f"!! … and {len(lines) - 8} more of them")

    def _at(self, when: float, do: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), do))

    def _begin(self, step: Step) -> None:
        record, begun = self.bed.record, time.monotonic()
        if step.kind.startswith(_OURS) and any(window.end > begun for window in self._ours()):
            # The one before took longer than was planned; neither could be done to what is not there.
            self._at(record.at() + _AGAIN, functools.partial(self._begin, step))
            return
        # Before it begins, so that nothing is judged without it; the end is set when it is known.
        window = self._window(step, begun, begun + 3600)
        record.windows.append(window)
        doing = faults.DOES[step.kind](self.bed, step)
        try:
            next(doing)
        except Exception as error:  # noqa: BLE001  # whatever it is, the run goes on and fails
            self._failed(step, error)
        self._at(record.at() + step.seconds, lambda: self._finish(step, window, doing))

    def _finish(self, step: Step, window: Window, doing: faults.Doing) -> None:
        try:
            next(doing, None)
        except Exception as error:  # noqa: BLE001
            self._failed(step, error)
        record = self.bed.record
        done = self._window(step, window.begin, time.monotonic())
        record.windows[record.windows.index(window)] = done
        self._at(record.at() + 0.3, lambda: self._tell(self._line(step, done)))

    def _ours(self) -> Iterable[Window]:
        """The last faults of our process."""
        return (w for w in self.bed.record.windows[-12:] if f" {_OURS}" in w.label)

    def _window(self, step: Step, begin: float, end: float) -> Window:
        kind = step.of
        return Window(
            begin,
            end,
            kind.recovers,
            frozenset(kind.disturbs),
            f"{step.number} {step.kind}",
            lossless=not kind.recovers,
            restart=step.kind in RESTARTS,
        )

    def _line(self, step: Step, window: Window) -> str:
        record = self.bed.record
        counts = record.seen(window)
        seen = " ".join(f"{name}:{count}" for name, count in counts.most_common())
        begin, end = window.begin - record.began, window.end - record.began
        place = step.place or "-"
        return f"{begin:7.1f}-{end:6.1f}  {step.kind:<13} {place:<13} {seen}"[:80]

    def _failed(self, step: Step, error: Exception) -> None:
        text = f"{step.number} {step.kind} {step.place}: {type(error).__name__}: {error}"
        self.seen.failed.append(text[:300])
        self._tell(f"!! could not be done: {text}"[:300])

    def _look(self) -> None:
        now = time.monotonic()
        self.judge(now - JUDGED_AFTER)
        if now - self._sampled >= _SAMPLE_EVERY:
            self._sampled = now
            self._sample(now)
        if now - self._paged >= _PAGES_EVERY:
            self._paged = now
            self._read_pages()
        if not self.bed.serve.running and not self._events_hold("ours"):
            self.seen.failed.append(f"vaultauthz ended by itself: {self.bed.serve.returncode}")
            self._tell(f"!! vaultauthz ended by itself, with {self.bed.serve.returncode}")
            self.bed.start_serve()

    def _events_hold(self, part: str) -> bool:
        now = time.monotonic()
        return any(
            part in window.disturbs and window.begin <= now <= window.end
            for window in self.bed.record.windows[-12:]
        )

    def _sample(self, now: float) -> None:
        pid = self.bed.serve.pid
        mib = resident(pid) if pid else None
        if pid and mib:
            born = self._born.setdefault(pid, now)
            self.seen.samples.append(Sample(pid, now - born, mib))

    def _read_pages(self) -> None:
        if self._events_hold("ours"):
            return
        for page in PAGES:
            text = self.bed.page(page)
            told = [secret for secret in list(self.bed.ledger.secrets) if secret in text]
            self.seen.shown += [f"{page} shows a secret" for _ in told]


def folder() -> tempfile.TemporaryDirectory[str]:
    """Where a run's files are, until it is over."""
    return tempfile.TemporaryDirectory(prefix="vaultauthz-chaos-", ignore_cleanup_errors=True)
