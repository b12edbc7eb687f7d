"""Where the server listens, and whether that place is free."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNIX: Final = "unix://"
# Envoy usually runs as a user of its own: it gets in by the group.
_SOCKET_MODE: Final = 0o660
_PROBE: Final = 1.0  # seconds for a server on the socket to take a connection


class ListenError(OSError):
    """The server cannot listen there; the message names the place and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """``listen.grpc``: a unix socket at ``path``, or else ``host:port``."""

    address: str

    @property
    def path(self) -> Path | None:
        """The socket's file, or None for TCP."""
        if not self.address.startswith(_UNIX):
            return None
        return Path(self.address.removeprefix(_UNIX))

    @property
    def _passing(self) -> Path | None:
        """Where the socket is bound before it is moved to its name.

        Both gRPC libraries delete the name that they bound when they close, even when
        it is another server's by then. So they get a name that is gone by that time.
        """
        return None if self.path is None else self.path.with_name(f".{os.getpid()}")

    @property
    def target(self) -> str:
        """The address to bind, as both gRPC libraries take it."""
        return self.address if self.path is None else f"unix:{self._passing}"

    def error(self, why: object) -> ListenError:
        """An error about this place."""
        return ListenError(f"listen.grpc: {self.address}: {why}")

    def claim(self) -> None:
        """See that nobody serves there; the socket of a killed server may be replaced.

        Raises:
            ListenError: somebody does, or the system refuses.
        """
        try:
            if self.path is not None:
                self._see_that_nobody_answers(self.path)
            else:
                self._try_to_bind()
        except ListenError:
            raise
        except OSError as exc:
            raise self.error(exc.strerror or exc) from exc

    def publish(self) -> tuple[int, int] | None:
        """Give the bound socket its name and mode; returns what ``release`` needs.

        Raises:
            ListenError: the system refuses.
        """
        if self.path is None or self._passing is None:
            return None
        try:
            self._passing.chmod(_SOCKET_MODE)
            self._passing.replace(self.path)
        except OSError as exc:
            raise self.error(exc.strerror or exc) from exc
        return self._identity()

    def release(self, published: tuple[int, int] | None) -> None:
        """Remove the socket's file, unless it is by now another server's."""
        if self.path is not None and published is not None and self._identity() == published:
            self.path.unlink(missing_ok=True)

    def _identity(self) -> tuple[int, int] | None:
        """What tells the socket's file from another of the same name."""
        if self.path is None or not self.path.exists():
            return None
        found = self.path.stat()
        return found.st_dev, found.st_ino

    def _see_that_nobody_answers(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise self.error(f"the folder {path.parent} does not exist; create it")
        if not os.access(path.parent, os.W_OK):
            raise self.error(f"no permission to create a socket in {path.parent}")
        if not os.path.lexists(path):
            return
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise self.error("there is a file of that name, and it is not a socket")
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(ConnectionRefusedError):
            probe.settimeout(_PROBE)
            probe.connect(str(path))
            raise self.error("another server answers on it; stop it first, or listen elsewhere")

    def _try_to_bind(self) -> None:
        """Bind once for the system's own words: grpcio only says that it failed."""
        host, _, port = self.address.rpartition(":")
        found = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the servers do it: a port in TIME_WAIT is free, one that is served is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
