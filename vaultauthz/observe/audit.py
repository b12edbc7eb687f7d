"""The audit log: what is asked of it on the request path, and the thread that writes.

A check hands its part of a line over and goes on; one thread ties the lines
together and writes them. An access that cannot be recorded must not happen, so a check is refused
when the queue is full or the last write failed, until writing works again.
Lines that were handed over before a failure showed (at most ``GATHER`` seconds
of them) are kept and written then.

A line is with the kernel within ``GATHER`` of its check under any load that the
disk keeps up with: it outlives the process, but not a power cut, since there is
no fsync before ``close``.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Lock, Thread
from typing import Final

from vaultauthz.config.values import Audit
from vaultauthz.core.decision import Decision
from vaultauthz.core.events import Access, Event
from vaultauthz.core.request import Request
from vaultauthz.observe import record
from vaultauthz.observe.chain import Chain
from vaultauthz.observe.sink import LogFile, Sink, Stream

CAPACITY: Final = 20_000  # checks in the queue: 2 s at 10 000 a second, 10 to 20 MB as a rule
_FOR_EVENTS: Final = 1_000  # room kept for events, which are few and tell more
_PATIENCE: Final = 1.0  # seconds for which a gateway's log is held back when there is no room
_STEP: Final = 0.01
GATHER: Final = 0.02
# One write is this many lines at most: making them holds the interpreter for about
# a quarter of a millisecond, and a check that arrives just then waits for it.
_BATCH: Final = 128

_log = logging.getLogger(__name__)


class AuditLog:
    """Takes checks and events from any thread; its writer runs from the start.

    ``wall`` is the time in seconds since 1970. ``capacity`` is the number of
    checks that may wait to be written, ``retry`` how long in seconds it waits
    after a write that failed, ``sink`` where to write instead of ``settings.file``.

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
    ) -> None:
        self._sink, self._chain = (sink, Chain()) if sink else _opened(settings)
        self._wall = wall
        self._capacity = capacity
        self._retry = retry
        self._queue: SimpleQueue[record.Entry | Callable[[], None] | None] = SimpleQueue()
        self._working = True
        self._closing = Flag()
        self._dropped = 0
        self._dropping = Lock()
        self._behind = False  # there was no room, also after patience
        self._pending = b""  # whole lines that are not yet out
        self._torn = 0  # bytes of the first of them that are
        self._waiting: list[Callable[[], None]] = []  # to be told once those lines are out
        self._writer = Thread(target=self._run, name="audit", daemon=True)
        self._writer.start()

    @property
    def working(self) -> bool:
        """Whether the last write succeeded; while it is False no check is recorded."""
        return self._working

    @property
    def dropped(self) -> int:
        """How many checks and events could not be recorded since the start."""
        return self._dropped

    def record_check(self, request: Request, decision: Decision) -> bool:
        """Hand a check over; False when it will not be recorded. Takes about a microsecond."""
        if not self._working or self._queue.qsize() >= self._capacity:
            return self._drop()
        self._queue.put(record.of_check(self._wall(), request, decision))
        return True

    def record_event(self, event: Event) -> None:
        """Hand an event over. It happened whether or not it can be recorded."""
        if self._queue.qsize() >= self._capacity + _FOR_EVENTS or self._closing.is_set():
            self._drop()
            return
        self._queue.put(record.of_event(self._wall(), event))

    def record_access(self, access: Access) -> None:
        """Hand over a request that is done; waits for room, to hold the gateway's log back.

        Only half of the queue is for these: they may never be why a check is refused.
        """
        if self._queue.qsize() >= self._capacity // 2 and not self._patient():
            self._drop()
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

    def close(self, timeout: float = 2.0) -> bool:
        """Write what was handed over and stop; False when that took more than ``timeout`` s.

        Checks from now on are refused. One that another thread is handing over
        this very moment may be lost: end the checks first.
        """
        self._working = False
        self._closing.set()
        self._queue.put(None)  # wakes the writer
        self._writer.join(timeout)
        self._working = False  # the writer may have just recovered
        return not self._writer.is_alive()

    def _drop(self, count: int = 1) -> bool:
        with self._dropping:
            self._dropped += count
        return False

    def _run(self) -> None:
        complete = True
        while not self._closing.is_set() or self._queue.qsize():
            self._pending = self._gather()
            complete = self._write_out() and complete
            for call in self._waiting if complete else ():
                call()
            self._waiting.clear()
        self._sink.close()

    def _gather(self) -> bytes:
        entry = self._queue.get()
        if self._queue.qsize() < _BATCH:
            self._closing.wait(GATHER)  # let more come: one write for all of them
        lines: list[bytes] = []
        while True:
            if isinstance(entry, tuple):
                lines.append(self._chain.link(entry))
            elif entry is not None:
                self._waiting.append(entry)
            if len(lines) == _BATCH:
                break
            try:
                entry = self._queue.get_nowait()
            except Empty:
                break
        return b"".join(lines)

    def _write_out(self) -> bool:
        """Write until all of it is out; False when that had to be given up."""
        while self._pending:
            last = self._closing.is_set()  # read first: one whole try comes after close
            try:
                self._write_some()
            except OSError as exc:
                self._failed(exc)
                if last:
                    self._drop(self._pending.count(b"\n"))
                    self._pending = b""
                    return False
                self._closing.wait(self._retry)
            else:
                self._worked()
        return True

    def _write_some(self) -> None:
        if self._sink.refresh():
            self._torn = 0  # the line that was cut short goes whole into the new file
        out = self._torn + self._sink.write(self._pending[self._torn :])
        ended = self._pending.rfind(b"\n", 0, out) + 1
        self._pending = self._pending[ended:]
        self._torn = out - ended

    def _failed(self, exc: OSError) -> None:
        if self._working:
            self._working = False
            _log.error(
                "audit log %s cannot be written (%s); checks are refused until it can",
                self._sink.name,
                exc.strerror,
            )

    def _worked(self) -> None:
        if not self._working and not self._closing.is_set() and not self._pending:
            self._working = True
            _log.warning("audit log %s is written again", self._sink.name)


def _opened(settings: Audit) -> tuple[Sink, Chain]:
    if settings.file is None:
        return Stream(sys.stdout.fileno()), Chain()
    file = LogFile(settings.file)
    return file, file.open()
