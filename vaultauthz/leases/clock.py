"""The clock that leases are measured with, and when whom to wake: a heap of plans that may be changed."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Final, Protocol

from vaultauthz.core.redaction import where

log = logging.getLogger(__name__)

LOOK_ROUND: Final = 1.0  # seconds between looks at files, old tokens and a clock that jumped

if hasattr(time, "CLOCK_BOOTTIME"):

    def boottime() -> float:
        """Seconds since boot, sleep included: a lease ends while a laptop sleeps, too."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    boottime = time.monotonic  # macOS's counts through sleep by itself


_SWEEP_AFTER: Final = 1000  # plans, at least, between two sweeps


class Planned(Protocol):
    """What can be woken. ``scheduled`` belongs to the agenda: the time planned, or infinity."""

    scheduled: float

    def wake(self) -> None:
        """The time has come."""


class Timer:
    """Calls a function once."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.scheduled = inf
        self._call = call

    def wake(self) -> None:
        """Call it."""
        self._call()


class Agenda:
    """Each item has at most one plan, the last one made. Not safe for threads."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Planned]] = []
        self._order = itertools.count()
        self._made = 0  # since the last sweep

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float:
        """When to look next; infinity for never."""
        return self._heap[0][0] if self._heap else inf

    def plan(self, item: Planned, at: float) -> bool:
        """Wake ``item`` at ``at`` and not when planned before; whether that comes first of all."""
        if at == item.scheduled:
            return False
        item.scheduled = at
        if at == inf:
            return False
        heapq.heappush(self._heap, (at, next(self._order), item))
        self._sweep()
        return self._heap[0][2] is item

    def due(self, now: float) -> Iterator[Planned]:
        """Take out, one by one, what is to be woken by ``now``."""
        while self._heap and self._heap[0][0] <= now:
            at, _, item = heapq.heappop(self._heap)
            if at == item.scheduled:  # else it was planned anew meanwhile
                item.scheduled = inf
                yield item

    def _sweep(self) -> None:
        """Drop the plans that were changed, now and then.

        They would stand in the heap until their time, which may be an hour: one for
        each read of a static secret.
        """
        self._made += 1
        if self._made > _SWEEP_AFTER + len(self._heap) // 2:
            self._made = 0
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].scheduled]
            heapq.heapify(self._heap)


class Waker:
    """Wakes what has a plan, and has ``look_round`` called each second; all under ``lock``."""

    def __init__(
        self,
        lock: threading.RLock,
        clock: Callable[[], float],
        look_round: Callable[[], None],
    ) -> None:
        self.agenda = Agenda()
        self._due = threading.Condition(lock)
        self._clock = clock
        self._look_round = look_round
        self._closed = False

    def plan(self, item: Planned, at: float) -> None:
        """Wake ``item`` at ``at``, and not when planned before. Under the lock."""
        if self.agenda.plan(item, at):
            self._due.notify()

    def run(self) -> None:
        """The clock thread's life."""
        look_at = self._clock() + LOOK_ROUND
        with self._due:
            while not self._closed:
                now = self._clock()
                self.wake(now)
                if now >= look_at:
                    look_at = now + LOOK_ROUND
                    self._look_round()
                # Never longer than a look round: the wait's own clock may stand
                # still while the machine sleeps.
                self._due.wait(max(0.0, min(self.agenda.first, look_at) - self._clock()))

    def wake(self, now: float) -> None:
        """Wake what is due. Under the lock."""
        for item in self.agenda.due(now):
            try:
                item.wake()
            except Exception as exc:  # noqa: BLE001
                # A bug of ours must not end the thread that all the others live by.
                log.error("a wake-up went wrong: %s", where(exc))  # noqa: TRY400

    def close(self) -> None:
        """End the thread. Under the lock."""
        self._closed = True
        self._due.notify_all()
