"""Where the audit log's bytes go, and lines on their way there.

A sink is a file that others may rotate, or a stream. It may take any part of what it is given, or
none. What it has taken of a line is finished where it is, if the sink is still the same. When
the file was moved away (or emptied) with half a line at its end, that line goes whole into
the next file, behind an ``audit.torn`` that tells of the piece and whose hash covers it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import sys
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from vaultauthz.core.events import AUDIT_TORN, Event
from vaultauthz.observe import record
from vaultauthz.observe.chain import TAIL_BYTES, Chain, LogEnd, NotOursError, ending

if TYPE_CHECKING:
    from hashlib import _Hash

_SHORTLY: Final = 100  # ms to wait for a stream that will not keep us waiting itself
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_NOCTTY


class AuditError(Exception):
    """The log cannot be opened; the message says which file and why."""


class Sink(Protocol):
    """What the writer needs. Every method may raise OSError."""

    name: str

    def refresh(self) -> bool:
        """Follow the log to a new file; True when one was begun, or the old one emptied."""
        ...

    def write(self, data: bytes) -> int:
        """Write from the start of ``data``; how many bytes got there."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class OutputStream:
    """An open file descriptor, as standard output is; it stays open at close."""

    def __init__(self, fd: int, name: str = "standard output") -> None:
        self.name = name
        self._fd = fd

    @classmethod
    def standard(cls) -> Self:
        """Standard output.

        Raises:
            AuditError: it was closed before we began, or is no file descriptor.
        """
        try:
            if sys.stdout is not None:
                return cls(sys.stdout.fileno())
        except (OSError, ValueError):  # put in its place, or closed, by a program that embeds us
            pass
        raise AuditError("standard output is closed; name a file for the audit log (audit.file)")

    def refresh(self) -> bool:
        """A stream is never moved away."""
        return False

    def write(self, data: bytes) -> int:
        """Write what fits; waits for a slow reader of a pipe, a moment where it is non-blocking."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # somebody who has the same pipe has set it so
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll(_SHORTLY)
            return 0

    def close(self) -> None:
        """Others may still be using it."""


class LogFile:
    """A file that only grows, of mode 600 when made here, and that is ours alone.

    The lock keeps a second process from weaving a chain of its own into it. A link to a file is
    not followed, since whoever can put one there would choose what we write into; folders may be
    links, and so may the way to a pipe or a terminal, as ``/dev/stdout`` is.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._fd = -1
        self._regular = True
        self._size = 0  # bytes, as far as we know

    def open(self) -> LogEnd:
        """Open it and find where its log ends. Nothing is written.

        Raises:
            AuditError: no access, in use by another process, or something else's file.
        """
        try:
            self._fd = self._opened()
            self._regular = _regular(self._fd)
            end = _ending(self._fd)
            self._size = os.fstat(self._fd).st_size
        except OSError as exc:
            raise AuditError(f"{self.name}: {exc.strerror}") from exc
        except NotOursError as exc:
            raise AuditError(f"{self.name}: {exc}") from exc
        return end

    def refresh(self) -> bool:
        """Begin a new file when the path does not lead to the open one any more.

        The chain goes on in it, also when lines are in it already: a log
        that was replaced while we ran must not pass for ours.
        """
        about = os.fstat(self._fd)
        with contextlib.suppress(FileNotFoundError):
            here = self._path.stat(follow_symlinks=not self._regular)
            if os.path.samestat(here, about):
                return self._regular and self._was_cut(about.st_size)
        fresh = self._opened()
        try:
            _end_last_line(fresh, regular=self._regular)
        except BaseException:
            os.close(fresh)
            raise
        os.close(self._fd)
        self._fd, self._size = fresh, os.fstat(fresh).st_size
        return True

    def write(self, data: bytes) -> int:
        """Append; fewer bytes than given when the disk is nearly full."""
        count = os.write(self._fd, data)
        self._size += count
        return count

    def close(self) -> None:
        """Bring it to the disk and let go of it and its lock."""
        with contextlib.suppress(OSError):  # a pipe or device knows no fsync
            os.fsync(self._fd)
        with contextlib.suppress(
            OSError
        ):  # a network file system tells now of what it lost; it is closed
            os.close(self._fd)

    def _was_cut(self, size: int) -> bool:
        """Whether it was emptied, as logrotate's copytruncate does: then it is as good as new."""
        if size >= self._size:
            return False
        _end_last_line(self._fd)
        self._size = os.fstat(self._fd).st_size
        return True

    def _opened(self) -> int:
        try:
            fd = os.open(self._path, _FLAGS | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            if exc.errno != errno.ELOOP:
                raise
            return self._through_link()
        try:
            _lock(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _through_link(self) -> int:
        """Open what is no file behind a link."""
        refused = OSError(
            errno.ELOOP, "is a link, and the audit log is not written through one: name the file"
        )
        if not self._path.exists() or self._path.is_file():
            raise refused
        fd = os.open(self._path, _FLAGS)
        if _regular(fd):  # by now
            os.close(fd)
            raise refused
        return fd


def _lock(fd: int) -> None:
    """Make a file ours alone. Raises OSError when another process has it."""
    if not _regular(fd):
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EAGAIN, "another process writes this audit log") from None
    except OSError:
        pass  # a network file system without locks


def _ending(fd: int) -> LogEnd:
    """Where the log in it ends. Raises NotOursError."""
    if not _regular(fd):
        return LogEnd()
    size = os.fstat(fd).st_size
    start = max(0, size - TAIL_BYTES)
    return ending(os.pread(fd, TAIL_BYTES, start), whole=start == 0)


def _end_last_line(fd: int, *, regular: bool = True) -> None:
    """Make sure that what we write next begins a line, and that it is such a file, of ours.

    Raises:
        OSError: it is not.
    """
    if _regular(fd) != regular:
        raise OSError(errno.EINVAL, "it was a file and is none any more, or the other way about")
    try:
        end = _ending(fd)
    except NotOursError as exc:
        raise OSError(errno.EINVAL, str(exc)) from exc
    if end.open:
        os.write(fd, b"\n")


def _regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


class LineWriter:
    """For one thread; ``end`` is where the sink's log ends, ``wall`` as of ``AuditLog``."""

    def __init__(self, sink: Sink, end: LogEnd, wall: Callable[[], float]) -> None:
        self._sink = sink
        self._wall = wall
        self._chain = end.chain
        self._entries: deque[record.Entry] = deque()  # whose lines are not out
        self._data = b""  # those lines
        self._out = 0  # bytes of the first one that are out
        self._newline = end.open  # one has to end what the log ends with
        # The last whole line that is out, its number, and its hash with the pieces after it.
        self._last, self._seq = end.text, end.seq
        self._torn = sha256(self._last) if end.torn else None
        if self._torn:
            self._tie_to(self._torn, end.torn)

    @property
    def waiting(self) -> int:
        """How many lines are not wholly out."""
        return len(self._entries)

    def put(self, entries: Sequence[record.Entry]) -> None:
        """Tie them to the lines before."""
        self._entries.extend(entries)
        self._data += b"".join(map(self._chain.link, entries))

    def write(self) -> None:
        """Write some of what is waiting.

        Raises:
            OSError: nothing was written; all of it still waits.
        """
        if self._sink.refresh():
            self._begin_anew()
        if self._newline:
            self._newline = not self._sink.write(b"\n")
            return
        out = self._out + self._sink.write(self._data[self._out :])
        ended = self._data.rfind(b"\n", 0, out) + 1
        if ended:
            self._ended(self._data[:ended])
            self._data = self._data[ended:]
        self._out = out - ended

    def give_up(self) -> int:
        """Let what waits go, since this is the end; how many lines that were."""
        lost = len(self._entries)
        self._entries.clear()
        self._data, self._newline = b"", False
        return lost

    def _ended(self, lines: bytes) -> None:
        self._last = lines[lines.rfind(b"\n", 0, -1) + 1 : -1]
        self._torn = None
        count = lines.count(b"\n")
        self._seq += count
        for _ in range(count):
            self._entries.popleft()

    def _begin_anew(self) -> None:
        """The file is another: what is out of a line stays behind, at the end of that one."""
        self._newline = False
        if not self._out:
            return
        if self._data[self._out : self._out + 1] == b"\n":  # all of it but its end, so no piece
            self._ended(self._data[: self._out + 1])
            self._data, self._out = self._data[self._out + 1 :], 0
            return
        piece = self._data[: self._out]
        if self._torn is None and not self._last:
            self._torn = sha256(piece)
        else:
            self._torn = self._torn or sha256(self._last)
            self._torn.update(b"\n" + piece)
        self._tie_to(self._torn, self._out)

    def _tie_to(self, torn: _Hash, size: int) -> None:
        """Tie all that waits anew: to the last line and the pieces after it, and tell of them."""
        reason = (
            f"{size} bytes of a line that was not finished, at the end of what was written before"
        )
        self._entries.appendleft(
            record.of_event(self._wall(), Event(AUDIT_TORN, "", reason=reason))
        )
        self._chain = Chain(self._seq, torn.hexdigest())
        self._data, self._out = b"".join(map(self._chain.link, self._entries)), 0
