"""Kong's way into a server: the plugin server on its socket, and when it is to end.

Kong's own words do not reach one that Kong has started: the SIGTERM and the SIGKILL of a stop and
of a reload hit its supervisor. So it goes by what there is: a supervisor, Kong's master, connections.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz import serve as serving
from vaultauthz.admin import rehearse
from vaultauthz.admin.overview import ConnectedGateway
from vaultauthz.config import fit_for_kong, load_for_kong
from vaultauthz.config.values import Config
from vaultauthz.doors import Door
from vaultauthz.kong.gate import Gate
from vaultauthz.kong.log_phase import LogPhase
from vaultauthz.kong.ownership import Holder, Ownership, claimed, holder
from vaultauthz.kong.processes import WatchedProcess
from vaultauthz.kong.server import PluginServer, raise_file_limit
from vaultauthz.observe.gauges import DoorGauges
from vaultauthz.observe.sink import AuditError, LogFile
from vaultauthz.service import Service
from vaultauthz.watching import Signals

log = logging.getLogger(__name__)

# Kong ends a supervisor before the next one is there, which takes a Python's start. And it
# never starts one again when a reload has taken the plugin out.
LINGER: Final = 8.0  # seconds that a server of a living Kong goes on without a supervisor
ALONE: Final = 2.0  # … at least the last of them without any connection
# Seconds for the server before to end: its requests, then what it revokes.
HANDOVER: Final = 15.0
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

    @property
    def gauges(self) -> DoorGauges:
        """See ``Door``."""
        return DoorGauges(connections=lambda: {"kong": self._server.connections})

    @property
    def connected(self) -> Sequence[ConnectedGateway]:
        """Kong's workers, of which each connects by itself."""
        connections = self._server.connections
        return [ConnectedGateway("Kong", "its plugin's socket", connections)] if connections else []

    def stop(self, grace: float) -> None:
        """End, in good order."""
        self._server.stop(max(grace, _GRACE) if self._ownership.lost else grace)
        self._log_phase.stop()


def gate_of(service: Service) -> tuple[Gate, LogPhase]:
    """The plugin over a server's engine, and what follows its requests."""
    engine = service.engine
    log_phase = LogPhase(service.metrics.count_answer, service.rejected, service.tried)
    table, config = (lambda: engine.broker.table), (lambda: engine.config)
    return Gate(service.check, table, config, log_phase, service.refused), log_phase


@dataclass(frozen=True, slots=True)
class Supervised:
    """What a supervisor that Kong has started says: who Kong's master is, if it sees that, and what it asked for."""

    master: WatchedProcess | None
    fits: str

    @classmethod
    def parse(cls, text: str) -> Supervised:
        """Read ``PID,BEGAN,FITS``; a PID of 0 is not known. Raises ValueError."""
        pid, began, fits = text.split(",")
        return cls(WatchedProcess(int(pid), began) if int(pid) else None, fits)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the command line says; ``supervised`` is None for one that Kong did not start."""

    socket: Path
    group: str = ""
    supervised: Supervised | None = None


class _Life:
    """A server at its place, and what it tells its supervisor."""

    def __init__(
        self, ownership: Ownership, supervised: Supervised | None, has: tuple[str, ...]
    ) -> None:
        self._ownership = ownership
        self._supervised = supervised
        self._has = has
        self._stale = False
        self._recorded = True
        self._service: Service
        self._door: KongDoor

    def open(self, config: Config) -> Service:
        """The server for a configuration."""
        self._service = Service(config, self._opened, load_for_kong)
        return self._service

    def _opened(self, service: Service) -> KongDoor:
        gate, log_phase = gate_of(service)
        server = PluginServer(self._ownership, gate, lambda: service.engine.started)
        needed = Needed(self._supervised.master) if self._supervised else None
        self._door = KongDoor(self._ownership, log_phase, server, needed)
        return self._door

    def tell(self) -> None:
        """Say who has the place."""
        if self._supervised:
            recorded = self._ownership.tell(self._supervised.fits, stale=self._stale, has=self._has)
            if self._recorded and not recorded:
                log.warning(
                    "the disk is full: until it is not, each reload has another server start"
                )
            self._recorded = recorded

    @property
    def over(self) -> bool:
        """Whether it is to end."""
        stale = bool(self._service.facts.at_restart)
        if stale != self._stale or not self._recorded:
            self._stale = stale
            self.tell()
        return self._door.over


def _audit_log(config: Config) -> str:
    return os.path.realpath(config.audit.file) if config.audit.file else ""


def _rehearse(config: Config, before: Holder | None) -> None:
    """Try what is new to the server before while it serves: later nobody would.

    Raises:
        AuditError, ListenError: it would not start.
    """
    if before is None or not before.has:
        return
    if config.audit.file and _audit_log(config) not in before.has:
        log_file = LogFile(config.audit.file)
        log_file.open()
        log_file.close()
    if config.listen.admin and config.listen.admin not in before.has:
        rehearse(config.listen)


def serve(signals: Signals, config: Config, options: ServerOptions) -> int:
    """Serve Kong's plugin until SIGTERM; as ``serve.run``, but for the gateway.

    Raises:
        ConfigError: under Kong a credential of it would be in Kong's logs.
        StartError: the socket, the admin address or the audit log is not to be had.
    """
    fit_for_kong(config)
    raise_file_limit()
    if options.supervised and config.audit.file is None:
        raise serving.StartError(
            "audit.file: name a file, as Kong's end of standard output closes when Kong reloads "
            "or ends, and the server goes on"
        )
    ownership = Ownership(options.socket.absolute(), options.group)
    has = _audit_log(config), config.listen.admin
    life = _Life(ownership, options.supervised, has)
    with signals.stoppable():  # whoever sees the socket may ask for a stop
        _take(ownership, life, config, options)
        way = serving.Way(f"Kong's plugin on {ownership.path}", life.open, lambda: life.over)
        try:
            return serving.run(signals, config, way)
        finally:
            ownership.release()


def _take(ownership: Ownership, life: _Life, config: Config, options: ServerOptions) -> None:
    try:
        if options.supervised:
            _rehearse(config, holder(ownership.path))
        # First of all: from now on Kong's new connections wait for us, and the server
        # before, if there is one, gives way.
        ownership.take(HANDOVER if options.supervised else 0.0)
        life.tell()
    except AuditError as exc:
        raise serving.StartError(f"audit.file: {exc}") from exc
    except OSError as exc:  # ListenError is one
        raise serving.StartError(str(exc)) from exc
