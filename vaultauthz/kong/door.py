"""Kong's way into a server: the plugin server on its socket, and when it is to end.

Kong's own words do not reach one that Kong has started: the SIGTERM and the SIGKILL of a stop and
of a reload hit its supervisor. So it goes by what there is: a supervisor, Kong's master, connections.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz.doors import Door
from vaultauthz.kong.gate import Gate
from vaultauthz.kong.log_phase import LogPhase
from vaultauthz.kong.ownership import Ownership, claimed
from vaultauthz.kong.processes import WatchedProcess
from vaultauthz.kong.server import PluginServer
from vaultauthz.service import Service

log = logging.getLogger(__name__)

# Kong ends a supervisor before the next one is there, which takes a Python's start. And it
# never starts one again when a reload has taken the plugin out.
LINGER: Final = 8.0  # seconds that a server of a living Kong goes on without a supervisor
ALONE: Final = 2.0  # … at least the last of them without any connection
_GRACE: Final = 5.0  # seconds for requests that wait for Vault, when another server takes over


@dataclass(slots=True)
class Vigil:
    """When a server that Kong has started is to end. Pure: the caller looks and tells.

    ``over`` is asked again and again; ``now`` is monotonic, in seconds.
    """

    _watched_at: float | None = None
    _used_at: float = 0.0

    def over(self, now: float, *, supervised: bool, master_gone: bool, connected: bool) -> bool:
        """Whether nobody needs the server any more."""
        if supervised or self._watched_at is None:
            self._watched_at = now
        if connected:
            self._used_at = now
        if supervised:
            return False
        if master_gone:
            return True
        return now - self._watched_at >= LINGER and now - self._used_at >= ALONE


class Needed:
    """Whether a Kong that has started the server still needs it; ``master`` is Kong's, if it is known."""

    def __init__(self, master: WatchedProcess | None) -> None:
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
        self,
        ownership: Ownership,
        log_phase: LogPhase,
        server: PluginServer,
        needed: Needed | None = None,
    ) -> None:
        self._ownership = ownership
        self._log_phase = log_phase
        self._server = server
        self._needed = needed

    def start(self) -> None:
        """Answer. The place has been taken before."""
        self._log_phase.start()
        self._server.start()

    @property
    def over(self) -> bool:
        """Whether it is to end: another server has come, or Kong has ended."""
        if self._ownership.lost:
            log.info("the socket is another server's by now, or gone")
            return True
        connected = self._server.connections > 0
        if self._needed is None or not self._needed.over(self._ownership.path, connected=connected):
            return False
        log.info("Kong has ended, or has no use for the plugin any more")
        return True

    def stop(self, grace: float) -> None:
        """End, in good order."""
        self._server.stop(max(grace, _GRACE) if self._ownership.lost else grace)
        self._log_phase.stop()


def gate_of(service: Service) -> tuple[Gate, LogPhase]:
    """The plugin over a server's engine, and what follows its requests."""
    engine = service.engine
    log_phase = LogPhase(service.metrics.count_answer, service.rejected)
    return Gate(
        service.check, lambda: engine.broker.table, lambda: engine.config, log_phase
    ), log_phase
