"""Prometheus and its promtool, of Debian's package `prometheus`: found on PATH, or unpacked beside this Python.

Unpacked, not installed: the package would start a server, and wants thirty megabytes of a web page's
scripts. What apt downloads it has checked against Debian's signatures.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from tests.contract.faults import wait_until

ROOT: Final = Path(__file__).parents[1]
RULES: Final = ROOT / "deploy/prometheus/vaultauthz.rules.yaml"
DASHBOARD: Final = ROOT / "deploy/grafana/vaultauthz.json"
_UNPACKED: Final = Path(sys.prefix) / "prometheus"
_APT: Final = ("apt-get", "-o", "Acquire::Retries=3")
_LONGEST: Final = 300  # seconds for one call of it


class Alert(NamedTuple):
    """An alert as Prometheus tells it; ``labels`` are the rule's too, but for its name."""

    name: str
    state: str
    labels: dict[str, str]


@functools.cache
def program(name: str) -> str:
    """Where `prometheus` or `promtool` is. Without one the test is skipped, which CI does not allow."""
    found = shutil.which(name)
    if found:
        return found
    try:
        return str(_unpacked() / name)
    except (OSError, subprocess.SubprocessError) as exc:
        said = getattr(exc, "stderr", None) or exc
        pytest.skip(f"{name} is missing: apt-get install prometheus (or apt-get update): {said}")


def _unpacked() -> Path:
    programs = _UNPACKED / "usr/bin"
    with (_UNPACKED.parent / "prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if programs.is_dir():
            return programs
        with tempfile.TemporaryDirectory(dir=_UNPACKED.parent) as name:
            folder = Path(name)
            try:
                _run(folder, *_APT, "download", "prometheus")
            except subprocess.CalledProcessError:  # no lists yet, or old ones
                _run(folder, *_rights(), *_APT, "update")
                _run(folder, *_APT, "download", "prometheus")
            (package,) = folder.glob("*.deb")
            _run(folder, "dpkg", "-x", str(package), "unpacked")
            (folder / "unpacked").rename(_UNPACKED)
    return programs


def _rights() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def _run(folder: Path, *argv: str) -> None:
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True, timeout=_LONGEST)


def promtool(*arguments: str | Path) -> tuple[int, str]:
    """The exit status, and all that it said."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def hurried(rules: Path, into: Path) -> Path:
    """The same rules without patience: what is so is told at the next look, and looks back for seconds only."""
    document = yaml.safe_load(rules.read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
            rule["expr"] = re.sub(r"\[\d+[mhd]\]", "[5s]", rule["expr"])
    into.write_text(yaml.safe_dump(document))
    return into


def filled_in(expression: str, interval: str) -> str:
    """A panel's expression as Grafana asks it, where everything is looked at."""
    made = expression.replace("$__rate_interval", interval)
    for name in ("instance", "stage", "upstream"):
        made = made.replace(f"${name}", ".*")
    assert "$" not in made
    return made


class Prometheus:
    """Scrapes ``targets`` (HOST:PORT) five times a second and looks at ``rules`` as often."""

    def __init__(self, folder: Path, targets: Sequence[str], rules: Path, token: str) -> None:
        self._folder = folder
        self._port = free_port()
        job = {
            "job_name": "vaultauthz",
            "authorization": {"credentials": token},
            "static_configs": [{"targets": list(targets)}],
        }
        pace = {
            "scrape_interval": "200ms",
            "scrape_timeout": "200ms",
            "evaluation_interval": "200ms",
        }
        document = {"global": pace, "rule_files": [str(rules)], "scrape_configs": [job]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(document))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While the context lasts; it answers when it has begun."""
        folder = self._folder
        with (folder / "prometheus.log").open("w") as log:
            process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={folder}/prometheus.yaml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )
            try:
                assert wait_until(lambda: process.poll() is not None or self._ready())
                assert process.poll() is None, (folder / "prometheus.log").read_text()
                yield
            finally:
                process.terminate()
                process.wait()

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.value("vector(1)"))
        return False

    def value(self, query: str) -> list[float]:
        """What a query comes to now."""
        found = self._ask(f"query?query={urllib.parse.quote(query)}")
        return [float(one["value"][1]) for one in found["result"]]

    def firing(self) -> dict[str, list[Alert]]:
        """The alerts that are on, by name."""
        found: dict[str, list[Alert]] = {}
        for one in self._ask("alerts")["alerts"]:
            labels = dict(one["labels"])
            alert = Alert(labels.pop("alertname"), one["state"], labels)
            if alert.state == "firing":
                found.setdefault(alert.name, []).append(alert)
        return found

    def _ask(self, what: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}"
        with urllib.request.urlopen(url) as reply:
            return json.load(reply)["data"]


def free_port() -> int:
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
