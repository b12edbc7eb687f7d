"""The whole system: one Envoy worker, 16 connections, and a credential put on each request in several ways."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compared import bootstraps, nginx
from compared.bootstraps import Bootstrap, Places
from compared.figures import rotated
from compared.loads import LoadError, Run, wrk
from compared.messages import ANY_HOST, CLIENT, HEADER, HOST, PATH
from compared.nginx import Address
from compared.servers import Ours, pid, trivial
from compared.usage import Cores, cpu_seconds, on
from vaultauthz.demo.parts import Envoy, Process, free_port, wait_for

_READY = 15.0  # seconds until the first answer: health checks and SDS have to come first
_BEHIND = 5.0  # … until the last line is in the audit log
Record = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """A way to get the credential there; ``asked`` names the server that it needs, "" for none."""

    says: str
    bootstrap: Bootstrap
    asked: str = ""
    checked: bool = False  # each request is a check of our own server
    audited: bool = False  # … and has a line in its audit log
    host: str = HOST


VARIANTS = {
    "plain": Variant("no filter", bootstraps.plain),
    "native": Variant("asks nginx, HTTP on TCP", bootstraps.native, "nginx"),
    "native_unix": Variant("the same, unix socket", bootstraps.native, "nginx_unix"),
    "ext_authz": Variant(
        "asks vaultauthz", bootstraps.ext_authz, "ours", checked=True, audited=True
    ),
    "grpcio": Variant("asks a trivial grpcio", bootstraps.ext_authz, "grpcio"),
    "sds": Variant("SDS from vaultauthz", bootstraps.sds, "ours", host=ANY_HOST),
    "sds_als": Variant(
        "the same, and ALS", bootstraps.sds_als, "ours", audited=True, host=ANY_HOST
    ),
}


@dataclass(frozen=True)
class Plan:
    """How long: ``rounds`` of ``seconds`` for each variant, after ``warm_up`` seconds. And on which cores."""

    rounds: int
    seconds: float
    warm_up: float
    cores: Cores


class Bench:
    """The servers behind Envoy, which run all the time; Envoy is a new one for each measurement."""

    def __init__(self, folder: Path, ours: Ours, cores: Cores) -> None:
        self._folder = folder
        self._ours = ours
        self._cores = cores
        self._asked: dict[str, tuple[Process, Address]] = {"ours": (ours.process, ours.socket)}
        self._printed = bootstraps.printed(ours.config)
        self._upstream: Address = 0

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """Start what is asked and the upstream. Raises PartError."""
        key, cores = self._ours.key, self._cores
        with contextlib.ExitStack() as parts:
            with on(cores.asked):
                found = parts.enter_context(trivial(self._folder, "grpcio", key))
                self._asked["grpcio"] = found
                answerer = parts.enter_context(nginx.answerer(self._folder / "answerer", key))
                for name, address in zip(("nginx", "nginx_unix"), answerer.addresses, strict=True):
                    self._asked[name] = (answerer.process, address)
            with on(cores.others):
                upstream = parts.enter_context(nginx.upstream(self._folder / "upstream", key))
            self._upstream = upstream.addresses[0]
            yield

    def measure(self, name: str, plan: Plan) -> Record:
        """One measurement of one variant, with an Envoy of its own.

        Raises:
            LoadError: a request was not answered with 200, or did not carry the credential.
            PartError: Envoy does not start.
        """
        variant = VARIANTS[name]
        process, path = self._asked.get(variant.asked, (None, Path("nobody")))
        places = Places(free_port(), self._upstream, path)
        envoy = Envoy(variant.bootstrap(self._printed, places), self._folder / "envoy")
        with on(self._cores.gateway):
            envoy.start()
        try:
            # The upstream answers 401 without the credential. No filter: the client brings it itself.
            key = "of-the-client" if variant.asked else self._ours.key
            load = Load(places.listener, variant.host, key)
            load.wait()
            load.run(plan.warm_up, self._cores)
            return self._run(variant, load, envoy, process, plan)
        finally:
            envoy.kill()

    def _run(
        self, variant: Variant, load: Load, envoy: Envoy, asked: Process | None, plan: Plan
    ) -> Record:
        pids = {"gateway": envoy.pid or 0} | ({"asked": pid(asked)} if asked else {})
        self._ours.empty_audit()
        allowed = self._ours.counts()
        before = {name: cpu_seconds(number) for name, number in pids.items()}
        run = load.run(plan.seconds, plan.cores)
        used = {name: cpu_seconds(number) - before[name] for name, number in pids.items()}
        _all_checked(variant, run, allowed, self._ours.counts())
        _all_answered(envoy)
        if variant.audited:
            _all_audited(self._ours, run)
        record = {"rps": run.rate, "p50_us": run.p50_us, "p99_us": run.p99_us}
        cpu = {f"cpu_{name}_us": seconds / run.requests * 1e6 for name, seconds in used.items()}
        return {**record, **cpu}


class Load:
    """Requests for ``host`` to the gateway on ``port`` with ``key`` as the client's X-Api-Key."""

    def __init__(self, port: int, host: str, key: str) -> None:
        self._port = port
        self._headers = {"Host": host, **CLIENT, HEADER: key}

    def wait(self) -> None:
        """Wait until requests pass. Raises LoadError with the last answer."""
        seen = [0]
        if not wait_for(lambda: self._passes(seen), _READY):
            raise LoadError(f"after {_READY:g} s the gateway still answers {seen[-1]}")

    def _passes(self, seen: list[int]) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", PATH, headers=self._headers)
            seen.append(connection.getresponse().status)
        except OSError:
            return False
        finally:
            connection.close()
        return seen[-1] == 200

    def run(self, seconds: float, cores: Cores) -> Run:
        """As fast as it goes for so long. Raises LoadError."""
        headers = [f"{name}: {value}" for name, value in self._headers.items()]
        others = set(cores.others) if cores.others else None
        return wrk(f"http://127.0.0.1:{self._port}{PATH}", seconds, headers, others)


def _all_checked(variant: Variant, run: Run, before: dict[str, int], after: dict[str, int]) -> None:
    """Where our server is asked, it says of itself that it allowed each request and denied none."""
    allowed, denied = (after[word] - before[word] for word in ("allowed", "denied"))
    if denied or (variant.checked and allowed < run.requests):
        raise LoadError(f"{run.requests} requests, but {allowed} checks allowed, {denied} denied")


def _all_audited(ours: Ours, run: Run) -> None:
    """Each request has its line, which is written behind the answer, and by ALS a moment later."""
    if not wait_for(lambda: ours.audit_lines() >= run.requests, _BEHIND):
        raise LoadError(f"{run.requests} requests, but {ours.audit_lines()} lines of audit")


def _all_answered(envoy: Envoy) -> None:
    """Envoy saw no answer but 2xx from first to last, also those that wrk has no count of."""
    stats = envoy.stats("http.gateway.downstream_rq_[345]xx")
    if any(stats.values()):
        raise LoadError(f"Envoy gave answers other than 2xx: {stats}")


def measure(
    folder: Path, ours: Ours, plan: Plan, names: list[str], told: Callable[[str], object]
) -> dict[str, list[Record]]:
    """Every variant in every round, in an order that is rotated each round. Raises LoadError, PartError."""
    bench = Bench(folder, ours, plan.cores)
    found: dict[str, list[Record]] = {name: [] for name in names}
    with bench.up():
        for number in range(plan.rounds):
            for name in rotated(names, number):
                try:
                    found[name].append(bench.measure(name, plan))
                except LoadError as exc:
                    raise LoadError(f"{name}: {exc}") from exc
            told(f"round {number + 1} of {plan.rounds}")
    return found
