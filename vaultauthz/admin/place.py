"""Where the admin server listens: a unix socket or host:port."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNIX: Final = "unix://"
SOCKET_MODE: Final = 0o600  # whoever may open it may rotate and revoke


class AdminError(Exception):
    """The admin server cannot start; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """``path`` of a unix socket, or ``host`` and ``port``."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Place:
        """``unix:///path``, ``host:port`` or ``[::1]:port``.

        Raises:
            AdminError: it is none of them.
        """
        if text.startswith(_UNIX):
            return cls(path=Path(text.removeprefix(_UNIX)))
        host, colon, port = text.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
            raise AdminError(f"listen.admin: {text!r} is neither unix:///path nor host:port")
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
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bind(place: Place) -> socket.socket:
    """A bound socket, not listening yet; a dead unix socket is cleared away.

    Raises:
        AdminError: something else is there, or the system refuses.
    """
    sock = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        if place.path:
            _clear(place.path)
            sock.bind(str(place.path))
            # Before listen(), so that no client gets in under a wider mode.
            place.path.chmod(SOCKET_MODE)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((place.host, place.port))
    except OSError as exc:
        sock.close()
        reason = exc.strerror or str(exc)  # a path too long for a socket has no errno
        raise AdminError(f"listen.admin: {place}: {reason}") from exc
    except AdminError:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AdminError(f"listen.admin: {path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT):
            raise AdminError(f"listen.admin: {path} is in use by another process")
    path.unlink(missing_ok=True)


def identity(path: Path) -> tuple[int, int]:
    """What tells our socket file from one that was put there since."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def remove(path: Path, ours: tuple[int, int]) -> None:
    """Remove the socket file, unless it is another server's by now."""
    with contextlib.suppress(OSError):
        if identity(path) == ours:
            path.unlink()
