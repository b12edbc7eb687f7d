"""A whole server: the engine, its doors and what listens to it."""

from __future__ import annotations

import logging
import os
import time
from math import inf
from pathlib import Path
from typing import Final

from vaultauthz.admin import Admin
from vaultauthz.config import ConfigError, load
from vaultauthz.config.values import Config
from vaultauthz.core.decision import Decision
from vaultauthz.core.request import Request
from vaultauthz.core.trace import where
from vaultauthz.engine import Engine
from vaultauthz.envoy.server import Server
from vaultauthz.leases.rows import WITHOUT, Row
from vaultauthz.leases.later import Later
from vaultauthz.observe.audit import AuditLog
from vaultauthz.observe.metrics import Gauges, Metrics
from vaultauthz.version import __version__
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
        self.metrics = Metrics(_known(config), __version__)
        self.audit = AuditLog(config.audit)
        self.engine = Engine(
            config,
            recorders=[self.audit.record_check],
            listeners=[self.metrics.record_event, self.audit.record_event],
        )
        self.metrics.watch(self._gauges())
        self.server = Server(
            config.listen,
            self.check,
            lambda: self.engine.ready,
            deadlines=any(upstream.per != "instance" for upstream in config.upstreams.values()),
        )
        view = View(self.engine, self.metrics)
        self.admin = Admin(config.listen, view) if config.listen.admin else None

    def _gauges(self) -> Gauges:
        rows = self.engine.keeper.rows
        return Gauges(
            leases=lambda: [
                (r.stage, r.upstream, _left(r)) for r in rows() if r.upstream and r.shared
            ],
            logins=lambda: [(r.stage, _left(r)) for r in rows() if not r.upstream],
            ready=lambda: self.engine.ready,
            audit_dropped=lambda: self.audit.dropped,
        )

    def check(self, request: Request) -> Decision | Later[Decision]:
        """The engine's check, counted and timed."""
        began = time.perf_counter()
        decision = self.engine.start_check(request)
        if isinstance(decision, Later):
            return decision.map(lambda late: self._counted(late, began))
        return self._counted(decision, began)

    def _counted(self, decision: Decision, began: float) -> Decision:
        self.metrics.count(decision, time.perf_counter() - began)
        return decision

    def start(self) -> None:
        """Open the doors, then log in: a gateway that asks early is answered 503.

        Raises:
            ListenError, AdminError: a door cannot be opened; then both are closed.
        """
        self.server.start()
        try:
            if self.admin:
                self.admin.start()
        except BaseException:
            self.server.stop(0)
            raise
        self.engine.start()

    def reload(self, path: Path) -> None:
        """Read the configuration again; one that is not valid changes nothing."""
        try:
            config = load(path, os.environ)
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
        log.info("reloaded: %s", changes or "nothing has changed")
        for name in changes.at_restart:
            log.warning("%s: the change of %s takes effect at a restart", path, name)

    def stop(self) -> bool:
        """Refuse new checks, let what is in flight end, revoke; whether all was revoked."""
        self.server.stop(_FINISH_CHECKS)
        time.sleep(_FINISH_REQUESTS)
        revoked = self.engine.close(_REVOKE)
        if self.admin:
            self.admin.stop()
        self.audit.close(timeout=1.0)
        return revoked


def _known(config: Config) -> list[tuple[str, str]]:
    return [(stage, u.name) for u in config.upstreams.values() for stage in u.stages]


def _left(row: Row) -> float:
    if row.state in WITHOUT:
        return 0.0
    return inf if row.seconds_left is None else max(0.0, row.seconds_left)
