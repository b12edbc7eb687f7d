"""The log's queue: whoever has a line for it does not wait for whoever reads it.

A pipe that nobody empties would else hold up the thread that logs, and with it what waits for that
thread: renewals, under the keeper's lock, and checks. So lines wait in a queue and a thread of its own
writes them. When too many wait, further ones are dropped; how many is told in their place.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TextIO, cast

_MOST: Final = 4096  # lines that wait
_FLUSH: Final = 2.0  # seconds that an end waits for them


class Writer(Protocol):
    """Whoever writes the lines; it is called by one thread alone.

    No handler, as ``logging.shutdown`` would close that by itself, and wait for it.
    """

    def write(self, record: logging.LogRecord) -> None:
        """Write a line, however long that takes."""

    def close(self) -> None:
        """Write what there is yet to be written."""


class LogQueue(logging.Handler):
    """Has ``to`` write what it is given, from a thread of its own and in order.

    At most ``most`` lines wait. ``flush`` waits until all are written, at most ``patience`` seconds; it
    and ``close`` are called at the end of the process, also when that is ended by a fault.
    """

    def __init__(
        self,
        to: Writer,
        most: int = _MOST,
        patience: float = _FLUSH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._to = to
        self._most = most
        self._patience = patience
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[logging.LogRecord] = deque()
        self._writing = False
        self._written = 0
        self._waited_for = -1  # so many had been written when a wait for the next was in vain
        self._dropped, self._since = 0, 0.0  # since the last line that was taken; since when
        self._thread: threading.Thread | None = None
        self._over = False

    def emit(self, record: logging.LogRecord) -> None:
        """Take it, if there is room."""
        try:
            ready = _ready(record)
        except Exception:  # noqa: BLE001 - a line that cannot be made is no trouble of who writes it
            self.handleError(record)
            return
        with self._changed:
            if self._over:
                return
            if self._dropped and len(self._waiting) < self._most - 1:
                self._waiting.append(self._gap())
            if self._dropped or len(self._waiting) >= self._most:
                self._since = self._since if self._dropped else self._clock()
                self._dropped += 1
                return
            self._waiting.append(ready)
            self._begin()
            self._changed.notify_all()

    def _begin(self) -> None:
        if self._thread is None and self._waiting:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            # The system may have none left: the line waits, and the next one is another try.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _gap(self) -> logging.LogRecord:
        """The line in place of those that were dropped."""
        number, self._dropped = self._dropped, 0
        seconds = self._clock() - self._since
        lines = "line of this log is" if number == 1 else "lines of this log are"
        text = f"{number} {lines} missing here: for {seconds:.1f} s whoever reads it was too slow"
        found = logging.LogRecord("vaultauthz", logging.WARNING, "", 0, text, (), None)
        found.fields = {"dropped_lines": number, "seconds": round(seconds, 3)}
        found.each_time = True
        return found

    def _run(self) -> None:
        while True:
            with self._changed:
                self._written += self._writing
                self._writing = False
                if not self._waiting and self._dropped:
                    self._waiting.append(self._gap())
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._over)
                record = self._waiting.popleft() if self._waiting else None
                self._writing = True
            if record is None:
                break
            try:
                self._to.write(record)
            except Exception:  # noqa: BLE001 - one line is not worth all that come after it
                self.handleError(record)
        self._to.close()  # which may have something to tell, too

    def flush(self) -> None:
        """Wait until everything is written; not for ever, as whoever reads may be gone."""
        with self._changed:
            self._begin()
            patience = 0.0 if self._waited_for == self._written else self._patience
            if not self._changed.wait_for(lambda: not (self._waiting or self._writing), patience):
                self._waited_for = self._written  # at an end this is asked for twice

    def close(self) -> None:
        """Write what there is, and take no more."""
        self.flush()
        with self._changed:
            self._over = True
            self._changed.notify_all()
            ends = self._thread and not self._writing  # else its end is nobody's to wait for
        if self._thread and ends:
            self._thread.join(self._patience)
        super().close()


def _ready(record: logging.LogRecord) -> logging.LogRecord:
    """With its text made, whatever becomes of its arguments. Of an error its type: text and frames hold values."""
    found = copy.copy(record)
    found.msg, found.args = record.getMessage(), None
    if found.exc_info and found.exc_info[0]:
        found.exc_info = cast(Any, (found.exc_info[0], None, None))  # who writes it names the type
    return found


def direct(stream: TextIO) -> TextIO:
    """``stream``'s descriptor, to be written to without the lock of the stream; itself where it has none.

    Python flushes standard error when it ends, and is aborted if a thread that it does not wait for
    holds the lock of it, as one does that waits for a full pipe.
    """
    try:
        fd = stream.fileno()
    except OSError:  # io.UnsupportedOperation is one
        return stream
    return cast(TextIO, _Descriptor(fd, stream.encoding))


class _Descriptor:
    def __init__(self, fd: int, encoding: str) -> None:
        self._fd = fd
        self._encoding = encoding

    def write(self, text: str) -> int:
        """All of it, however long that takes."""
        data = memoryview(text.encode(self._encoding, "backslashreplace"))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody who shares it has made it so
                select.select([], [self._fd], [])
        return len(text)

    def flush(self) -> None:
        """Nothing is kept here."""
