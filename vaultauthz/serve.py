"""A server's life, from its start, or from another server's place, to SIGTERM, or to the next one's."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Final, Protocol

from vaultauthz.config.values import Config
from vaultauthz.core.pace import Pace
from vaultauthz.desk import OPEN, ServiceDesk
from vaultauthz.observe.sink import AuditError
from vaultauthz.service import Service
from vaultauthz.systemd import Notifier, for_another
from vaultauthz.takeover import (
    AGAIN,
    Incumbent,
    Running,
    Successor,
    TakeOverError,
    audit_of,
    place_of,
)
from vaultauthz.terminal import EACH_TIME
from vaultauthz.watching import Signals

log = logging.getLogger(__name__)

_LOOK: Final = 0.2  # seconds between looks at signals and at the file
# For one that takes over to be as ready as the one that serves.
_READY: Final = 60.0
_LEAVE: Final = 75.0  # for gateways to turn to the next one: over TLS they need a minute
_LEAVE_AT_LEAST: Final = 5.0  # … also after SIGTERM: in plaintext they need less than one
_MOVED: Final = 30.0  # … and to be told where that is, when it listens elsewhere
_SERVING: Final = "serving; not every upstream has its credential yet"


class StartError(Exception):
    """It cannot serve; the message says which key of the configuration is at fault, and why."""


class Succeeding(Protocol):
    """Makes a server that takes over from ``before``."""

    def __call__(self, config: Config, *, before: Running) -> Service: ...


@dataclass(frozen=True, slots=True)
class Way:
    """How a gateway is served; ``description`` is what the log says of it.

    When ``over`` says so it ends as on SIGTERM. Without ``succeeding`` no server takes over from another;
    ``again`` is the command that starts one to take over from this one.
    """

    description: str
    opened: Callable[[Config], Service]
    over: Callable[[], bool] = lambda: False
    succeeding: Succeeding | None = None
    again: Sequence[str] = ()


def run(signals: Signals, config: Config, way: Way, before: Path | None = None) -> int:
    """Serve ``config`` until SIGTERM or SIGINT; the exit status, 1 when a lease was left.

    ``signals``, made before it was read, says when to read it again. ``before`` is the place where the server
    is asked that this one takes over from, if there is one; it ends once this one serves.

    Raises:
        StartError: an address or the audit log is not to be had, or not to be taken over.
    """
    # A core file would hold every credential in clear.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    systemd = Notifier.of(os.environ)
    with signals.stoppable():
        found = _met(before, systemd) if before else None
        service = _taken_over(way, config, found, signals) if found else _started(way, config)
        service.facts.config_file = signals.path
        log.info("serving %s", way.description)
        systemd.ready(_SERVING, main=found is not None)
        incumbent = _incumbent(service, config) if way.succeeding else None
        following = Following(way.again if incumbent else (), place_of(config.listen), systemd)
        try:
            _serve(service, signals, way.over, systemd, following)
            if incumbent:
                incumbent.settle()
                incumbent.stop()
            if service.succeeded:
                _leave(service, signals)
            else:
                systemd.stopping("gateways are turned away, then everything leased is revoked")
                service.drain(signals.pause)
        finally:
            if incumbent:
                incumbent.stop()
            log.info("stopping: no new checks, then everything leased is revoked")
            revoked = service.stop()
    if revoked:
        left = ", but for what Envoys go on with" if service.engine.keeper.left else ""
        log.info("stopped; everything leased is revoked%s", left)
        return 0
    log.error("stopped, but not everything could be revoked in time; it ends with its token")
    return 1


def _started(way: Way, config: Config) -> Service:
    try:
        service = way.opened(config)
        service.start()
    except AuditError as exc:
        raise StartError(f"audit.file: {exc}") from exc
    except OSError as exc:
        raise StartError(str(exc)) from exc
    return service


def _serve(
    service: Service,
    signals: Signals,
    over: Callable[[], bool],
    systemd: Notifier,
    following: Following,
) -> None:
    started = was_gone = False
    while not signals.stop and not over() and not service.succeeded:
        systemd.alive()
        wanted = signals.reload(_LOOK) and not signals.stop
        if signals.gone != was_gone:
            was_gone = signals.gone
            _tell_of_file(signals.path, gone=was_gone)
        if wanted:
            systemd.reloading()
            service.reload(signals.path)
            systemd.ready("serving" if started else _SERVING)
            following.reloaded(service.facts.at_restart)
        if signals.next:
            signals.next = False
            following.start("SIGUSR2")
        following.look()
        if service.engine.started and not started:
            started = True
            systemd.status("serving")
            log.info("ready: every upstream has its credential")


def _tell_of_file(path: Path, *, gone: bool) -> None:
    if gone:
        log.warning(
            "%s is gone; the configuration that was read from it stays, but no restart would find it",
            path,
            extra=EACH_TIME,
        )
    else:
        log.info("%s is there again", path)


# --- giving way to the next one ----------------------------------------------


class Following:
    """Starts the next server by ``command``, to take over from this one at ``place``."""

    def __init__(self, command: Sequence[str], place: Path | None, systemd: Notifier) -> None:
        self._command = command
        self._place = place
        self._followed = bool(systemd)  # who looks after this process follows it to the next one
        self._process: subprocess.Popen[bytes] | None = None

    def reloaded(self, at_restart: Collection[str]) -> None:
        """What has changed that only a start takes over is taken over by another process."""
        if at_restart and self._followed and self._command:
            self.start(f"the change of {' and '.join(at_restart)}")

    def start(self, why: str) -> None:
        """Start it, unless that cannot go well."""
        if self._process is not None:
            return
        if not self._command:
            log.error("%s: no other server can take over from this one", why)
        elif os.getpid() == 1:
            log.error(
                "%s: this is a container's first process, and ends with it: restart that", why
            )
        else:
            log.info("%s: another server is started, to take over from this one", why)
            command = [*self._command, "--take-over", "--take-over-at", str(self._place)]
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                command, env=for_another(os.environ), start_new_session=True
            )

    def look(self) -> None:
        """Tell of one that has ended."""
        if self._process is not None and (status := self._process.poll()) is not None:
            self._process = None
            log.error("the other server has not taken over: it ended with status %d", status)


def _incumbent(service: Service, config: Config) -> Incumbent | None:
    place = place_of(config.listen)
    if place is None:
        return None
    incumbent = Incumbent(place, ServiceDesk(service))
    try:
        incumbent.start()
    except OSError as exc:
        log.warning("%s: %s; no other server can take over from this one", place, exc)
        return None
    return incumbent


def _leave(service: Service, signals: Signals) -> None:
    """Send gateways to the next server, and wait until what they were given is used, or for SIGTERM."""
    if service.admin:
        service.admin.leave()
    if service.succeeded != service.engine.config.listen.grpc:
        log.info(
            "the next one listens elsewhere, at %s: gateways may go there for %g s",
            service.succeeded,
            _MOVED,
        )
        _wait(signals, _MOVED)
    log.info("another server has taken over: gateways are sent there")
    least = time.monotonic() + _LEAVE_AT_LEAST
    service.door.leave(_LEAVE, lambda: signals.stop and time.monotonic() >= least)
    _wait(signals, Pace().drain)
    while service.receives() and not signals.stop:  # the one before that, whose lines we pass on
        signals.reload(_LOOK)


def _wait(signals: Signals, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not signals.stop and time.monotonic() < until:
        signals.reload(_LOOK)


# --- taking over from the one before -----------------------------------------


def meeting_place(config: Config) -> Path:
    """Where a server with this configuration is asked. Raises StartError: there is none."""
    place = place_of(config.listen)
    if place is None:
        raise StartError(
            "--take-over: servers meet at a unix socket, and neither listen.admin nor listen.grpc is "
            "one; set listen.admin: unix:///run/vaultauthz/admin.sock"
        )
    return place


def _met(place: Path, systemd: Notifier) -> Successor | None:
    try:
        before = Successor.meet(place)
    except TakeOverError as exc:
        raise StartError(f"--take-over: {exc}") from exc
    if before is None:
        log.info("--take-over: no server serves yet; this is an ordinary start")
    elif before.running.followed and not systemd:
        before.close()
        raise StartError(
            f"--take-over: process {before.running.pid} is a service of systemd's, which would start another once it "
            f"ends; have it do this itself: systemctl kill -s USR2 --kill-whom=main UNIT"
        )
    return before


def _taken_over(way: Way, config: Config, before: Successor, signals: Signals) -> Service:
    if way.succeeding is None:
        raise StartError("--take-over: this gateway's servers have another way")
    pid = before.running.pid
    log.info("--take-over: from process %d, once this one is as ready", pid)
    try:
        service = way.succeeding(config, before=before.running)
    except (AuditError, OSError) as exc:
        before.close()
        key = "audit.file: " if isinstance(exc, AuditError) else ""
        raise StartError(f"{key}{exc}; process {pid} goes on") from exc
    try:
        _get_ready(service, before, signals)
        _take_place(service, before)
    except (AuditError, OSError, TakeOverError) as exc:
        _give_back(service, before)
        raise StartError(f"--take-over: {exc}; process {pid} goes on") from exc
    before.go(config.listen.grpc)
    if service.admin and not service.given:
        service.admin.adopt()
    service.door.started()
    receiving = Thread(target=_receive, args=(service, before), name="take-over", daemon=True)
    receiving.start()
    service.receives = receiving.is_alive
    return service


def _get_ready(service: Service, before: Successor, signals: Signals) -> None:
    service.engine.start()
    service.door.prepare()

    def lacking() -> Collection[str]:
        return before.running.lacks(service.rows(), started=service.engine.started)

    await_ready(before, lacking, lambda: signals.stop, _READY)


def await_ready(
    before: Successor,
    lacking: Callable[[], Collection[str]],
    over: Callable[[], bool],
    seconds: float,
) -> None:
    """Wait until nothing is lacking that the server before has, or that one has ended.

    Raises:
        TakeOverError: not in so many seconds, or ``over`` says that it is not to go on.
    """
    until = time.monotonic() + seconds
    while missing := lacking():
        if over():
            raise TakeOverError("it was told to end before it was ready")
        if before.lost:
            log.warning("--take-over: process %d has ended meanwhile", before.running.pid)
            return
        if time.monotonic() >= until:
            shown = ", ".join(list(missing)[:5])
            raise TakeOverError(f"after {seconds:g} s this one still lacks {shown}")
        time.sleep(AGAIN)


def _take_place(service: Service, before: Successor) -> None:
    listeners = before.place()
    if service.audit.held:
        service.audit.open(OPEN)
    service.door.start()
    if service.admin:
        same = service.engine.config.listen.admin == before.running.admin
        listener = listeners.pop() if same and listeners else None
        service.admin.start(listener)
        if listener and before.running.given:
            service.given["admin"] = listener
    for listener in listeners:  # of an address that this one has not
        listener.close()


def _give_back(service: Service, before: Successor) -> None:
    """End, and have what was written down of ourselves in the log of the one that goes on."""
    service.door.stop(0)
    if service.admin:
        service.admin.leave()
    shared = before.running.audit == audit_of(service.engine.config)
    try:
        if before.running.audit and shared:
            if not service.audit.held:
                service.audit.let_go(OPEN)
            service.audit.send(before.back(), OPEN)
        else:
            before.back(end=True)
    except AuditError as exc:
        log.error("%s: the lines of this server are lost", exc)  # noqa: TRY400 - no fault of ours
        before.close()
    finally:
        service.stop()


def _receive(service: Service, before: Successor) -> None:
    pid = before.running.pid
    try:
        for entry in before.entries():
            service.audit.record_entry(entry)
        log.info("process %d, which served before, has ended", pid)
    except OSError:
        log.warning("process %d, which served before, has ended before it was done", pid)
    finally:
        before.close()
