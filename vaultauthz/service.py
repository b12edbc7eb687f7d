"""A whole server: the engine, its doors and what listens to it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Final, Protocol

from vaultauthz.admin import Admin
from vaultauthz.config import ConfigError, load
from vaultauthz.config.values import Config
from vaultauthz.core.decision import Decision
from vaultauthz.core.events import CLIENT_REFUSED, Event
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.core.request import Request
from vaultauthz.core.trace import where
from vaultauthz.engine import Engine
from vaultauthz.envoy.access_logs import stream as access_stream
from vaultauthz.envoy.access_logs.follower import Follower
from vaultauthz.envoy.access_logs.history import CredentialHistory
from vaultauthz.envoy.access_logs.stream import AccessLogService
from vaultauthz.envoy.access_logs.unchecked import Listeners
from vaultauthz.envoy.rpc import collected
from vaultauthz.envoy.sds.discovery import Discovery
from vaultauthz.envoy.server import Server
from vaultauthz.leases.clock import boottime
from vaultauthz.leases.later import Later
from vaultauthz.leases.rows import WITHOUT
from vaultauthz.observe.audit import AuditLog
from vaultauthz.observe.metrics import Gauges, Metrics, Shown
from vaultauthz.server_tls import FollowedTls
from vaultauthz.version import __version__
from vaultauthz.view import View

log = logging.getLogger(__name__)

# Half of what Kubernetes' and systemd's users tend to give a process. What streams that do not
# end take too long is taken from the time to revoke, which is one call as a rule.
_WHOLE: Final = 5.0  # seconds
_FINISH_CHECKS: Final = 1.0  # for checks in flight
_FINISH_REQUESTS: Final = 0.5  # … and for requests that just got their credential
_REVOKE: Final = 3.0
_REVOKE_AT_LEAST: Final = 1.0
_CLOSE: Final = 0.8  # the keeper's threads, the admin page, the audit log


class Door(Protocol):
    """Where a gateway asks; it answers with what ``Service.check`` decides."""

    @property
    def open_streams(self) -> int:
        """How many streams are open; 0 where there are none."""

    @property
    def refused_streams(self) -> int:
        """How many were one too many, since the start."""

    @property
    def unread(self) -> Mapping[str, int]:
        """How many checks' messages were not read, by reason, since the start."""

    def start(self) -> None:
        """Open it; raises OSError when it cannot be opened."""

    def stop(self, grace: float) -> None:
        """Take no new checks, finish those in flight within ``grace`` seconds, close."""


class Service:
    """A running server; the engine and what listens for its gateways.

    ``door`` makes the gateway's; Envoy's where none is given. ``read`` reads the configuration
    again, at a reload.
    """

    def __init__(
        self,
        config: Config,
        door: Callable[[Service], Door] | None = None,
        read: Callable[[Path, Mapping[str, str]], Config] = load,
    ) -> None:
        self._read = read
        self.metrics = Metrics(_known(config), __version__)
        self.audit = AuditLog(config.audit)
        history = CredentialHistory()
        self.engine = Engine(
            config,
            recorders=[self.audit.record_check],
            listeners=[self.metrics.record_event, self.audit.record_event, history.record_event],
        )
        self.at_restart: tuple[str, ...] = ()  # sections of the file that wait for a restart
        self._start = self.engine.broker.start
        listeners = self._listeners()
        path = config.audit.access_log if door is None else None
        self.access_logs = AccessLogService(history, listeners, only_401s=path is not None)
        self.follower: Follower | None = None
        if path:
            requests = self.access_logs.requests.recorded_by(self.audit.queue_access)
            self.follower = Follower(path, requests, self.audit, listeners.ignored)
        self.sds = Discovery(self.engine, boottime, self.engine.keeper.announce)
        self.engine.keeper.watch(self.sds.changed)
        self._envoy: Server | None = None
        self.server: Door
        if door is None:
            self.server = self._envoy = self._envoys(config)
        else:
            self.server = door(self)
        self.metrics.watch(self._gauges())
        view = View(
            self.engine,
            self.metrics,
            lambda: self.audit.working,
            lambda: self._draining,
            self._besides,
        )
        self.admin = Admin(config.listen, view) if config.listen.admin else None

    def _envoys(self, config: Config) -> Server:
        return Server(
            config.listen,
            self.check,
            lambda: self.ready,
            deadlines=any(upstream.per != "instance" for upstream in config.upstreams.values()),
            streams=self.sds.streams | {access_stream.METHOD: collected(self.access_logs.stream)},
            client_refused=self._client_refused,
        )

    def _client_refused(self, names: str, reason: str) -> None:
        self.engine.keeper.announce(Event(CLIENT_REFUSED, "", caller=names, reason=reason))

    def _gauges(self) -> Gauges:
        rows = self.engine.keeper.rows
        return Gauges(
            leases=lambda: [
                (r.stage, r.upstream, _left(r)) for r in rows() if r.upstream and r.shared
            ],
            logins=lambda: [(r.stage, _left(r)) for r in rows() if not r.upstream],
            ready=lambda: self.ready,
            audit_dropped=lambda: self.audit.dropped,
            audit_behind=lambda: self.audit.behind,
            audit_working=lambda: self.audit.working,
            streams=lambda: self.server.open_streams,
            streams_refused=lambda: self.server.refused_streams,
            access_log_behind=lambda: self.follower.behind if self.follower else 0,
            checks_unread=lambda: self.server.unread,
            clients_refused=lambda: self._envoy.clients_refused if self._envoy else {},
            certificates=self._certificates,
            own_leases=self.engine.keeper.tallies,
        )

    @property
    def _tls(self) -> dict[str, FollowedTls]:
        """The files of certificates that are followed, by listener."""
        found = {
            "grpc": self._envoy.tls if self._envoy else None,
            "admin": self.admin.tls if self.admin else None,
        }
        return {name: tls for name, tls in found.items() if tls}

    def _certificates(self) -> list[Shown]:
        return [
            Shown(name, tls.seconds_left, not tls.trouble, tls.taken, tls.refused)
            for name, tls in self._tls.items()
        ]

    @property
    def _draining(self) -> bool:
        return self._envoy is not None and self._envoy.draining

    def _besides(self) -> dict[str, str]:
        """What readiness tells besides.

        A certificate that has ended does not end it: Envoy would close the connections that
        are there and work, and could make no others.
        """
        ended = [f"{name}_tls" for name, tls in self._tls.items() if tls.ended]
        told = dict.fromkeys(ended, "the certificate has ended; new connections fail")
        return told | ({"stopping": "gateways are turned away"} if self._draining else {})

    def _listeners(self) -> Listeners:
        return Listeners(
            record=self.audit.record_access,
            answered=self.metrics.count_answer,
            rejected=self.rejected,
            ignored=self.metrics.count_ignored,
            known=self.engine.knows,
        )

    @property
    def ready(self) -> bool:
        """Whether checks are answered: the engine is ready, and their lines are written."""
        return self.engine.ready and self.audit.working and not self._draining

    def rejected(self, upstream: str, stage: str, credential_id: str) -> bool:
        """A gateway tells of a 401; whether it concerns what is in use."""
        in_use = self.engine.answered_401(upstream, stage, credential_id)
        if in_use:
            self.metrics.count_rejection(stage, upstream)
        return in_use

    def check(self, request: Request) -> Decision | Later[Decision]:
        """The engine's check, counted and timed."""
        began = time.perf_counter()
        decision = self._start(request)
        if isinstance(decision, Later):
            return decision.map(lambda late: self._counted(late, began))
        self.metrics.count(decision, time.perf_counter() - began)
        return decision

    def _counted(self, decision: Decision, began: float) -> Decision:
        self.metrics.count(decision, time.perf_counter() - began)
        return decision

    def start(self) -> None:
        """Open the doors, then log in: a gateway that asks early is answered 503.

        Raises:
            ListenError: a door cannot be opened; then both are closed.
        """
        self.server.start()
        try:
            if self.admin:
                self.admin.start()
        except BaseException:
            self.server.stop(0)
            raise
        self.engine.start()
        if self.follower:
            self.follower.start()

    def reload(self, path: Path) -> None:
        """Read the configuration again; one that is not valid changes nothing."""
        try:
            config = self._read(path, os.environ)
        except ConfigError as exc:
            log.error("not reloaded, the configuration before stays:\n%s", exc)  # noqa: TRY400
            return
        except Exception as exc:  # noqa: BLE001
            # A bug of ours must not end the server, and with it every credential.
            log.error("not reloaded, the configuration before stays: %s", where(exc))  # noqa: TRY400
            return
        for warning in config.warnings:
            log.warning("%s", warning)
        self.metrics.configured(_known(config))  # first: what is new is heard of at once
        changes = self.engine.reload(config)
        self.sds.reloaded()
        self.at_restart = changes.at_restart
        files = [told for tls in self._tls.values() if (told := tls.reread())]
        told = ", ".join([*([str(changes)] if changes else []), *files])
        log.info("reloaded: %s", told or "nothing has changed")
        for name in changes.at_restart:
            log.warning("%s: the change of %s takes effect at a restart", path, name)

    def drain(self, pause: Callable[[float, Callable[[], None]], None]) -> None:
        """Answer for ``listen.drain`` as before, while health checks turn gateways away.

        ``pause`` is ``Wanted``'s: so many seconds, unless somebody is in a hurry, and what begins them.
        """
        seconds = self.engine.config.listen.drain
        if self._envoy and seconds:
            log.info("draining for %g s: health checks turn gateways away", seconds)
            pause(seconds, self._envoy.drain)

    def stop(self) -> bool:
        """Refuse new checks, let what is in flight end, revoke; whether all was revoked.

        What Envoys go on with by themselves is left to lapse with its login token.
        """
        ends = time.monotonic() + _WHOLE
        leave = self.sds.in_use()
        self.server.stop(_FINISH_CHECKS)
        until = time.monotonic() + _FINISH_REQUESTS
        if self.follower:
            self.follower.stop(_FINISH_REQUESTS)
        time.sleep(max(0.0, until - time.monotonic()))
        left = ends - time.monotonic() - _CLOSE
        revoked = self.engine.close(min(_REVOKE, max(_REVOKE_AT_LEAST, left)), leave)
        if self.admin:
            self.admin.stop()
        self.audit.close(timeout=max(_CLOSE / 2, ends - time.monotonic()))
        if self.follower:
            self.follower.keep()
        return revoked


def _known(config: Config) -> list[tuple[str, str]]:
    return [(stage, u.name) for u in config.upstreams.values() for stage in u.stages]


def _left(row: LeaseRow) -> float:
    if row.state in WITHOUT:
        return 0.0
    return inf if row.seconds_left is None else max(0.0, row.seconds_left)
