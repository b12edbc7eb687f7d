"""Whose the socket is, and who looks after its server: two locked files beside it.

The server's place is handed on from one to the next.

Kong starts the next server before it ends the last (`kong reload`). The next one puts its
socket under the name at once, and so gets all new connections, which wait in its backlog; the
last one sees that, finishes what it has and ends; then its lock is free, and with it all that
only one process can have: the audit log and the admin socket. Of several next ones one comes
after the other: who waits in the backlog of one that gave way would be lost.

Which supervisor looks after the server is said by the last one that Kong has started. At a reload
two of them overlap, and the older sees that it is not its business any more. Whoever finds nobody's
lock on a file knows that there is none, however they were ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

from vaultauthz.kong.handover import Heir, Inheritance
from vaultauthz.kong.processes import began_at
from vaultauthz.listening import ListenError, SocketName

log = logging.getLogger(__name__)

# What nginx's workers ask for at once; a full backlog refuses a unix socket's clients.
BACKLOG: Final = 4096
_POLL: Final = 0.05  # seconds
_DEATH: Final = 5.0  # seconds for a process that was killed to be gone


@dataclass(frozen=True, slots=True)
class Holder:
    """The server that has a place, as it says itself; 0 and "" where it does not.

    ``fits`` is what it was asked to be, ``stale`` that a part of its configuration only a
    restart takes over, ``has`` what only one process can have: its audit log and admin address.
    """

    pid: int = 0
    began: str = ""
    fits: str = ""
    stale: bool = False
    has: tuple[str, ...] = ()

    @property
    def signalable(self) -> bool:
        """Whether the number is still that process's."""
        return self.pid > 1 and bool(self.began) and self.began == began_at(self.pid)


def holder(path: Path) -> Holder | None:
    """Who has the place at ``path``; None for nobody. Raises OSError."""
    fd = _opened(lock_of(path))
    try:
        return _holder_in(fd) if is_locked(fd) else None
    finally:
        os.close(fd)


def coming(path: Path) -> bool:
    """Whether a server is about to take the place, and has not told who it is. Raises OSError."""
    fd = _opened(_turn_of(path))
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def lock_of(path: Path) -> Path:
    """The file that the place's holder keeps locked."""
    return path.with_name(f"{path.name}.lock")


def _turn_of(path: Path) -> Path:
    """The file that the next one keeps locked until it has the place."""
    return path.with_name(f"{path.name}.next")


def _opened(file: Path) -> int:
    # Not through a link: what a lock says is written to it.
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder_in(fd: int) -> Holder:
    with contextlib.suppress(OSError, ValueError, TypeError):
        document = json.loads(os.pread(fd, 4096, 0))
        has = tuple(map(str, document["has"]))
        stale = document["stale"] is True
        return Holder(
            int(document["pid"]), str(document["began"]), str(document["fits"]), stale, has
        )
    return Holder()


class Ownership:
    """``path`` is for the owner alone, or for ``group`` (see ``group_number``) as well."""

    def __init__(self, path: Path, group: str = "") -> None:
        self.path = path
        self._group = group
        self._name = SocketName(path, ".kong")
        self._listener: socket.socket | None = None
        self._lock = -1
        self._turn = -1  # locked from before we listen until a supervisor can see who we are
        self.inherited = Inheritance()  # from the server before

    @property
    def listener(self) -> socket.socket:
        """The listening socket, once the place is taken."""
        if self._listener is None:
            raise RuntimeError("the place is not taken")
        return self._listener

    def take(self, patience: float) -> None:
        """Listen under the name, and wait until the server before is gone.

        ``patience`` is in seconds; 0: there must be none.

        Raises:
            ListenError: the system refuses, or the server before does not go.
        """
        try:
            self._lock = _opened(lock_of(self.path))
            if not patience and not _lock(self._lock):
                raise self._error("another server has it; stop that one first")
            if self._name.is_of_a_file:
                raise self._error("there is a file of that name, and it is not a socket")
            if patience:
                self._succeed(patience)
            else:
                self._listen()
            os.ftruncate(self._lock, 0)  # what the one before has said of itself
        except ListenError:
            self.release()
            raise
        except (OSError, LookupError) as exc:
            self.release()
            raise self._error(getattr(exc, "strerror", None) or exc) from exc

    def _succeed(self, patience: float) -> None:
        self._await_turn(patience)
        heir = Heir(self.path)
        try:
            self._listen()
            self._wait(heir, patience)
            heir.wait(0)
            self.inherited = heir.inheritance()
        finally:
            heir.close()

    def _await_turn(self, patience: float) -> None:
        """Until no other server is about to take the place; one that is stuck is not waited for."""
        self._turn = _opened(_turn_of(self.path))
        whose, until = b"", inf
        while not _lock(self._turn):
            now = time.monotonic()
            if now >= until:
                return
            before, whose = whose, os.pread(self._turn, 99, 0)
            if until == inf or whose != before:  # another one, with the time that it has itself
                until = now + patience + _DEATH
            time.sleep(_POLL)
        with contextlib.suppress(
            OSError
        ):  # on a full disk those who wait take us for the one before
            os.pwrite(self._turn, b"%20d" % os.getpid(), 0)

    def _wait(self, heir: Heir, patience: float) -> None:
        """Until the server before is gone; one that does not go is killed, as it may be stuck."""
        if self._ended(heir, patience):
            return
        before = _holder_in(self._lock)
        if not before.signalable:
            raise self._error(f"the server before has not ended in {patience:g} s")
        log.error("the server before has not ended in %g s: it is killed", patience)
        os.kill(before.pid, signal.SIGKILL)
        if not self._ended(heir, _DEATH):
            raise self._error("the server before was killed, and has not ended")

    def _ended(self, heir: Heir, patience: float) -> bool:
        until = time.monotonic() + patience
        while not _lock(self._lock):
            if self.lost:
                raise self._error("yet another server has come, which takes over")
            if time.monotonic() > until:
                return False
            heir.wait(_POLL)
        return True

    def tell(self, fits: str, *, stale: bool = False, has: tuple[str, ...] = ()) -> bool:
        """Let a supervisor know what has the place; False where the disk is full."""
        pid = os.getpid()
        data = json.dumps(asdict(Holder(pid, began_at(pid), fits, stale, has))).encode()
        try:
            os.pwrite(self._lock, data, 0)
            os.ftruncate(self._lock, len(data))
        except OSError:
            return False
        finally:
            self._end_turn()
        return True

    @property
    def lost(self) -> bool:
        """Whether the name leads to another server by now, or to none."""
        return self._name.lost

    def leave(self) -> None:
        """Take no more connections; the name goes, unless it is another server's by now."""
        if self._listener is not None:
            self._name.release()
            self._listener.close()
            self._listener = None

    def release(self) -> None:
        """Let the next server begin; all else that it wants must be let go before."""
        self.leave()
        self._end_turn()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _end_turn(self) -> None:
        if self._turn >= 0:
            os.close(self._turn)
            self._turn = -1

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener = listener
        self._name.bind(listener)
        mode = 0o660 if self._group else 0o600
        self._name.publish(mode, self._group, partial(listener.listen, BACKLOG))

    def _error(self, why: object) -> ListenError:
        return ListenError(f"{self.path}: {why}")


@dataclass(frozen=True, slots=True)
class Failures:
    """Starts that failed, one after the other; the last of them ``at`` this ``boottime``."""

    count: int = 0
    at: float = 0.0


class SupervisorClaim:
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
        document = json.loads(path.read_bytes())
        return Failures(int(document["count"]), float(document["at"]))
    return Failures()
