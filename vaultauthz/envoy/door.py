"""Envoy's way into a server: checks, SDS and access logs on one address, and the file it may log to."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from vaultauthz import serve as serving
from vaultauthz.admin.overview import ConnectedGateway
from vaultauthz.config.values import Config
from vaultauthz.core.events import CLIENT_REFUSED, Event
from vaultauthz.core.routing import StageUpstream
from vaultauthz.doors import Door
from vaultauthz.envoy.access_logs import stream as access_stream
from vaultauthz.envoy.access_logs.follower import Follower
from vaultauthz.envoy.access_logs.history import CredentialHistory
from vaultauthz.envoy.access_logs.stream import AccessLogService
from vaultauthz.envoy.access_logs.unchecked import Listeners
from vaultauthz.envoy.rpc import collected
from vaultauthz.envoy.sds.discovery import Discovery
from vaultauthz.envoy.server import GrpcServer
from vaultauthz.leases.clock import boottime
from vaultauthz.observe.gauges import DoorGauges
from vaultauthz.server_tls import FollowedTls
from vaultauthz.service import Service
from vaultauthz.systemd import passed
from vaultauthz.watching import Signals

log = logging.getLogger(__name__)


class EnvoyDoor(Door):
    """``listen.grpc`` and ``audit.access_log`` of the configuration that the server starts with."""

    drains = True

    def __init__(self, service: Service) -> None:
        self._service = service
        engine, config = service.engine, service.engine.config
        history = CredentialHistory()
        engine.listen(history.record_event)
        listeners = _listeners(service)
        path = config.audit.access_log
        access_logs = AccessLogService(history, listeners, only_401s=path is not None)
        self._access_logs = access_logs
        self._follower: Follower | None = None
        self._following: Callable[[], Follower] | None = None
        if path:
            requests = access_logs.requests.recorded_by(service.audit.queue_access)
            self._following = partial(Follower, path, requests, service.audit, listeners.ignored)
            self._follower = self._following()
        self._sds = Discovery(engine, boottime, service.announce)
        engine.keeper.watch(self._sds.changed)
        self._server = GrpcServer(
            config.listen,
            service.check,
            lambda: service.started,
            refused=service.refused,
            deadlines=any(upstream.per != "instance" for upstream in config.upstreams.values()),
            streams=self._sds.streams | {access_stream.METHOD: collected(access_logs.stream)},
            client_refused=self._client_refused,
            takes_over=config.listen.grpc in service.replaces,
            given=service.given.get("grpc"),
        )

    def _client_refused(self, names: str, reason: str) -> None:
        self._service.announce(Event(CLIENT_REFUSED, "", caller=names, reason=reason))

    def prepare(self) -> None:
        """See ``Door``."""
        self._server.prepare()

    def start(self) -> None:
        """See ``Door``."""
        self._server.start()

    def started(self) -> None:
        """Follow Envoy's file: a server that does not start has no audit log for its lines."""
        if self._follower:
            self._follower.start()

    def reloaded(self) -> None:
        """Have the connected Envoys told what is another for them."""
        self._sds.reloaded()

    def let_go(self, seconds: float) -> None:
        """Read the rest of Envoy's file, which the next one follows."""
        self._server.let_go()
        if self._follower:
            self._follower.stop(seconds)

    def take_back(self) -> None:
        """Go on in Envoy's file."""
        self._server.take_back()
        if self._following and self._follower and self._follower.stopped:
            self._follower = self._following()
            self._follower.start()

    def leave(self, seconds: float, over: Callable[[], bool]) -> None:
        """See ``Door``."""
        self._follower = None
        self._server.leave(seconds, over)

    def drain(self) -> None:
        """Say NOT_SERVING to health checks."""
        self._server.drain()

    def in_use(self) -> Collection[StageUpstream]:
        """What Envoys have got by SDS."""
        return self._sds.in_use()

    def stop(self, grace: float) -> None:
        """See ``Door``."""
        self._server.stop(grace)

    def finish(self, seconds: float) -> None:
        """Read the rest of Envoy's file."""
        if self._follower:
            self._follower.stop(seconds)

    def recorded(self) -> None:
        """Keep how far the file was read, now that its lines are in the audit log."""
        if self._follower:
            self._follower.keep()

    @property
    def draining(self) -> bool:
        """See ``Door``."""
        return self._server.draining

    @property
    def tls(self) -> Mapping[str, FollowedTls]:
        """Of ``listen.grpc_tls``."""
        return {"grpc": self._server.tls} if self._server.tls else {}

    def _connections(self) -> dict[str, int]:
        count = self._server.connections
        return {} if count is None else {"envoy": count}

    @property
    def connected(self) -> Sequence[ConnectedGateway]:
        """The connections, and the Envoys with a stream: in a check none says who it is."""
        count = self._server.connections
        every = [ConnectedGateway("Envoy", "connections to listen.grpc", count)] if count else []
        return [*every, *self._sds.connected, *self._access_logs.connected]

    @property
    def gauges(self) -> DoorGauges:
        """See ``Door``."""
        return DoorGauges(
            connections=self._connections,
            streams=lambda: self._server.open_streams,
            streams_refused=lambda: self._server.refused_streams,
            access_log_behind=lambda: self._follower.behind if self._follower else 0,
            checks_unread=lambda: self._server.unread,
            clients_refused=lambda: self._server.clients_refused,
        )


def _listeners(service: Service) -> Listeners:
    return Listeners(
        record=service.audit.record_access,
        answered=service.metrics.count_answer,
        rejected=service.rejected,
        ignored=service.metrics.count_ignored,
        known=service.engine.knows,
        tried=service.tried,
    )


def serve(
    signals: Signals, config: Config, again: Sequence[str] = (), before: Path | None = None
) -> int:
    """Serve Envoy until SIGTERM; see ``serve.run`` and ``serve.Way``."""
    given = passed(os.environ)
    for name in given.keys() - {"grpc", "admin"}:
        log.warning(
            "systemd has opened a socket named %r: FileDescriptorName= is grpc or admin", name
        )
    opened = partial(Service, door=EnvoyDoor, given=given)
    succeeding = partial(Service, door=EnvoyDoor)
    description = f"Envoy's checks on {config.listen.grpc}"
    way = serving.Way(description, opened, succeeding=succeeding, again=again)
    return serving.run(signals, config, way, before)
