"""A whole server: the engine, its doors and what listens to it.

An upstream's 401s are passed on to the keeper: few, however many come. The machine rotates at most
once in 30 seconds. This keeps a flood of 401s away from the keeper's lock, which guards everybody's leases.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from socket import socket
from types import MappingProxyType
from typing import Final

from vaultauthz.admin import Admin, see_that_it_fits
from vaultauthz.admin.overview import ServerFacts, Sources
from vaultauthz.admin.view import KeptView
from vaultauthz.certificates import in_use
from vaultauthz.config import ConfigError, load
from vaultauthz.config.values import Config
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.decision import Decision, Denied
from vaultauthz.core.events import Event
from vaultauthz.core.lease_row import LeaseRow, Refusals
from vaultauthz.core.redaction import where
from vaultauthz.core.request import Request
from vaultauthz.core.routing import StageUpstream
from vaultauthz.doors import Door
from vaultauthz.engine import Engine
from vaultauthz.leases.clock import boottime
from vaultauthz.leases.later import Later
from vaultauthz.observe.audit_log import AuditLog
from vaultauthz.observe.gauges import Gauges, Reloads
from vaultauthz.observe.metrics import Metrics
from vaultauthz.observe.outage import EventLog
from vaultauthz.server_tls import FollowedTls
from vaultauthz.takeover import Running, audit_of
from vaultauthz.terminal import EACH_TIME
from vaultauthz.version import __version__

log = logging.getLogger(__name__)

# Half of what Kubernetes' and systemd's users tend to give a process. What streams that do not
# end take too long is taken from the time to revoke, which is one call as a rule.
_WHOLE: Final = 5.0  # seconds
_FINISH_CHECKS: Final = 1.0  # for checks in flight
FINISH_REQUESTS: Final = 0.5  # … and for requests that just got their credential
_REVOKE: Final = 3.0
_REVOKE_AT_LEAST: Final = 1.0
_CLOSE: Final = 0.8  # the keeper's threads, the admin page, the audit log
_GAP: Final = 1.0  # seconds between two tellings of one credential
_MOST: Final = 1024  # credentials whose last telling is remembered

# Upstream, stage and credential_id; whether that is the credential in use.
Reject = Callable[[str, str, str], bool]


class Service:
    """A running server: the engine, and what listens.

    ``door`` makes the gateway's. ``read`` reads the configuration again, at a reload. ``before`` is the
    server that this one takes over from (``serve`` has how). ``given``: listening sockets of systemd's, by the
    key of ``listen``.
    """

    def __init__(
        self,
        config: Config,
        door: Callable[[Service], Door],
        read: Callable[[Path, Mapping[str, str]], Config] = load,
        before: Running | None = None,
        given: Mapping[str, socket] = MappingProxyType({}),
    ) -> None:
        self._read = read
        # Addresses that the server before gives to this one.
        self.replaces = frozenset((before.grpc, before.admin) if before else ())
        self.given = dict(given)
        self.receives: Callable[[], bool] = lambda: False  # lines of the server before
        self.succeeded = ""  # another server has taken over, and listens there
        self.metrics = Metrics(_known(config), __version__)
        shared = bool(before and before.audit and before.audit == audit_of(config))
        self.audit = AuditLog(config.audit, takes_over=shared)
        self._event_log = EventLog(boottime, _of_callers(config))
        self.engine = Engine(
            config,
            recorders=[self.audit.record_check],
            listeners=[
                self.metrics.record_event,
                self.audit.record_event,
                self._event_log.record_event,
            ],
            call_listeners=[self.metrics.record_call],
        )
        self._reloads = Reloads(time.time())
        self.facts = ServerFacts(__version__, began_at=self._reloads.at, read_at=self._reloads.at)
        self._start = self.engine.broker.start
        self._rejections = Rejections(self._rejected)
        self._refusals, self._refusing = Refusals(), threading.Lock()
        self.door = door(self)
        view = self._view = KeptView(
            self.engine.keeper,
            self.metrics.text,
            lambda: self.started,
            lambda: self.audit.working,
            self._besides,
            ask=self.engine.ask,
            shown=self._shown,
            in_use=self._certificates,
            sources=Sources(
                boottime,
                time.time,
                server=lambda: self.facts,
                pasts=self._event_log.shown,
                stages=self.engine.stages,
                gateways=lambda: self.door.connected,
            ),
        )
        self.metrics.watch(self._gauges())
        self.admin = Admin(config.listen, view) if config.listen.admin else None

    def _gauges(self) -> Gauges:
        return Gauges(
            rows=self._view.leases,
            known=lambda: _known(self.engine.config),
            ready=lambda: self.ready,
            reloads=self._reloads,
            audit_dropped=lambda: self.audit.dropped,
            audit_behind=lambda: self.audit.behind,
            audit_working=lambda: self.audit.working,
            certificates=self._certificates,
            admin_refused=lambda: self.admin.refused if self.admin else {},
            own_leases=self.engine.keeper.tallies,
            door=self.door.gauges,
        )

    @property
    def _tls(self) -> dict[str, FollowedTls]:
        """The files of certificates that are followed, by listener."""
        admin = self.admin.tls if self.admin else None
        return {**self.door.tls, **({"admin": admin} if admin else {})}

    def _certificates(self, rows: Iterable[LeaseRow]) -> list[EndingCertificate]:
        issued = ((r.stage, r.upstream, r.not_after) for r in rows)
        return in_use(self._tls, self.engine.client_certificates(), issued)

    def _besides(self) -> dict[str, str]:
        """What readiness tells besides.

        A certificate that has ended does not end it: Envoy would close the connections that
        are there and work, and could make no others.
        """
        ended = [f"{name}_tls" for name, tls in self._tls.items() if tls.ended]
        troubles = dict.fromkeys(ended, "the certificate has ended; new connections fail")
        return troubles | ({"stopping": "gateways are turned away"} if self.door.draining else {})

    @property
    def started(self) -> bool:
        """Whether gateways may ask: the engine has started, lines are written, no stop is near.

        The gateways' own health checks are told this: one upstream that has lost its credential must
        not turn the requests of all others away.
        """
        return self.engine.started and self.audit.working and not self.door.draining

    @property
    def ready(self) -> bool:
        """Whether it has started and each upstream that is not optional has its credential now."""
        return self._view.ready().ready

    def rows(self) -> list[LeaseRow]:
        """Every login and lease, as it is shown."""
        return self._view.leases()

    def announce(self, event: Event) -> None:
        """Have everybody hear of what a door has seen."""
        self.engine.keeper.announce(event)

    def rejected(self, upstream: str, stage: str, credential_id: str) -> bool:
        """A gateway tells of a 401; whether it was passed on, and concerns what is in use.

        However many come, and through whichever door: few are passed on.
        """
        return self._rejections.tell(upstream, stage, credential_id)

    def _rejected(self, upstream: str, stage: str, credential_id: str) -> bool:
        in_use = self.engine.answered_401(upstream, stage, credential_id)
        if in_use:
            self.metrics.count_rejection(stage, upstream)
        return in_use

    def tried(self, stage: str, upstream: str, credential_id: str, status: int) -> None:
        """A door tells what an upstream answered to a credential; ``status`` 0 for nothing."""
        if status == 401 or self._refusals:  # as a rule neither, and this is for each request
            with self._refusing:
                self._refusals.answered(stage, upstream, credential_id, status, time.monotonic())

    def _shown(self, rows: list[LeaseRow]) -> list[LeaseRow]:
        with self._refusing:
            return self._refusals.shown(rows, time.monotonic())

    def check(self, request: Request) -> Decision | Later[Decision]:
        """The engine's check, counted and timed."""
        began = time.perf_counter()
        decision = self._start(request)
        if isinstance(decision, Later):
            return decision.map(lambda late: self._counted(late, began))
        self.metrics.count(decision, time.perf_counter() - began)
        return decision

    def refused(self, request: Request, denied: Denied) -> None:
        """A door has denied a request by itself: unread, one too many, or after a fault of ours.

        It is counted and has its line, as far as the door could read it.
        """
        self.metrics.count(denied, 0.0)
        self.audit.record_refusal(request, denied)

    def _counted(self, decision: Decision, began: float) -> Decision:
        self.metrics.count(decision, time.perf_counter() - began)
        return decision

    def start(self) -> None:
        """Open the doors, then log in: a gateway that asks early is answered 503.

        Raises:
            ListenError: a door cannot be opened; then both are closed.
        """
        self.door.start()
        try:
            if self.admin:
                if given := self.given.get("admin"):
                    see_that_it_fits(given, self.engine.config.listen)
                self.admin.start(given)
        except BaseException:
            self.door.stop(0)
            raise
        self.engine.start()
        self.door.started()

    def reload(self, path: Path) -> None:
        """Read the configuration again; one that is not valid changes nothing."""
        try:
            config = self._read(path, os.environ)
        except ConfigError as exc:
            self._not_reloaded("; ".join(exc.problems))
            return
        except Exception as exc:  # noqa: BLE001
            # A bug of ours must not end the server, and with it every credential.
            self._not_reloaded(where(exc))
            return
        for warning in config.warnings:
            log.warning("%s", warning)
        self.metrics.configured(_known(config))  # first: what is new is heard of at once
        self._event_log.configured(_known(config), _of_callers(config))
        changes = self.engine.reload(config)
        self.door.reloaded()
        self._reloads.took(time.time())
        files = [outcome for tls in self._tls.values() if (outcome := tls.reread())]
        summary = ", ".join([*([str(changes)] if changes else []), *files])
        log.info("reloaded: %s", summary or "nothing has changed")
        self.facts.took(time.time(), summary or "nothing has changed", changes.at_restart)
        for name in changes.at_restart:
            log.warning("%s: the change of %s takes effect at a restart", path, name)

    def _not_reloaded(self, why: str) -> None:
        self._reloads.refuse()
        log.error("not reloaded, the configuration before stays: %s", why, extra=EACH_TIME)
        self.facts.refuse(time.time(), why)

    def drain(self, pause: Callable[[float, Callable[[], None]], None]) -> None:
        """Answer for ``listen.drain`` as before, while health checks turn gateways away.

        ``pause`` is ``Signals``': so many seconds, unless somebody is in a hurry, and what begins them.
        """
        seconds = self.engine.config.listen.drain
        if self.door.drains and seconds:
            log.info("draining for %g s: health checks turn gateways away", seconds)
            pause(seconds, self.door.drain)

    def stop(self) -> bool:
        """Refuse new checks, let what is in flight end, revoke; whether all was revoked.

        What gateways go on with by themselves is left to lapse with its login token.
        """
        ends = time.monotonic() + _WHOLE
        # Where another server has taken over, gateways have their credentials from that.
        leave = () if self.succeeded else self.door.in_use()
        self.door.stop(_FINISH_CHECKS)
        until = time.monotonic() + FINISH_REQUESTS
        self.door.finish(FINISH_REQUESTS)
        time.sleep(max(0.0, until - time.monotonic()))
        left = ends - time.monotonic() - _CLOSE
        revoked = self.engine.close(min(_REVOKE, max(_REVOKE_AT_LEAST, left)), leave)
        if self.admin:
            self.admin.stop()
        self.audit.close(timeout=max(_CLOSE / 2, ends - time.monotonic()))
        self.door.recorded()
        return revoked


def _known(config: Config) -> list[StageUpstream]:
    return [(stage, u.name) for u in config.upstreams.values() for stage in u.stages]


def _of_callers(config: Config) -> list[StageUpstream]:
    """Where callers, or requests, have leases of their own."""
    own = [u for u in config.upstreams.values() if u.per != "instance"]
    return [(stage, u.name) for u in own for stage in u.stages]


class Rejections:
    """Passes on to ``reject``; safe for threads. ``clock`` is in seconds and never goes back."""

    def __init__(self, reject: Reject, clock: Callable[[], float] = time.monotonic) -> None:
        self._reject = reject
        self._clock = clock
        self._lock = threading.Lock()
        self._passed_on: dict[tuple[str, str, str], float] = {}

    def tell(self, upstream: str, stage: str, credential_id: str) -> bool:
        """Pass a 401 on, unless that was just done; whether it was, and concerned what is in use."""
        key, now = (upstream, stage, credential_id), self._clock()
        with self._lock:
            if now - self._passed_on.get(key, -_GAP) < _GAP:
                return False
            self._passed_on.pop(key, None)
            if len(self._passed_on) >= _MOST:
                if now - next(iter(self._passed_on.values())) < _GAP:
                    return False  # so many in a second: nobody's upstreams are like that
                del self._passed_on[next(iter(self._passed_on))]
            self._passed_on[key] = now
        return self._reject(upstream, stage, credential_id)
