"""The plugin server's process, as Kong's worker 0 keeps it: asked what it offers, started, logged, started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
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


class Master:
    """Kong's master process, and below it the worker 0 of each generation; see `tree`."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("tree.py"))
        # As nginx does, it says in place of its arguments what it is. Without a venv, whose
        # interpreter finds its library by that name.
        self._process = subprocess.Popen(
            ["nginx: master process", "-I", "-S", script],
            executable=os.path.realpath(sys.executable),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._hearing: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._thread = threading.Thread(target=self._listen, name="kong-master", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def begin(self, hear: Callable[[dict[str, Any]], None], **told: Any) -> int:
        """Start a worker 0, whose events `hear` gets; the number of its generation."""
        generation = len(self._hearing) + 1
        self._hearing[generation] = hear
        self._tell(generation=generation, **told)
        return generation

    def end(self, generation: int) -> None:
        """Have a worker 0 end."""
        self._tell(generation=generation)

    def stop(self) -> None:
        """`kong stop`: every worker ends, then the master."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._thread.join(PATIENCE)

    def _tell(self, **told: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it was killed, or stopped
            self._process.stdin.write(json.dumps(told).encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as events:
            for event in events:
                told = json.loads(event)
                self._hearing[told["generation"]](told)


class Supervisor:
    """Worker 0 of one generation, which runs `start_cmd`, again when it ended, at most once in `Settings.respawn`."""

    def __init__(
        self, server: Server, settings: Settings, log: Log, master: Callable[[], Master]
    ) -> None:
        self.starts = 0
        self.pid: int | None = None  # of what it has started, while that runs
        self.worker: int | None = None  # its own, while it runs
        self._server = server
        self._settings = settings
        self._log = log
        self._master = master
        self._generation = 0
        self._changed = threading.Condition()
        self._ended: set[int] = set()
        self._over = False

    def start(self) -> None:
        """Start the server, if it is Kong's to start."""
        if self._server.start_cmd is not None:
            self._generation = self._master().begin(
                self._hear,
                command=self._server.start_cmd,
                environment=dict(self._server.environment),
                respawn=self._settings.respawn,
            )

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send what it has started a signal and wait until that has ended. A new one is started in its time."""
        pid = self.pid
        assert pid is not None, "no server was started"
        os.kill(pid, number)
        with self._changed:
            assert self._changed.wait_for(lambda: pid in self._ended, PATIENCE)

    def stop(self) -> None:
        """The worker ends: SIGTERM and, at once after it, SIGKILL for what it has started."""
        if self._generation:
            with self._changed:
                assert self._changed.wait_for(lambda: self.worker or self._over, PATIENCE)
            self._master().end(self._generation)
            with self._changed:
                assert self._changed.wait_for(lambda: self._over, PATIENCE)

    def _hear(self, event: dict[str, Any]) -> None:
        if "line" in event:
            self._log("server", f"[{self._server.name}:{event['pid']}] {event['line']}")
        if "ended" in event:
            self._log(
                "notice", f"external pluginserver '{self._server.name}' terminated: {event['why']}"
            )
        with self._changed:
            if "worker" in event:
                self.worker, self._over = event["worker"], False
            elif "over" in event:
                self.worker, self.pid, self._over = None, None, True
            elif "started" in event:
                self.starts, self.pid = self.starts + 1, event["started"]
            elif "ended" in event:
                self._ended.add(event["ended"])
                self.pid = None
            self._changed.notify_all()


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
