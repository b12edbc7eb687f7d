"""Kong's way into a server: the plugin server on its socket, and when it gives way."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from vaultauthz.doors import Door
from vaultauthz.kong.claim import claimed
from vaultauthz.kong.given import Given
from vaultauthz.kong.place import Place
from vaultauthz.kong.processes import Process
from vaultauthz.kong.server import Server
from vaultauthz.kong.vigil import Vigil

log = logging.getLogger(__name__)

_GRACE: Final = 5.0  # seconds for requests that wait for Vault, when another server takes over


class Needed:
    """Whether a Kong that has started the server still needs it; ``master`` is Kong's, if it is known."""

    def __init__(self, master: Process | None) -> None:
        self._master = master
        self._vigil = Vigil()

    def over(self, path: Path, *, connected: bool) -> bool:
        """Whether nobody needs the server at ``path`` any more."""
        return self._vigil.over(
            time.monotonic(),
            supervised=claimed(path),
            master_gone=self._master is not None and self._master.gone,
            connected=connected,
        )


class KongDoor(Door):
    """Serves Kong from ``start`` to ``stop``; ``needed`` is for a server that Kong has started."""

    def __init__(
        self, place: Place, given: Given, server: Server, needed: Needed | None = None
    ) -> None:
        self._place = place
        self._given = given
        self._server = server
        self._needed = needed

    def start(self) -> None:
        """Answer. The place has been taken before."""
        self._given.start()
        self._server.start()

    @property
    def over(self) -> bool:
        """Whether it is to end: another server has come, or Kong has ended."""
        if self._place.lost:
            log.info("the socket is another server's by now, or gone")
            return True
        connected = self._server.connections > 0
        if self._needed is None or not self._needed.over(self._place.path, connected=connected):
            return False
        log.info("Kong has ended, or has no use for the plugin any more")
        return True

    def stop(self, grace: float) -> None:
        """End, in good order."""
        self._server.stop(max(grace, _GRACE) if self._place.lost else grace)
        self._given.stop()
