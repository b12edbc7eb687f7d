"""The audit log: what is asked of it on the request path, and the threads that write and watch.

A check hands its part of a line over and goes on; one thread ties the lines
together and writes them. An access that cannot be recorded must not happen, so a check is refused
when the queue is full, the last write failed, or a line has waited for a second, until the
writer is through again. Another thread sees to the second: a write may hang for as long as it likes.
Lines that were handed over before a failure showed are kept and written then.

A line is with the kernel within ``GATHER`` of its check under any load that the
disk keeps up with: it outlives the process, but not a power cut, since there is
no fsync before ``close``. What a process that is killed takes with it is what was waiting: no
line of more than a second's age, and no more than ``capacity`` and one batch of checks.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from socket import socket
from threading import Event as Flag
from threading import Lock, Thread
from typing import Final

from vaultauthz.config.values import Audit
from vaultauthz.core.decision import Decision, Denied
from vaultauthz.core.events import AUDIT_DROPPED, Access, Event
from vaultauthz.core.request import Request
from vaultauthz.observe import record
from vaultauthz.observe.chain import LogEnd
from vaultauthz.observe.handing_over import FileLines, HeldLines, Outlet, SentLines, Switch, held
from vaultauthz.observe.outage import LOOK, Outage, QueueAge
from vaultauthz.observe.sink import AuditError, Sink

CAPACITY: Final = (
    5_000  # checks in the queue: half a second at 10 000 a second, 3 to 5 MB as a rule
)
_FOR_EVENTS: Final = 1_000  # room kept for events, which are few and tell more
_PATIENCE: Final = 1.0  # seconds for which a gateway's log is held back when there is no room
_STEP: Final = 0.01
GATHER: Final = 0.02  # seconds in which lines come together for one write …
SOON: Final = 0.002  # … and where they come one by one: its answer goes out first
_FEW: Final = 4  # lines that came in ``GATHER``
# One write is this many lines at most: making them holds the interpreter for about
# a quarter of a millisecond, and a check that arrives just then waits for it.
_BATCH: Final = 128

_log = logging.getLogger(__name__)


class AuditLog:
    """Takes checks and events from any thread; its writer runs from the start.

    ``wall`` is the time in seconds since 1970. ``capacity`` is the number of
    checks that may wait to be written, ``retry`` how long in seconds it waits
    after a write that failed, ``sink`` where to write instead of ``settings.file``. With ``watched``
    a thread calls ``look``; without it somebody else has to. With ``takes_over`` the file is another
    process's still: what happens is kept until ``open``.

    Raises:
        AuditError: the file cannot be used; the message says why.
    """

    def __init__(
        self,
        settings: Audit,
        *,
        wall: Callable[[], float] = time.time,
        capacity: int = CAPACITY,
        retry: float = 0.5,
        sink: Sink | None = None,
        watched: bool = True,
        takes_over: bool = False,
    ) -> None:
        self._opened = partial(FileLines.opened, settings, wall)
        self._lines: Outlet
        if takes_over:
            self._lines = HeldLines(str(settings.file), counted=False)
        else:
            self._lines = FileLines(sink, LogEnd(), wall) if sink else self._opened()
        self._wall = wall
        self._capacity = capacity
        self._retry = retry
        self._queue: SimpleQueue[record.Entry | Callable[[], None] | Switch | None] = SimpleQueue()
        self._taken = 0  # out of the queue, since the start
        self._pause = SOON
        self._queue_age = QueueAge()
        self._outage = Outage()
        self._changing = Lock()
        self._working = True
        self._closing = Flag()
        self._refused = 0  # checks
        self._lost = 0  # … and what has happened, recorded or not
        self._reported = (0, 0)  # … of both, in the log itself
        self._dropping = Lock()
        self._behind = False  # there was no room, also after patience
        self._then: list[Callable[[], None]] = []  # to be told once the lines before are out
        self._switches: list[Switch] = []
        self._writer = Thread(target=self._run, name="audit", daemon=True)
        self._writer.start()
        if watched:
            Thread(target=self._watch, name="audit-watch", daemon=True).start()

    @property
    def working(self) -> bool:
        """Whether lines are written, and in time; while it is False no check is recorded."""
        return self._working

    @property
    def held(self) -> bool:
        """Whether another process has the file, or is to have it: lines are kept."""
        return isinstance(self._lines, HeldLines)

    @property
    def behind(self) -> int:
        """How many lines wait to be written."""
        return self._queue.qsize() + self._lines.waiting

    @property
    def dropped(self) -> int:
        """How many checks and events could not be recorded since the start."""
        return self._refused + self._lost

    def record_check(self, request: Request, decision: Decision) -> bool:
        """Hand a check over; False when it will not be recorded. Takes about a microsecond."""
        if not self._working or self._queue.qsize() >= self._capacity:
            return self._refuse()
        self._queue.put(record.of_check(self._wall(), request, decision))
        return True

    def record_refusal(self, request: Request, denied: Denied) -> None:
        """Hand over what a door has denied by itself; its line is lost where there is no room.

        As with accesses: a flood of them is never why a check is refused.
        """
        if not self.has_room:
            self._lose()
            return
        self._queue.put(record.of_check(self._wall(), request, denied))

    def record_event(self, event: Event) -> None:
        """Hand an event over. It happened whether or not it can be recorded."""
        if self._queue.qsize() >= self._capacity + _FOR_EVENTS or self._closing.is_set():
            self._lose()
            return
        self._queue.put(record.of_event(self._wall(), event))

    def record_access(self, access: Access) -> None:
        """Hand over a request that is done; waits for room, to hold the gateway's log back.

        Only half of the queue is for these: they may never be why a check is refused.
        """
        if self._queue.qsize() >= self._capacity // 2 and not self._patient():
            self._lose()
            return
        self._queue.put(record.of_access(access))

    @property
    def has_room(self) -> bool:
        """Whether accesses may be handed over now: they are written, and soon."""
        return self._working and self._queue.qsize() < self._capacity // 2

    def then(self, call: Callable[[], None]) -> None:
        """Call it once all that was handed over before is written; never, if that fails for good.

        It is called by the thread that writes, and must neither wait nor raise.
        """
        self._queue.put(call)

    def queue_access(self, access: Access) -> None:
        """As ``record_access``, for one who asks ``has_room`` first: it is never dropped."""
        self._queue.put(record.of_access(access))

    def _patient(self) -> bool:
        until = time.monotonic() + (0.0 if self._behind else _PATIENCE)
        while full := self._queue.qsize() >= self._capacity // 2:
            if time.monotonic() >= until or self._closing.wait(_STEP):
                break
        self._behind = full
        return not full

    def record_entry(self, entry: record.Entry) -> None:
        """Hand over a line of the process before; waits for room, to hold that one up."""
        while self._queue.qsize() >= self._capacity and not self._closing.wait(_STEP):
            pass
        self._queue.put(entry)

    def open(self, timeout: float) -> None:
        """Take the file, which another process has let go of, and write what was kept.

        Raises:
            AuditError: it cannot be used, or that took more than ``timeout`` seconds.
        """
        self._switch(lambda _: self._opened(), timeout)

    def let_go(self, timeout: float) -> None:
        """Write what was handed over and leave the file to another process; what comes is kept.

        Raises:
            AuditError: it cannot be written within ``timeout`` seconds, and is not let go of.
        """
        self._switch(held, timeout)

    def send(self, line: socket, timeout: float) -> None:
        """Have what was kept, and what comes, written by the process at the other end of ``line``."""
        made = partial(SentLines, line, self._lines.name, self._opened)
        self._switch(lambda _: made(), timeout)

    def _switch(self, made: Callable[[Outlet], Outlet], timeout: float) -> None:
        switch = Switch(made)
        self._queue.put(switch)
        try:
            switch.done.result(timeout)
        except TimeoutError:
            if switch.done.cancel():
                raise AuditError(f"{self._lines.name}: is not written in {timeout:g} s") from None
            switch.done.result()

    def close(self, timeout: float = 2.0) -> bool:
        """Write what was handed over and stop; False when that took more than ``timeout`` s.

        Checks from now on are refused. One that another thread is handing over
        this very moment may be lost: end the checks first.
        """
        with self._changing:
            self._working = False
            self._closing.set()
        self._queue.put(None)  # wakes the writer
        self._writer.join(timeout)
        if not self._writer.is_alive():
            return True
        self._end_without(self._lines.waiting + self._drained())
        return False

    def _drained(self) -> int:
        """How many lines were in the queue; none is any more."""
        count = 0
        with contextlib.suppress(Empty):
            while True:
                count += isinstance(self._queue.get_nowait(), tuple)
        return count

    def _refuse(self) -> bool:
        with self._dropping:
            self._refused += 1
        return False

    def _lose(self, count: int = 1) -> None:
        with self._dropping:
            self._lost += count

    def _run(self) -> None:
        complete = True
        while not self._closing.is_set() or self._queue.qsize():
            self._gather()
            complete = self._write_out() and complete
            for switch in self._switches:
                self._apply(switch)
                complete = self._write_out() and complete
            self._switches.clear()
            if self._lines.waiting and complete:
                continue  # they are kept until there is a file
            for call in self._then if complete else ():
                call()
            self._then.clear()
        if complete and (last := self._unreported("")):
            self._lines.put([last])
            self._write_out()
        self._end_without(self._lines.give_up())  # as only one that has no file has any left
        self._lines.close()

    def _apply(self, switch: Switch) -> None:
        if not switch.done.set_running_or_notify_cancel():
            return
        before = self._lines
        try:
            after = switch.made(before)
        except AuditError as exc:
            switch.done.set_exception(exc)
            return
        except Exception as exc:  # noqa: BLE001 - the thread that writes must not end, nor who waits for it
            switch.done.set_exception(AuditError(f"{before.name}: {type(exc).__name__}"))
            return
        if isinstance(before, HeldLines):
            after.put(before.taken())
        self._lines = after
        switch.done.set_result(None)

    def _gather(self) -> None:
        entry = self._queue.get()
        if self._queue.qsize() < _BATCH:
            self._closing.wait(self._pause)  # let more come: one write for all of them
        entries: list[record.Entry] = []
        taken = 1
        while True:
            if isinstance(entry, tuple):
                entries.append(entry)
            elif isinstance(entry, Switch):
                self._switches.append(entry)
            elif entry is not None:
                self._then.append(entry)
            if len(entries) == _BATCH:
                break
            try:
                entry = self._queue.get_nowait()
            except Empty:
                break
            taken += 1
        self._pause = next_pause(self._pause, len(entries))
        self._lines.put(entries)
        self._taken += taken  # last: until then they count as waiting

    def _write_out(self) -> bool:
        """Write until all of it is out; False when that had to be given up."""
        while self._lines.due:
            last = self._closing.is_set()  # read first: one whole try comes after close
            try:
                self._lines.write()
            except OSError as exc:
                if other := self._lines.instead():
                    self._lines = other
                    continue
                self._change(time.monotonic(), failing=exc.strerror or type(exc).__name__)
                if last:
                    self._end_without(self._lines.give_up())
                    return False
                self._closing.wait(self._retry)
        self._change(time.monotonic(), failing="")
        return True

    def _watch(self) -> None:
        while not self._closing.wait(LOOK):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """See whether a line waits for too long, every ``LOOK`` seconds; ``now`` is monotonic."""
        taken = self._taken  # read first: what is taken meanwhile is missing, and seen next time
        handed = taken + self._queue.qsize()
        self._queue_age.look(now, handed, taken - self._lines.waiting)
        stalled = self._queue_age.overdue(before=self._outage.stalled)
        if stalled != self._outage.stalled:
            self._change(now, stalled=stalled)
        elif self._working and not self._queue_age.age:
            self._report_drops("more came at once than could be written")

    def _change(
        self, now: float, *, failing: str | None = None, stalled: bool | None = None
    ) -> None:
        """Refuse checks, or take them again, whichever is called for by now."""
        if failing == self._outage.failing:
            return
        with self._changing:
            begins = self._outage.change(now, failing=failing, stalled=stalled)
            if begins is None or self._closing.is_set():
                return
            why = self._outage.reason
            if not begins:
                self._report_drops(why)
            self._working = not begins
        # Not under the lock: standard error may be what hangs.
        if begins:
            _log.error(
                "audit log %s cannot be written (%s); checks are refused until it can",
                self._lines.name,
                why,
            )
        else:
            _log.warning("audit log %s is written again (%s)", self._lines.name, why)

    def _report_drops(self, why: str) -> None:
        """Say in the log itself what is missing in it."""
        if entry := self._unreported(why):
            self._queue.put(entry)

    def _unreported(self, why: str) -> record.Entry | None:
        with self._dropping:
            refused, lost = self._refused - self._reported[0], self._lost - self._reported[1]
            self._reported = self._refused, self._lost
        if not refused and not lost:
            return None
        reason = f"{refused} checks refused, {lost} lines lost" + (f": {why}" if why else "")
        return record.of_event(self._wall(), Event(AUDIT_DROPPED, "", reason=reason))

    def _end_without(self, lines: int) -> None:
        """It is the end, and these cannot be written."""
        if lines:
            self._lose(lines)
            _log.error("audit log %s: %d lines are lost at the stop", self._lines.name, lines)


def next_pause(pause: float, lines: int) -> float:
    """For how many seconds lines gather after a ``pause`` in which so many came.

    Whoever looks into the log after a request of his own finds its line; under load fewer
    writes leave the interpreter to the checks.
    """
    return GATHER if lines > (1 if pause == SOON else _FEW) else SOON
