"""A real Envoy from a bootstrap, with its admin page on a free loopback port."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
import yaml

from vaultauthz.demo.parts import binaries
from vaultauthz.demo.parts.process import PartError, Process, free_port


class Envoy:
    """One Envoy. `bootstrap` is YAML text or the parsed document; its admin address becomes a free loopback port.

    `options` go onto its command line. Start it from a thread that lives as long as Envoy shall: Envoy asks the
    kernel to end it with that thread.
    """

    def __init__(
        self,
        bootstrap: str | dict[str, Any],
        folder: Path,
        *,
        concurrency: int = 1,
        options: Sequence[str] = (),
    ) -> None:
        self.admin_port = free_port()
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        document = yaml.safe_load(bootstrap) if isinstance(bootstrap, str) else dict(bootstrap)
        socket_address = {"address": "127.0.0.1", "port_value": self.admin_port}
        self._bootstrap = {**document, "admin": {"address": {"socket_address": socket_address}}}
        self._folder = folder
        self._concurrency = concurrency
        self._options = tuple(options)
        self._process: Process | None = None

    @property
    def log(self) -> Path:
        """Envoy's own log; what an access log sends to standard output is in it too."""
        return self._folder / "envoy.log"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    def validate(self) -> None:
        """Have Envoy check the bootstrap without serving it. Raises PartError with Envoy's reason."""
        argv = [str(binaries.envoy()), "--mode", "validate", "-c", str(self._write())]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PartError(f"envoy refuses its bootstrap:\n{done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start it and wait until every listener serves. Raises PartError with the tail of its log."""
        if self._process is None:
            # Hot restart's shared memory is left out: it would tie this Envoy to any other on the machine.
            flags = [
                "--concurrency",
                str(self._concurrency),
                "--disable-hot-restart",
                "--log-level",
                "warning",
                *self._options,
            ]
            self._folder.mkdir(parents=True, exist_ok=True)
            self._process = Process([binaries.envoy(), "-c", self._write(), *flags], self.log)
        self._process.start()
        self._process.wait_until(self._ready)

    def stop(self) -> None:
        """Stop it (SIGTERM)."""
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._process:
            self._process.kill()

    def stats(self, prefix: str = "") -> dict[str, int]:
        """The counters and gauges whose names begin with `prefix`."""
        params = {"format": "json", "filter": f"^{prefix}"}
        answer = requests.get(f"{self.admin}/stats", params=params, timeout=5).json()
        return {entry["name"]: entry["value"] for entry in answer["stats"] if "name" in entry}

    def config_dump(self) -> str:
        """Everything that Envoy shows of its configuration, as JSON text."""
        return requests.get(f"{self.admin}/config_dump", timeout=5).text

    def _write(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "envoy.json"
        # JSON, because Envoy reads YAML 1.1 words such as `on` its own way; JSON means one thing.
        path.write_text(json.dumps(self._bootstrap, indent=2))
        return path

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.admin}/ready", timeout=2).ok
        except requests.RequestException:
            return False

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
