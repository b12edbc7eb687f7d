"""What a process uses, and on which cores it runs (Linux)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SCHEDULED = 2
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU time of all its threads since it started."""
    # The clock of another process (clock_getcpuclockid(3)): /proc counts in steps of 10 ms.
    return time.clock_gettime(~pid << 3 | _SCHEDULED)


def resident_bytes(pid: int) -> int:
    """Memory that it holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


@dataclass(frozen=True)
class Cores:
    """Who runs where; None leaves it to the kernel."""

    gateway: frozenset[int] | None = None  # Envoy
    asked: frozenset[int] | None = None  # what Envoy asks
    others: frozenset[int] | None = None  # the load and the upstream

    @classmethod
    def placed(cls, how: str) -> Cores:
        """``none``; ``shared``: Envoy and what it asks on one core; ``apart``: Envoy alone on one.

        Falls back to ``none`` on a machine with one core.
        """
        cores = sorted(os.sched_getaffinity(0))
        if how == "none" or len(cores) < 2:
            return cls()
        first, rest = frozenset(cores[:1]), frozenset(cores[1:])
        return cls(rest, rest if how == "shared" else first, first)


@contextlib.contextmanager
def on(cores: frozenset[int] | None) -> Iterator[None]:
    """Processes that are started inside run on these cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
