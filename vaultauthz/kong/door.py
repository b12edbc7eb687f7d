"""Kong's way into a server: the plugin server on its socket, and when it gives way."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vaultauthz.kong.claim import claimed
from vaultauthz.kong.given import Given
from vaultauthz.kong.place import Place
from vaultauthz.kong.processes import Process
from vaultauthz.kong.server import Server
from vaultauthz.kong.vigil import Vigil

log = logging.getLogger(__name__)

_GRACE: Final = 5.0  # seconds for requests that wait for Vault, when another server takes over


class Door:
    """Serves Kong from ``start`` to ``stop``.

    ``master`` is Kong's, where a supervisor that Kong has started looks after the server.
    """

    def __init__(
        self, place: Place, given: Given, server: Server, master: Process | None = None
    ) -> None:
        self._place = place
        self._given = given
        self._server = server
        self._master = master
        self._vigil = Vigil()

    open_streams = refused_streams = 0
    unread: Mapping[str, int] = MappingProxyType({})

    def start(self) -> None:
        """Answer. The place has been taken before."""
        self._given.start()
        self._server.start()

    @property
    def over(self) -> bool:
        """Whether it is to end: another server has come, or Kong has ended."""
        if self._place.lost:
            log.info("another server has the socket by now")
            return True
        if self._master is None or not self._unneeded(self._master):
            return False
        log.info("Kong has ended, or has no use for the plugin any more")
        return True

    def _unneeded(self, master: Process) -> bool:
        return self._vigil.over(
            time.monotonic(),
            supervised=claimed(self._place.path),
            master_gone=master.gone,
            connected=self._server.connections > 0,
        )

    def stop(self, grace: float) -> None:
        """End, in good order."""
        self._server.stop(max(grace, _GRACE) if self._place.lost else grace)
        self._given.stop()
