"""Where the audit log's bytes go: a file that others may rotate, or a stream."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import sys
from pathlib import Path
from typing import Final, Protocol, Self

from vaultauthz.observe.chain import TAIL_BYTES, Ending, NotOursError, ending

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


class Stream:
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

    def open(self) -> Ending:
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


def _ending(fd: int) -> Ending:
    """Where the log in it ends. Raises NotOursError."""
    if not _regular(fd):
        return Ending()
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
