"""What one server hands to the next: Kong's connections as they are, and what the instances' numbers mean.

A connection that we closed might be the one on which Kong sends its next call, and for the call
that starts an instance that is an error to its client. Handed over, it stays what it is: what
Kong sends meanwhile waits in it. Each goes when no call is under way on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vaultauthz.kong.registration import Names

_GIVE: Final = b"f"  # with each descriptor; then comes JSON, which begins otherwise
_PATIENCE: Final = 2.0  # seconds for the other side to take or give something
_MOST: Final = 64  # descriptors at once
_READ: Final = 65_536


@dataclass(slots=True)
class Inheritance:
    """Connections, and the instances by number; ``next`` is the last number that was given."""

    connections: list[socket.socket] = field(default_factory=list)
    instances: Mapping[int, Names] = field(default_factory=dict)
    next: int | None = None


class Heir:
    """The next server's side: ``wait`` for what the one before at ``path`` gives.

    Where there is no room for another name in the folder, or in a socket's 108 bytes, nothing
    comes: the one before lets go of its connections by itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = _meeting(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._giver: socket.socket | None = None
        self._document = bytearray()
        self._connections: list[socket.socket] = []
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._listener.listen(1)

    def wait(self, seconds: float) -> None:
        """Take what is there, or comes within so many seconds."""
        poll = select.poll()
        poll.register(self._giver or self._listener, select.POLLIN)
        if any(event & select.POLLIN for _, event in poll.poll(seconds * 1000)):
            with contextlib.suppress(BlockingIOError):
                self._take()
        elif self._giver is None and not self._listening():
            time.sleep(seconds)  # one without a name is always ready, for nothing

    def _listening(self) -> bool:
        return bool(self._listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def _take(self) -> None:
        if self._giver is None:
            self._giver, _ = self._listener.accept()
            self._giver.setblocking(False)
        room = socket.CMSG_SPACE(_MOST * array("i").itemsize)
        while True:
            data, ancillary, _, _ = self._giver.recvmsg(_READ, room)
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds = array("i")
                    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                    self._connections += [_adopted(fd) for fd in fds]
            self._document += data
            if not data:
                self._giver.close()
                self._giver = None
                return

    def inheritance(self) -> Inheritance:
        """What has come."""
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            document = json.loads(bytes(self._document).lstrip(_GIVE) or b"null")
            known = {int(n): (str(of[0]), str(of[1])) for n, of in document["instances"].items()}
            return Inheritance(self._connections, known, int(document["next"]))
        return Inheritance(self._connections)

    def close(self) -> None:
        """Take no more."""
        for one in (self._listener, self._giver):
            if one is not None:
                one.close()
        self._path.unlink(missing_ok=True)


class Giver:
    """The last server's side; ``to`` is None where nobody takes anything."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._taken = True

    @classmethod
    def to(cls, path: Path) -> Giver | None:
        """Meet the next server at the place ``path``."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(_PATIENCE)
        try:
            line.connect(str(_meeting(path)))
        except OSError:
            line.close()
            return None
        return cls(line)

    def give(self, connection: socket.socket) -> bool:
        """Hand it over; the caller closes its own descriptor. False when that did not work, from then on."""
        if not self._taken:
            return False
        fds = array("i", [connection.fileno()])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
        try:
            self._line.sendmsg([_GIVE], ancillary)
        except OSError:  # each would wait for one that is stuck
            self._taken = False
        return self._taken

    def end(self, instances: Mapping[int, Names], last: int) -> None:
        """Say what the instances' numbers mean, and that this is all."""
        with contextlib.suppress(OSError):
            self._line.sendall(json.dumps({"instances": instances, "next": last}).encode())
        self.close()

    def close(self) -> None:
        """Give no more."""
        self._line.close()


def _adopted(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def _meeting(path: Path) -> Path:
    return path.with_name(f".{path.name}.next")
