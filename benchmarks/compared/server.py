"""The server alone: h2load asks it over a unix socket, as Envoy does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compared.figures import rotated
from compared.loads import Checks, LoadError, Run, frame, h2load
from compared.messages import check_request
from compared.servers import Ours, pid, settle, trivial
from compared.usage import Cores, cpu_seconds, resident_bytes
from vaultauthz.demo.parts import Process
from vaultauthz.envoy.ext_authz import METHOD

NAMES = {
    "ours": "vaultauthz serve",
    "native": "trivial, same transport",
    "grpcio": "trivial grpcio, sync",
}
Record = dict[str, float]
# 200 streams: what a gateway of several workers may have open at once.
_CONNECTIONS, _STREAMS = 4, 50
_STEPS = 10


@dataclass(frozen=True)
class Target:
    """A server that is asked: its process and socket."""

    process: Process
    socket: Path


class Bench:
    """The servers to compare, and how each is asked."""

    def __init__(self, folder: Path, ours: Ours, cores: Cores) -> None:
        self._folder = folder
        self._ours = ours
        self._cores = cores
        self._targets = {"ours": Target(ours.process, ours.socket)}
        self._body = folder / "check"
        self._body.write_bytes(frame(check_request()))

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """Start the trivial servers. Raises PartError."""
        with contextlib.ExitStack() as parts:
            for name in ("native", "grpcio"):
                found = parts.enter_context(trivial(self._folder, name, self._ours.key))
                self._targets[name] = Target(*found)
            yield

    def measure(self, name: str, count: int) -> Record:
        """CPU under what one Envoy worker sends, then latency with 200 streams. Raises LoadError."""
        target = self._targets[name]
        number = pid(target.process)
        self._ask(name, Checks(max(200, count // 10)))
        before = cpu_seconds(number)
        run = self._ask(name, Checks(count))
        if name == "ours":
            settle(self._ours)  # what it writes behind its answers is its work as well
        used = cpu_seconds(number) - before
        log = self._folder / "h2load.log"
        busy = self._ask(name, Checks(count, _CONNECTIONS, _STREAMS), log)
        return {
            "cpu_us": used / count * 1e6,
            "rps": run.rate,
            "p50_us": busy.p50_us,
            "p99_us": busy.p99_us,
        }

    def million(self, count: int, told: Callable[[str], object]) -> list[tuple[int, int]]:
        """Memory of our server after each tenth of ``count`` checks: (checks, bytes). Raises LoadError."""
        number = pid(self._ours.process)
        step = count // _STEPS
        samples = []
        for done in range(1, _STEPS + 1):
            self._ask("ours", Checks(step, _CONNECTIONS))
            settle(self._ours)
            self._ours.empty_audit()
            samples.append((done * step, resident_bytes(number)))
            told(f"{done * step:,} of {count:,} checks, {samples[-1][1] / 2**20:.1f} MiB")
        return samples

    def _ask(self, name: str, checks: Checks, log: Path | None = None) -> Run:
        before = self._ours.counts()
        others = set(self._cores.others) if self._cores.others else None
        socket = self._targets[name].socket
        run = h2load(socket, METHOD, self._body, checks, log=log, cpus=others)
        # gRPC answers 200 to a check that is denied, so our server is asked what it decided.
        after = self._ours.counts()
        allowed, denied = (after[word] - before[word] for word in ("allowed", "denied"))
        if (allowed, denied) != (checks.count if name == "ours" else 0, 0):
            raise LoadError(
                f"{checks.count} checks of {name}, but {allowed} allowed, {denied} denied"
            )
        return run


def measure(
    bench: Bench, rounds: int, count: int, told: Callable[[str], object]
) -> dict[str, list[Record]]:
    """Every server in every round, in an order that is rotated each round. Raises LoadError."""
    found: dict[str, list[Record]] = {name: [] for name in NAMES}
    for number in range(rounds):
        for name in rotated(list(NAMES), number):
            found[name].append(bench.measure(name, count))
        told(f"round {number + 1} of {rounds}")
    return found
