"""What a server that runs watches: files, by what changes whenever one does, and signals."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

_LOOK: Final = 0.2  # seconds
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


class Stamp(NamedTuple):
    """Of the file that links lead to: Kubernetes replaces a mounted file by moving a link."""

    modified: int  # nanoseconds
    changed: int  # the same, and not what `cp -p` sets; also when somebody lets us read the file
    inode: int
    size: int


def stamp(path: Path) -> Stamp:
    """The stamp of the file at ``path``.

    Raises:
        OSError: there is none, or it cannot be seen.
    """
    found = path.stat()
    return Stamp(found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size)


def stamp_if_any(path: Path) -> Stamp | None:
    """The same; None where there is none."""
    with contextlib.suppress(OSError):
        return stamp(path)
    return None


class Watch:
    """Tells once when a file has changed and is not being written any more.

    Make it before the file is read: then no change in between is missed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gone = False  # at the last two looks: not only for the moment in which it is replaced
        self._known = self._last = stamp_if_any(path)

    def changed(self) -> bool:
        """Whether it has changed since this last said so, and is the same as at the last look."""
        before, self._last = self._last, stamp_if_any(self.path)
        self.gone = self._last is None is before
        # Gone for a moment: some programs write another file and move it into place.
        if self._last in (None, self._known) or self._last != before:
            return False
        self._known = self._last
        return True


class Signals:
    """SIGHUP and a change of the file at ``path`` want it read again, SIGTERM and SIGINT a stop.

    SIGUSR2 wants another process to take over.

    Made first of all, in the main thread: SIGHUP would end a process that has no handler
    yet, and one that comes while the file is read for the first time has it read again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop = False
        self.next = False  # SIGUSR2 has asked for another server to take over
        self._watch = Watch(path)
        # Its put() never waits. Event.set() would, and forever: for a lock that the very code
        # has which the signal interrupts.
        self._heard: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: object) -> None:
        self._heard.put(number)

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask to stop; a second of either ends at once, but for ``pause``."""
        before = {number: signal.signal(number, self._end) for number in _ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: object) -> None:
        self.stop = True
        self._hear(number, frame)
        for ending in _ENDING:
            signal.signal(ending, signal.SIG_DFL)

    def pause(self, seconds: float, begin: Callable[[], None]) -> None:
        """Wait so long, or until SIGTERM or SIGINT comes again; the next of them ends at once.

        ``begin`` is called once either would be heard.
        """
        with contextlib.suppress(Empty):
            while True:  # the one that asked to stop
                self._heard.get_nowait()
        for number in _ENDING:
            signal.signal(number, self._end)
        begin()
        until, heard = time.monotonic() + seconds, 0
        while heard not in _ENDING and (left := until - time.monotonic()) > 0:
            # Not all at once: a signal may be given to another thread, and then does not wake this one.
            with contextlib.suppress(Empty):
                heard = self._heard.get(timeout=min(left, _LOOK))
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)

    @property
    def gone(self) -> bool:
        """Whether the file is not there, or not to be seen."""
        return self._watch.gone

    def reload(self, seconds: float) -> bool:
        """Whether the file is to be read again, after a signal or so many seconds."""
        heard = set()
        with contextlib.suppress(Empty):
            heard.add(self._heard.get(timeout=seconds))
            # However often it was asked for: once is enough. What comes meanwhile is the next look's.
            for _ in range(self._heard.qsize()):
                heard.add(self._heard.get_nowait())
        self.next = self.next or signal.SIGUSR2 in heard
        changed = self._watch.changed()
        return changed or signal.SIGHUP in heard
