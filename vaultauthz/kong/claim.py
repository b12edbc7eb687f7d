"""Which supervisor looks after the server: the last one that Kong has started.

It says so in a file beside the socket, which it keeps locked as long as it lives. At a reload
two of them overlap, and the older sees that it is not its business any more. Whoever finds
nobody's lock on the file knows that there is none, however they were ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Failures:
    """Starts that failed, one after the other; the last of them ``at`` this ``boottime``."""

    count: int = 0
    at: float = 0.0


class Claim:
    """A supervisor's claim to the server at ``socket``."""

    def __init__(self, socket: Path) -> None:
        self.path = path_for(socket)
        self._fd = -1
        self.failures = Failures()

    def take(self) -> None:
        """From now on it is ours; what the one before has written of failures stays.

        Raises:
            OSError: the file cannot be made.
        """
        self.failures = _read(self.path)
        made = self.path.with_name(f".{os.getpid()}.claim")
        made.unlink(missing_ok=True)
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)  # before it is seen
        self.release()
        self._fd = fd
        self.note(self.failures)
        made.replace(self.path)

    @property
    def mine(self) -> bool:
        """Whether nobody has come after us."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._fd), self.path.lstat())
        return False

    def note(self, failures: Failures) -> None:
        """Let the next one know; on a full disk it knows of none."""
        self.failures = failures
        os.ftruncate(self._fd, 0)
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, json.dumps(asdict(failures)).encode(), 0)

    def release(self) -> None:
        """End it; the file stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def path_for(socket: Path) -> Path:
    """Where the claim to this socket's server is."""
    return socket.with_name(f"{socket.name}.supervisor")


def claimed(socket: Path) -> bool:
    """Whether a supervisor lives that has claimed this socket's server."""
    try:
        fd = os.open(path_for(socket), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def is_locked(fd: int) -> bool:
    """Whether another process has this file locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(path: Path) -> Failures:
    with contextlib.suppress(OSError, ValueError, TypeError):
        told = json.loads(path.read_bytes())
        return Failures(int(told["count"]), float(told["at"]))
    return Failures()
