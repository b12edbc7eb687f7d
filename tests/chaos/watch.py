"""What is looked at all the time: how late this machine is, and how much memory our process has."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_TICK: Final = 0.05
_LATE: Final = 0.1
WARM: Final = 60.0  # seconds in which a process still grows
SPAN: Final = 30.0  # of its beginning and its end that are compared
LEAST: Final = WARM + 3 * SPAN  # else nothing can be said of it
GROWS: Final = 6.0  # MiB that are no growth


class Ticker:
    """Tells of each stop of this machine that is longer than 0.1 s."""

    def __init__(self, note: Callable[[tuple[float, float]], object]) -> None:
        self._note = note
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(_TICK):
            now = time.monotonic()
            if now - before - _TICK > _LATE:
                self._note((now, now - before - _TICK))
            before = now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()


@dataclass(frozen=True)
class Sample:
    """A process's memory (resident, in MiB) at a time in its life, in seconds."""

    pid: int
    age: float
    mib: float


def resident(pid: int) -> float | None:
    """In MiB; None once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(found[0]) / 1024 if found else None


@dataclass(frozen=True)
class Grown:
    """Of one process: medians of the time after its warm-up and of its end."""

    pid: int
    lived: float
    begin: float
    end: float

    @property
    def flat(self) -> bool:
        """Whether that is no growth."""
        return self.end - self.begin <= GROWS


def grown(samples: Sequence[Sample]) -> list[Grown]:
    """For each process that lived long enough to tell."""
    found = []
    for pid in dict.fromkeys(sample.pid for sample in samples):
        own = [sample for sample in samples if sample.pid == pid]
        lived = own[-1].age
        if lived < LEAST:
            continue
        begin = [s.mib for s in own if WARM <= s.age <= WARM + SPAN]
        end = [s.mib for s in own if s.age >= lived - SPAN]
        if begin and end:
            found.append(Grown(pid, lived, statistics.median(begin), statistics.median(end)))
    return found
