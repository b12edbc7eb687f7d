"""The socket's place, which one server hands on to the next.

Kong starts the next server before it ends the last (`kong reload`). The next one puts its
socket under the name at once, and so gets all new connections, which wait in its backlog; the
last one sees that, finishes what it has and ends; then its lock is free, and with it all that
only one process can have: the audit log and the admin socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from pathlib import Path
from typing import Final

from vaultauthz.kong.group import group_number

# What nginx's workers ask for at once; a full backlog refuses a unix socket's clients.
BACKLOG: Final = 4096
_POLL: Final = 0.05  # seconds


class PlaceError(OSError):
    """The socket cannot be had there; the message names the place and why."""


class Place:
    """``path`` is for the owner alone, or for ``group`` (see ``group_number``) as well."""

    def __init__(self, path: Path, group: str = "") -> None:
        self.path = path
        self._group = group
        self._listener: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = -1

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
            PlaceError: the system refuses, or the server before does not go.
        """
        try:
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not patience and not self._locked():
                raise self._error("another server has it; stop that one first")
            self._see_that_it_is_a_socket()
            self._listen()
            self._wait(patience)
        except PlaceError:
            self.release()
            raise
        except (OSError, LookupError) as exc:
            self.release()
            raise self._error(getattr(exc, "strerror", None) or exc) from exc

    def _wait(self, patience: float) -> None:
        """Until the server before is gone."""
        until = time.monotonic() + patience
        while not self._locked():
            if time.monotonic() > until:
                raise self._error(f"the server before has not ended in {patience:g} s")
            time.sleep(_POLL)

    @property
    def lost(self) -> bool:
        """Whether the name leads to another server by now, or to none."""
        return self._identity != self._found()

    def leave(self) -> None:
        """Take no more connections; the name goes, unless it is another server's by now."""
        if self._listener is not None:
            if not self.lost:
                self.path.unlink(missing_ok=True)
            self._listener.close()
            self._listener = None

    def release(self) -> None:
        """Let the next server begin; all else that it wants must be let go before."""
        self.leave()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _listen(self) -> None:
        passing = self.path.with_name(f".{os.getpid()}.kong")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener = listener
        passing.unlink(missing_ok=True)
        listener.bind(str(passing))
        try:
            if self._group:
                self._give_to(passing, group_number(self._group))
            passing.chmod(0o660 if self._group else 0o600)
            listener.listen(BACKLOG)
            passing.replace(self.path)
        except (OSError, LookupError):
            passing.unlink(missing_ok=True)
            raise
        self._identity = self._found()

    def _give_to(self, path: Path, group: int) -> None:
        try:
            os.chown(path, -1, group)
        except PermissionError:
            raise self._error(
                f"only root, or who is in the group {self._group} (in Kubernetes by "
                "supplementalGroups or runAsGroup), may give it the socket"
            ) from None

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _see_that_it_is_a_socket(self) -> None:
        if os.path.lexists(self.path) and not stat.S_ISSOCK(self.path.lstat().st_mode):
            raise self._error("there is a file of that name, and it is not a socket")

    def _found(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            found = self.path.lstat()
            return found.st_dev, found.st_ino
        return None

    def _error(self, why: object) -> PlaceError:
        return PlaceError(f"{self.path}: {why}")
