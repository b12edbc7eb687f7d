"""Kong's way into a server: the plugin server on its socket, and when it gives way."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from vaultauthz.kong.gate import Gate
from vaultauthz.kong.given import Given
from vaultauthz.kong.place import Place
from vaultauthz.kong.server import Server

log = logging.getLogger(__name__)

# Kong ends the old server's worker, and tells it to end, before the new one is there.
LINGER: Final = 8.0  # seconds to go on for Kong's other workers, and until the next server comes
_ALONE: Final = 2.0  # … and without any connection
_GRACE: Final = 5.0  # seconds for requests that wait for Vault
_LOOK: Final = 0.05


class Parent:
    """The worker that started us, and its master. A reload ends the one, not the other."""

    def __init__(self) -> None:
        self._worker = os.getppid()
        self._master = _parent_of(self._worker)

    @property
    def gone(self) -> bool:
        """Whether the worker has ended."""
        return os.getppid() != self._worker

    @property
    def kong_gone(self) -> bool:
        """Whether all of Kong has ended, or nobody can tell."""
        if self._master <= 1:
            return self._master != 1 or self.gone
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(PermissionError):
                os.kill(self._master, 0)
            return False
        return True


class Door:
    """Serves Kong from ``start`` to ``stop``; ``parent`` is None for one that Kong did not start."""

    def __init__(
        self,
        place: Place,
        gate: Gate,
        given: Given,
        ready: Callable[[], bool],
        parent: Parent | None,
    ) -> None:
        self._place = place
        self._given = given
        self._parent = parent
        self._server = Server(place, gate, ready)

    open_streams = refused_streams = 0
    unread: Mapping[str, int] = MappingProxyType({})

    def start(self) -> None:
        """Answer. The place has been taken before."""
        self._given.start()
        self._server.start()

    @property
    def over(self) -> bool:
        """Whether it is to end: another server has come, or the worker has gone."""
        if self._place.lost:
            log.info("another server has the socket by now")
            return True
        return self._parent is not None and self._parent.gone

    def stop(self, grace: float) -> None:
        """End, in good order; for a reload of Kong see ``LINGER``."""
        if self._parent is not None:
            self._linger(self._parent)
            grace = max(grace, _GRACE)
        self._server.stop(grace)
        self._given.stop()

    def _linger(self, parent: Parent) -> None:
        until = time.monotonic() + LINGER
        used_at = time.monotonic()
        while not (self._place.lost or parent.kong_gone) and time.monotonic() < until:
            if self._server.connections:
                used_at = time.monotonic()
            if time.monotonic() - used_at > _ALONE:
                return
            time.sleep(_LOOK)


def _parent_of(process: int) -> int:
    """A process's parent; 0 where it is not to be found out."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        stat = Path(f"/proc/{process}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])  # its name may hold a bracket
    return 0
