"""Where the audit log's bytes go: a file that others may rotate, or a stream."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import Protocol

from vaultauthz.observe.chain import TAIL_BYTES, Chain, NotOursError, resume


class AuditError(Exception):
    """The log cannot be opened; the message says which file and why."""


class Sink(Protocol):
    """What the writer needs. Every method may raise OSError."""

    name: str

    def refresh(self) -> bool:
        """Follow the log to a new file; True when one was begun."""
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

    def refresh(self) -> bool:
        """A stream is never moved away."""
        return False

    def write(self, data: bytes) -> int:
        """Write what fits; waits for a slow reader of a pipe."""
        return os.write(self._fd, data)

    def close(self) -> None:
        """Others may still be using it."""


class LogFile:
    """A file that only grows, of mode 600 when made here, and that is ours alone.

    The lock keeps a second process from weaving a chain of its own into it.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._fd = -1

    def open(self) -> Chain:
        """Open it and find where its chain has got to; ends a torn last line.

        Raises:
            AuditError: no access, in use by another process, or something else's file.
        """
        try:
            self._fd = self._opened()
            tail, whole = self._tail()
            chain = resume(tail, whole=whole)
            if tail and not tail.endswith(b"\n"):
                os.write(self._fd, b"\n")
        except BlockingIOError:
            raise AuditError(f"{self.name}: another process writes this audit log") from None
        except OSError as exc:
            raise AuditError(f"{self.name}: {exc.strerror}") from exc
        except NotOursError as exc:
            raise AuditError(f"{self.name}: {exc}") from exc
        return chain

    def refresh(self) -> bool:
        """Begin a new file when the path does not lead to the open one any more.

        The chain goes on in it, also when something is in it already: a log
        that was replaced while we ran must not pass for ours.
        """
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), os.fstat(self._fd)):
                return False
        fresh = self._opened()
        os.close(self._fd)
        self._fd = fresh
        tail, _ = self._tail()
        if tail and not tail.endswith(b"\n"):
            os.write(fresh, b"\n")
        return True

    def write(self, data: bytes) -> int:
        """Append; fewer bytes than given when the disk is nearly full."""
        return os.write(self._fd, data)

    def close(self) -> None:
        """Bring it to the disk and let go of it and its lock."""
        with contextlib.suppress(OSError):  # a pipe or device knows no fsync
            os.fsync(self._fd)
        os.close(self._fd)

    def _opened(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        if _regular(fd):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise
            except OSError:
                pass  # a network file system without locks
        return fd

    def _tail(self) -> tuple[bytes, bool]:
        if not _regular(self._fd):
            return b"", True
        size = os.fstat(self._fd).st_size
        start = max(0, size - TAIL_BYTES)
        return os.pread(self._fd, TAIL_BYTES, start), start == 0


def _regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)
