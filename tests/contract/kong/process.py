"""The plugin server's process, as Kong's worker 0 keeps it: asked what it offers, started, logged, started again."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.contract.kong.routes import Server, Settings
from tests.patience import PATIENCE

Log = Callable[[str, str], None]


class StartFailed(Exception):  # noqa: N818 - "kong start" fails; the message says why
    """Kong does not start with this plugin server."""


@dataclass(frozen=True)
class Plugin:
    """What a server said that it offers. Only its first plugin counts."""

    name: str
    protocol: str  # "MsgPack:1" or "ProtoBuf:1"
    priority: int
    version: str
    phases: tuple[str, ...]
    schema: dict[str, Any] = field(hash=False)


def query(server: Server) -> Plugin:
    """Run `query_cmd` and read its output. Raises StartFailed."""
    done = subprocess.run(
        server.query_cmd,
        shell=True,
        check=False,
        capture_output=True,
        env=dict(server.environment),
        timeout=PATIENCE,
    )
    try:
        dump = json.loads(done.stdout)
        protocol = dump.get("Protocol", "MsgPack:1") if isinstance(dump, dict) else "MsgPack:1"
        first = (dump["Plugins"] if isinstance(dump, dict) else dump)[0]
        plugin = Plugin(
            name=first["Name"],
            protocol=protocol,
            priority=first["Priority"],
            version=first.get("Version") or "",
            phases=tuple(first["Phases"]),
            schema=first["Schema"],
        )
    except (ValueError, LookupError, TypeError) as error:
        said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise StartFailed(f"no plugin info from {server.query_cmd}: {error!r}\n{said}") from error
    if plugin.protocol not in {"MsgPack:1", "ProtoBuf:1"}:
        raise StartFailed(f"unknown protocol implementation: {plugin.protocol}")
    return plugin


class Supervisor:
    """Runs `start_cmd`, again when it ended, at most once in `Settings.respawn` seconds."""

    def __init__(self, server: Server, settings: Settings, log: Log) -> None:
        self.starts = 0
        self._server = server
        self._settings = settings
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._exiting = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kong-worker-0", daemon=True)

    def start(self) -> None:
        """Start the server, if it is Kong's to start."""
        if self._server.start_cmd is not None:
            self._thread.start()

    @property
    def pid(self) -> int | None:
        """The running server's process id."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the server a signal and wait until it has ended. A new one is started in its time."""
        child = self._child
        assert child is not None, "no server was started"
        child.send_signal(number)
        child.wait(PATIENCE)

    def stop(self, patience: float = PATIENCE) -> None:
        """SIGTERM, as a worker 0 that exits sends it; SIGKILL after `patience`, which Kong never sends."""
        self._exiting.set()
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                self._log("error", "the server did not end on SIGTERM")
                child.kill()
                child.wait(PATIENCE)
        if self._thread.is_alive():
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._exiting.is_set():
            next_start = time.monotonic() + self._settings.respawn
            self._spawn()
            self._grab_output()
            self._exiting.wait(max(0.0, next_start - time.monotonic()))

    def _spawn(self) -> None:
        self.starts += 1
        self._child = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {self._server.start_cmd}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(self._server.environment),
        )
        if self._exiting.is_set():  # stop() has looked already
            self._child.kill()

    def _grab_output(self) -> None:
        child = self._child
        assert child is not None
        assert child.stdout is not None
        with child.stdout as output:
            for line in output:
                self._log(
                    "server",
                    f"[{self._server.name}:{child.pid}] {line.decode(errors='replace').rstrip()}",
                )
        self._log("notice", f"external pluginserver terminated: {child.wait()}")


def listening(server: Server) -> int | None:
    """The inode of the server's socket, when somebody accepts connections on it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PATIENCE)
        probe.connect(str(server.socket))
        return server.socket.stat().st_ino
    return None


def wait_until(ready: Callable[[], object], what: str) -> None:
    """Ask every 10 ms. Raises AssertionError after `PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, f"not in {PATIENCE:.0f} s: {what}"
        time.sleep(0.01)
