"""Where the words of a server go that Kong has started: into a file, and to Kong while it listens.

The file is what lasts: Kong shows what its plugin servers say at its level ``info`` alone, and the
pipe ends with each of its workers.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_MOST: Final = 32_768  # bytes that Kong is told at once; a pipe holds 65,536


class ServerLog(logging.Handler):
    """The log file, which the servers write to as well; ``relay`` passes on to Kong what is new.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._path = path
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        os.close(self.open())  # now: a wrong name is told of at the start
        self._told = self._size
        with suppress(OSError):
            os.set_blocking(_kong(), False)  # a Kong that stands still holds us not up

    def open(self) -> int:
        """The file, to append to. Raises OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._path, flags, 0o600)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                exc.strerror = "is a link, and the log is not written through one: name the file"
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line of our own."""
        data = f"{self.format(record)}\n".encode(errors="backslashreplace")
        try:
            fd = self.open()
            try:
                os.write(fd, data)
            finally:
                os.close(fd)
        except OSError:  # a full disk: Kong is told at least
            _tell(data)

    def relay(self) -> None:
        """Tell Kong what was written since it was told last; of very much, the end."""
        size = self._size
        if size == self._told:
            return
        begin = self._told if self._told < size else 0  # it was cut, by whoever rotates it
        self._told = size
        with suppress(OSError), self._path.open("rb") as file:
            file.seek(max(begin, size - _MOST))
            _tell(file.read(size - file.tell()))

    @property
    def _size(self) -> int:
        with suppress(OSError):
            return self._path.stat().st_size
        return 0


def _tell(data: bytes) -> None:
    with suppress(OSError):  # it listens no more, or is too slow
        os.write(_kong(), data)


def _kong() -> int:
    # Python has none where it was closed before; its number may be another file's by now.
    return sys.stderr.fileno() if sys.stderr else -1
