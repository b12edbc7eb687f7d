"""``vaultauthz serve``: the engine and its doors, from start to SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import threading
import time
from collections.abc import Iterator
from math import inf
from typing import Final

from vaultauthz import __version__
from vaultauthz.admin import Admin
from vaultauthz.config.values import Config
from vaultauthz.core.decision import Decision
from vaultauthz.core.request import Request
from vaultauthz.engine import Engine
from vaultauthz.envoy.server import Server
from vaultauthz.leases.keeper import WITHOUT, Row
from vaultauthz.observe.audit import AuditLog
from vaultauthz.observe.metrics import Gauges, Metrics
from vaultauthz.view import View

log = logging.getLogger(__name__)

# The whole stop stays within five seconds, which is half of what Kubernetes' and
# systemd's users tend to give a process.
_FINISH_CHECKS: Final = 1.0  # seconds for checks in flight
_FINISH_REQUESTS: Final = 0.5  # … and for requests that just got their credential
_REVOKE: Final = 3.0


class Service:
    """A running server; the engine and what listens for its gateways."""

    def __init__(self, config: Config) -> None:
        known = [(stage, u.name) for u in config.upstreams.values() for stage in u.stages]
        self.metrics = Metrics(known, __version__)
        self.audit = AuditLog(config.audit)
        self.engine = Engine(
            config,
            recorders=[self.audit.record_check],
            listeners=[self.metrics.record_event, self.audit.record_event],
        )
        self.metrics.watch(self._gauges())
        self.server = Server(config.listen, self.check, lambda: self.engine.ready)
        view = View(self.engine, self.metrics)
        self.admin = Admin(config.listen, view) if config.listen.admin else None

    def _gauges(self) -> Gauges:
        rows = self.engine.keeper.rows
        return Gauges(
            leases=lambda: [(r.stage, r.upstream, _left(r)) for r in rows() if r.upstream],
            logins=lambda: [(r.stage, _left(r)) for r in rows() if not r.upstream],
            ready=lambda: self.engine.ready,
            audit_dropped=lambda: self.audit.dropped,
        )

    def check(self, request: Request) -> Decision:
        """The engine's check, counted and timed."""
        began = time.perf_counter()
        decision = self.engine.check(request)
        self.metrics.count(decision, time.perf_counter() - began)
        return decision

    def start(self) -> None:
        """Open the doors, then log in: a gateway that asks early is answered 503."""
        self.server.start()
        if self.admin:
            self.admin.start()
        self.engine.start()

    def stop(self) -> bool:
        """Refuse new checks, let what is in flight end, revoke; whether all was revoked."""
        self.server.stop(_FINISH_CHECKS)
        time.sleep(_FINISH_REQUESTS)
        revoked = self.engine.close(_REVOKE)
        if self.admin:
            self.admin.stop()
        self.audit.close(timeout=1.0)
        return revoked


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. The exit status: 0, or 1 when a lease was left."""
    # A core file would hold every credential in clear.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with _asked_to_stop() as stop:
        service = Service(config)
        try:
            service.start()
            log.info("serving Envoy's checks on %s", config.listen.grpc)
            _wait(service, stop)
        finally:
            log.info("stopping: no new checks, then everything leased is revoked")
            revoked = service.stop()
    if revoked:
        log.info("stopped; everything leased is revoked")
        return 0
    log.error("stopped, but not everything could be revoked in time; it ends with its token")
    return 1


def _left(row: Row) -> float:
    if row.state in WITHOUT:
        return 0.0
    return inf if row.seconds_left is None else max(0.0, row.seconds_left)


def _wait(service: Service, stop: threading.Event) -> None:
    was_ready = False
    while not stop.wait(0.2):
        if service.engine.ready and not was_ready:
            was_ready = True
            log.info("ready: every upstream has its credential")


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = threading.Event()
    before = {}

    def ask(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, ask)
    before[signal.SIGHUP] = signal.signal(
        signal.SIGHUP, lambda *_: log.warning("SIGHUP: reloading is not supported; restart instead")
    )
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
