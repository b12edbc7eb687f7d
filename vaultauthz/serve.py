"""A server's life, from its start to SIGTERM, whatever its gateway is."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz.config.values import Config
from vaultauthz.observe.sink import AuditError
from vaultauthz.service import Service
from vaultauthz.terminal import EACH_TIME
from vaultauthz.watching import Signals

log = logging.getLogger(__name__)

_LOOK: Final = 0.2  # seconds between looks at signals and at the file


class StartError(Exception):
    """It cannot serve; the message says which key of the configuration is at fault, and why."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a gateway is served; ``description`` is what the log says of it.

    When ``over`` says so it ends as on SIGTERM.
    """

    description: str
    opened: Callable[[Config], Service]
    over: Callable[[], bool] = lambda: False


def run(signals: Signals, config: Config, way: Way) -> int:
    """Serve ``config`` until SIGTERM or SIGINT; the exit status, 1 when a lease was left.

    ``wanted``, made before it was read, says when to read it again.

    Raises:
        StartError: an address or the audit log is not to be had.
    """
    # A core file would hold every credential in clear.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with signals.stoppable():
        service = _started(way, config)
        log.info("serving %s", way.description)
        try:
            _serve(service, signals, way.over)
            service.drain(signals.pause)
        finally:
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


def _serve(service: Service, signals: Signals, over: Callable[[], bool]) -> None:
    started = was_gone = False
    while not signals.stop and not over():
        wanted = signals.reload(_LOOK) and not signals.stop
        if signals.gone != was_gone:
            was_gone = signals.gone
            _tell_of_file(signals.path, gone=was_gone)
        if wanted:
            service.reload(signals.path)
        if service.engine.started and not started:
            started = True
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
