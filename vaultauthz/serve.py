"""``vaultauthz serve``: a server's life, from its start to SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz.admin import AdminError
from vaultauthz.config.values import Config
from vaultauthz.observe.sink import AuditError
from vaultauthz.service import Service

log = logging.getLogger(__name__)

_LOOK: Final = 0.2  # seconds between looks at signals and at the file


class StartError(Exception):
    """It cannot serve; the message says which key of the configuration is at fault, and why."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a gateway is served; ``told`` is what the log says of it.

    When ``over`` says so it ends as on SIGTERM.
    """

    told: str
    opened: Callable[[Config], Service]
    over: Callable[[], bool]


def run(path: Path, config: Config, way: Way | None = None) -> int:
    """Serve ``config`` until SIGTERM or SIGINT; the exit status, 1 when a lease was left.

    ``path``, where it was read from, is read again on SIGHUP and when the file changes.
    ``way`` is Envoy's if none is given.

    Raises:
        StartError: an address or the audit log is not to be had.
    """
    # A core file would hold every credential in clear.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = Watch(path)
    way = way or Way(f"Envoy's checks on {config.listen.grpc}", Service, lambda: False)
    with _signals() as asked:
        service = _started(way, config)
        log.info("serving %s", way.told)
        try:
            _serve(service, asked, watch, way.over)
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
    except (OSError, AdminError) as exc:
        raise StartError(str(exc)) from exc
    return service


class Asked:
    """What signals have asked for."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()


def _serve(service: Service, asked: Asked, watch: Watch, over: Callable[[], bool]) -> None:
    was_ready = False
    while not asked.stop.wait(_LOOK) and not over():
        changed = watch.changed()
        if asked.reload.is_set() or changed:
            asked.reload.clear()
            service.reload(watch.path)
        if service.engine.ready and not was_ready:
            was_ready = True
            log.info("ready: every upstream has its credential")


class Watch:
    """Tells once when a file has changed and is not being written any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = self._last = self._stat()

    def changed(self) -> bool:
        """Whether it has changed since this last said so, and is the same as at the last look."""
        before, self._last = self._last, self._stat()
        # Gone for a moment: some programs write another file and move it into place.
        if self._last in (None, self._known) or self._last != before:
            return False
        self._known = self._last
        return True

    def _stat(self) -> tuple[int, int, int] | None:
        # Through links: Kubernetes replaces a mounted ConfigMap by moving one. And not the
        # time that `cp -p` sets, which stays when somebody lets us read the file, too.
        with contextlib.suppress(OSError):
            stat = self.path.stat()
            return stat.st_ctime_ns, stat.st_ino, stat.st_size
        return None


@contextlib.contextmanager
def _signals() -> Iterator[Asked]:
    """SIGTERM and SIGINT ask to stop, a second of either ends at once; SIGHUP to reload."""
    asked = Asked()
    before = {}
    ending = (signal.SIGTERM, signal.SIGINT)

    def stop(_number: int, _frame: object) -> None:
        asked.stop.set()
        for number in ending:
            signal.signal(number, signal.SIG_DFL)

    for number in ending:
        before[number] = signal.signal(number, stop)
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: asked.reload.set())
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
