"""The load: wrk for HTTP through Envoy, h2load for gRPC straight at a server."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compared.figures import percentile

_SCRIPT = Path(__file__).with_name("wrk.lua")
# One client thread of one Envoy worker's connections.
CONNECTIONS = 16
_PATIENCE = 60.0  # seconds that a load generator may take longer than it was asked to


class LoadError(Exception):
    """A run did not go as it must for its figures to mean anything."""


@dataclass(frozen=True)
class Run:
    """One run of a load generator; ``p50_us`` and ``p99_us`` are 0 where none were asked for."""

    requests: int
    seconds: float
    p50_us: float = 0
    p99_us: float = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def wrk(url: str, seconds: float, headers: Sequence[str], cpus: set[int] | None = None) -> Run:
    """Ask for ``url`` on 16 connections as fast as the answers come.

    Raises:
        LoadError: an answer was no 2xx, or a connection failed.
    """
    # wrk takes whole seconds only.
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(_SCRIPT)]
    argv += [word for header in headers for word in ("-H", header)]
    return read_wrk(_output([*argv, url], seconds, cpus))


def read_wrk(text: str) -> Run:
    """What wrk.lua printed. Raises LoadError."""
    found = re.search(r"^JSON (\{.*\})$", text, re.MULTILINE)
    if found is None:
        raise LoadError(f"wrk printed no figures:\n{text}")
    figures = json.loads(found[1])
    if figures["errors"] or not figures["requests"]:
        raise LoadError(f"{figures['errors']} of {figures['requests']} requests failed:\n{text}")
    return Run(*(figures[key] for key in ("requests", "seconds", "p50_us", "p99_us")))


@dataclass(frozen=True)
class Checks:
    """How h2load asks: ``count`` checks on ``connections`` with ``streams`` at once on each."""

    count: int
    connections: int = 1
    streams: int = CONNECTIONS

    def argv(self) -> list[str]:
        """Its command line, without where to ask."""
        return [
            "h2load", "-t1", f"-c{self.connections}", f"-m{self.streams}", f"-n{self.count}",
            "-Hcontent-type: application/grpc", "-Hte: trailers",
        ]  # fmt: skip


def h2load(
    socket: Path,
    method: str,
    body: Path,
    checks: Checks,
    *,
    log: Path | None = None,
    cpus: set[int] | None = None,
) -> Run:
    """Call ``method`` on a unix socket with the gRPC frame in ``body``; with a ``log``, also time each call.

    Raises:
        LoadError: a call failed.
    """
    argv = [*checks.argv(), "-d", str(body), "-B", f"unix:{socket}"]
    if log:
        log.unlink(missing_ok=True)
        argv.append(f"--log-file={log}")
    run = read_h2load(_output([*argv, f"http://localhost{method}"], 600, cpus), checks.count)
    if log is None:
        return run
    took = read_log(log.read_text())
    return Run(run.requests, run.seconds, percentile(took, 0.5), percentile(took, 0.99))


def read_h2load(text: str, wanted: int) -> Run:
    """What h2load printed. Raises LoadError unless ``wanted`` calls were answered with 200."""
    took = re.search(r"finished in ([\d.]+)(us|ms|s|m),", text)
    good = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", text)
    if took is None or good is None or int(good[1]) != wanted:
        raise LoadError(f"h2load had calls that failed:\n{text}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[took[2]]
    return Run(wanted, float(took[1]) * unit)


def read_log(text: str) -> list[float]:
    """Microseconds of each call from h2load's log: start, status, duration by tabs."""
    return [float(line.split("\t")[2]) for line in text.splitlines()]


def frame(message: bytes) -> bytes:
    """A gRPC message as it stands in an HTTP/2 body: no compression, length, message."""
    return b"\0" + struct.pack(">I", len(message)) + message


def _output(argv: list[str], seconds: float, cpus: set[int] | None) -> str:
    if cpus:
        argv = ["taskset", "-c", ",".join(map(str, sorted(cpus))), *argv]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=seconds + _PATIENCE
        )
    except subprocess.TimeoutExpired as exc:
        raise LoadError(f"{argv[0]} did not end in time") from exc
    if done.returncode:
        raise LoadError(f"{argv[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
