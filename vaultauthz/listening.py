"""Where a server of ours listens: a unix socket's name, or a host and port.

A name is had in the same steps by every listener. See that nobody serves under it; bind under a
passing name; give that its mode and move it to its own. So nobody gets in under a wider mode,
what a killed server has left is replaced without a moment in between, and a name that is another
server's by now is never taken away from it.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz.config.addresses import LONGEST_SOCKET_PATH, UNIX, is_loopback

# To chown, the number after it means "as it is": the socket would be for another group.
LAST_GROUP: Final = 2**32 - 2
# What may be under a socket's name already.
SERVED: Final = "served"
NO_SOCKET: Final = "no socket"
_PEER: Final = struct.Struct("3i")  # process, user, group
_PROBE: Final = 1.0  # seconds for a server to take a connection


class ListenError(OSError):
    """A server cannot listen; the text names the configuration's key, or the place, and why."""


@dataclass(frozen=True, slots=True)
class Address:
    """``path`` of a unix socket, or ``host`` and ``port``."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """``unix:///path``, ``host:port`` or ``[::1]:port``. Raises ValueError: it is none of them."""
        if text.startswith(UNIX):
            return cls(path=Path(text.removeprefix(UNIX)))
        host, colon, port = text.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
            raise ValueError(f"{text!r} is neither unix:///path nor host:port")
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    @property
    def family(self) -> socket.AddressFamily:
        """The kind of socket to make."""
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def loopback(self) -> bool:
        """Whether only this machine's TCP clients can reach it; False for a unix socket."""
        return self.path is None and is_loopback(self.host)

    def __str__(self) -> str:
        if self.path:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SocketName:
    """The name of a unix socket, from looking at it to giving it back."""

    def __init__(self, path: Path, tag: str = "") -> None:
        self.path = path
        # In the same folder, and none that a server of another kind in this process uses.
        self.passing = path.with_name(f".{os.getpid()}{tag}")
        self._published: tuple[int, int] | None = None
        self._lends = False  # when ``keep`` was called

    @property
    def is_of_a_file(self) -> bool:
        """Whether something has it that is no socket. Raises OSError."""
        return os.path.lexists(self.path) and not stat.S_ISSOCK(self.path.lstat().st_mode)

    def in_the_way(self) -> str:
        """``SERVED``, ``NO_SOCKET``, or "" where the name can be had. Raises OSError."""
        if not os.path.lexists(self.path):
            return ""
        if self.is_of_a_file:
            return NO_SOCKET
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PROBE)
            try:
                probe.connect(str(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                return ""  # of a server that was killed, or has just gone
        return SERVED

    def bind(self, listener: socket.socket) -> None:
        """Bind it under the passing name. Raises OSError."""
        if len(os.fsencode(self.path)) > LONGEST_SOCKET_PATH:
            raise OSError("AF_UNIX path too long")  # as the system says of the passing one
        self.passing.unlink(missing_ok=True)
        listener.bind(str(self.passing))

    def publish(self, mode: int, group: str = "", listen: Callable[[], None] | None = None) -> None:
        """Give what is bound its group (see ``group_number``), its mode and its name.

        ``listen`` begins to take connections, before anybody can see the name.

        Raises:
            OSError, LookupError: the system refuses, or there is no such group; then nothing is left.
        """
        try:
            if group:
                self._give_to(group)
            self.passing.chmod(mode)
            if listen:
                listen()
            self.passing.replace(self.path)
        except (OSError, LookupError):
            self.passing.unlink(missing_ok=True)
            raise
        self._published = self._found()

    def _give_to(self, group: str) -> None:
        try:
            os.chown(self.passing, -1, group_number(group))
        except PermissionError:
            raise ListenError(
                f"{self.path}: only root, or who is in the group {group} (in Kubernetes by "
                "supplementalGroups or runAsGroup), may give it the socket"
            ) from None

    def adopt(self) -> None:
        """It was another server's, whose listener we have: it is ours to remove from now on."""
        self._published = self._found()

    def borrow(self) -> None:
        """Another process, as systemd, has a socket there that we listen in place of: it has the name back at the end.

        Whoever releases the name sees to it, also a server that has taken over meanwhile.
        """
        if self.in_the_way() == SERVED:
            self._lent.unlink(missing_ok=True)
            self._lent.hardlink_to(self.path)

    @property
    def borrowed(self) -> bool:
        """Whether there is such a socket."""
        return os.path.lexists(self._lent)

    @property
    def _lent(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lent")

    def keep(self) -> None:
        """Have what it leads to under a second name, should the next server that takes it not last."""
        self._kept.unlink(missing_ok=True)
        self._kept.hardlink_to(self.path)
        self._lends = self.borrowed

    def restore(self) -> None:
        """Have the name back, if it leads to another server; ``keep`` is undone. Raises OSError.

        Where ``keep`` found no name there is none to have.
        """
        if self.lost and os.path.lexists(self._kept):
            if self._lends and not self.borrowed:
                self.borrow()  # the other one gave it back as it ended
            self._kept.replace(self.path)
        self.let_go()

    def let_go(self) -> None:
        """Undo ``keep``."""
        self._kept.unlink(missing_ok=True)

    @property
    def _kept(self) -> Path:
        return self.passing.with_name(f"{self.passing.name}.kept")

    @property
    def lost(self) -> bool:
        """Whether it leads to another server by now, or to none."""
        return self._published != self._found()

    def release(self) -> None:
        """Remove it, unless it was never ours, or is another server's by now; a borrowed one is given back."""
        if self._published is None or self.lost:
            return
        if self.borrowed:
            self._lent.replace(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def _found(self) -> tuple[int, int] | None:
        """What tells the socket's file from another of the same name."""
        with contextlib.suppress(OSError):
            found = self.path.lstat()
            return found.st_dev, found.st_ino
        return None


def group_number(text: str) -> int:
    """Of a group by its name, or by its number; a name wins over a number, as with chown(1).

    Kubernetes and containers have numbers only: ``fsGroup`` and ``supplementalGroups`` are in no
    ``/etc/group``.

    Raises:
        LookupError: there is no group of this name, and it is no number of one.
    """
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):  # ValueError: a NUL in it
        if text.isascii() and text.isdecimal() and len(text) <= len(str(LAST_GROUP)):
            number = int(text)
            if number <= LAST_GROUP:
                return number
        raise LookupError(
            f"there is no group {text!r:.60}; give its name, or its number (0 to {LAST_GROUP})"
        ) from None


def peer_of(line: socket.socket) -> tuple[int, bool]:
    """The process at the other end of a unix socket's connection, and whether it may do what we do.

    To a client it is the one that listens. Raises OSError.
    """
    found = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid, uid, _ = _PEER.unpack(found)
    return pid, uid in (0, os.geteuid()) or os.geteuid() == 0


# --- one TCP port, two servers -----------------------------------------------

_ATTACH_CBPF: Final = getattr(socket, "SO_ATTACH_REUSEPORT_CBPF", 51)
_INSTRUCTION: Final = struct.Struct("HBBI")  # of classic BPF: code, two jumps, a number
_RETURN: Final = 0x06
_LISTENS: Final = "0A"


def steer(port: int, proc: Path = Path("/proc")) -> None:
    """Have each new connection to a TCP port come to this process, which came last to it.

    Servers that share a port (SO_REUSEPORT) get connections by a hash of their addresses, as long
    as they listen. Those that the one before has got it may still take, and no more come to it: so none waits
    in its backlog when it closes. It does nothing where the system knows no such thing.
    """
    last = max(_listening(proc / "net/tcp", port), _listening(proc / "net/tcp6", port)) - 1
    if last < 1:
        return
    for file in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        with contextlib.suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(file).st_mode):  # of anything else the copy would stay open
                with socket.socket(fileno=os.dup(file)) as one:
                    if _listens(one, port):
                        _attach(one, last)


def _listens(one: socket.socket, port: int) -> bool:
    if one.family == socket.AF_UNIX or not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    return bool(one.getsockname()[1] == port)


def _attach(one: socket.socket, answer: int) -> None:
    program = array("B", _INSTRUCTION.pack(_RETURN, 0, 0, answer))
    at, _ = program.buffer_info()
    one.setsockopt(socket.SOL_SOCKET, _ATTACH_CBPF, struct.pack("HP", 1, at))


def _listening(table: Path, port: int) -> int:
    with contextlib.suppress(OSError):
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
        ends = f":{port:04X}"
        return sum(row[1].endswith(ends) and row[3] == _LISTENS for row in rows)
    return 0
