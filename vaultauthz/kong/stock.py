"""The plugin in Kong's own server, kong-python-pluginserver.

That server lets a request go on when something goes wrong with it, and after a restart may
run another route's configuration. So each request is marked, in its last PDK call, with the
names in its plugin's configuration, and the guard that ``vaultauthz kong config --stock``
prints lets nothing pass without the mark of its own route.

One core for the process, however many instances Kong starts; it begins with the first of
them, since the server also loads the plugin only to say what it is.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from vaultauthz.config import load_for_kong
from vaultauthz.core.decision import Reason
from vaultauthz.core.redaction import where
from vaultauthz.doors import Door
from vaultauthz.kong import registration
from vaultauthz.kong.calls import PdkCall
from vaultauthz.kong.door import gate_of
from vaultauthz.kong.enforcement import denial
from vaultauthz.kong.gate import End, Instance, Steps
from vaultauthz.kong.questions import Results
from vaultauthz.leases.later import Later
from vaultauthz.service import Service
from vaultauthz.terminal import TextLines
from vaultauthz.watching import Watch

__all__ = ["Plugin", "Schema", "priority", "version"]

log = logging.getLogger(__name__)

# The names that kong-python-pluginserver looks for.
Schema = list(registration.FIELDS)
priority = registration.PRIORITY
version = registration.VERSION

# Kong's workers start with an empty environment, unless start_cmd sets it by `env`.
_DEFAULT_CONFIG: Final = "/etc/vaultauthz/vaultauthz.yaml"
_FIRST: Final = 5.0  # seconds that the first instance waits for the credentials
_LOOK: Final = 1.0
_POLL: Final = 0.01
_SET_HEADERS: Final = "kong.service.request.set_headers"


class Plugin:
    """One instance; Kong's server calls ``access`` and ``log``, each in a thread of its own."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._core = _core()
        self._instance = self._core.gate.begin(json.dumps(config))

    def access(self, kong: Any) -> None:
        """Never raises: an error would hold a lock of the server's, or pass the request on."""
        end = self._end(kong)
        try:
            calls = end.batch.calls
            _make(kong, calls if end.answers else marked(calls, self._instance))
        except Exception as exc:  # noqa: BLE001 - see above
            log.error("a request in Kong was left to the guard: %s", where(exc))  # noqa: TRY400

    def _end(self, kong: Any) -> End:
        try:
            return _run(kong, self._core.gate.access(self._instance))
        except Exception as exc:  # noqa: BLE001 - the client is answered whatever it is
            log.error("a request in Kong was denied as internal: %s", where(exc))  # noqa: TRY400
            denied = self._core.gate.deny(self._instance, Reason.INTERNAL)
            return End(denial(denied, ""), answers=True)

    def log(self, kong: Any) -> None:
        """Never raises, as ``access``."""
        try:
            end = self._core.gate.log()
            results = _make(kong, end.batch.calls)
            if end.take is not None:
                end.take(results)
        except Exception as exc:  # noqa: BLE001 - see above
            log.error("what Kong told of a request was passed over: %s", where(exc))  # noqa: TRY400


def marked(calls: tuple[PdkCall, ...], instance: Instance) -> tuple[PdkCall, ...]:
    """``calls``, the last of which, or one more, sets the mark."""
    mark = {registration.MARK: registration.mark_of(instance.upstream, instance.stage)}
    if calls and calls[-1].name == _SET_HEADERS:
        mark |= calls[-1].args[0]
        calls = calls[:-1]
    return (*calls, PdkCall(_SET_HEADERS, (mark,)))


def _run(kong: Any, steps: Steps) -> End:
    sent: Any = None
    while True:
        try:
            wanted = steps.send(sent)
        except StopIteration as stop:
            end: End = stop.value
            return end
        sent = wanted.wait() if isinstance(wanted, Later) else _make(kong, wanted.calls)


def _make(kong: Any, calls: Iterable[PdkCall]) -> Results:
    """Make the calls; what each gave."""
    return {
        call: call.result.take(attrgetter(call.name.removeprefix("kong."))(kong)(*call.args))
        for call in calls
    }


class Core(Door):
    """The process's one server, and its door: the PDK calls come by the plugin."""

    def __init__(self, path: Path) -> None:
        watch = Watch(path)
        config = load_for_kong(path, os.environ)
        self._service = Service(config, lambda _: self, load_for_kong)
        self.gate, self._log_phase = gate_of(self._service)
        self._service.start()
        threading.Thread(target=self._watch, args=(watch,), name="watch", daemon=True).start()
        until = time.monotonic() + _FIRST
        while not self._service.engine.started and time.monotonic() < until:
            time.sleep(_POLL)

    def start(self) -> None:
        """See ``Door``."""
        self._log_phase.start()

    def stop(self, grace: float) -> None:
        """See ``Door``."""

    def end(self) -> None:
        """Revoke what was leased."""
        self._service.stop()

    def _watch(self, watch: Watch) -> None:
        while True:
            time.sleep(_LOOK)
            if watch.changed():
                self._service.reload(watch.path)


_lock: Final = threading.Lock()
_cores: Final[list[Core]] = []


def _core() -> Core:
    """The process's core. One that could not be started is tried again by the next instance."""
    with _lock:
        if not _cores:
            _log_to_stderr()
            _cores.append(Core(Path(os.environ.get("VAULTAUTHZ_CONFIG", _DEFAULT_CONFIG))))
        return _cores[0]


def _log_to_stderr() -> None:
    ours = logging.getLogger("vaultauthz")
    if not ours.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(TextLines())
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)


def _end(_number: int, _frame: object) -> None:
    for core in _cores:
        core.end()
    os._exit(0)  # the server's threads would hold us up until Kong hangs up


# Kong's server ends on SIGTERM without a word, and what was leased would outlive it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, _end)
