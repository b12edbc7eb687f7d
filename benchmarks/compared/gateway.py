"""The whole system: one Envoy worker, 16 connections, and a credential put on each request in several ways."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compared import bootstraps, nginx
from compared.bootstraps import Bootstrap, Places
from compared.figures import rotated
from compared.following import access_log, following
from compared.loads import LoadError, Run, wrk
from compared.messages import ANY_HOST, CLIENT, HEADER, HOST, PATH
from compared.nginx import Address
from compared.servers import Ours, pid, trivial
from compared.usage import Cores, cpu_seconds, on
from vaultauthz.demo.parts import Envoy, Process, free_port, wait_for

_READY = 15.0  # seconds until the first answer: health checks and SDS have to come first
_BEHIND = 10.0  # … until the last line is in the audit log
_QUIET = (
    0.6  # … without a line, and nothing is on its way: by ALS and by the file it takes 0.4 at most
)
# As the documentation has it where a file is followed; the others write none.
_FLUSH = ("--file-flush-interval-msec", "200")
Record = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """A way to get the credential there; ``asked`` names the server that it needs, "" for none."""

    says: str
    bootstrap: Bootstrap
    asked: str = ""
    checked: bool = False  # each request is a check of our own server
    audited: bool = False  # … and has a line in the audit log
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
    "sds_file": Variant(
        "the same, and a file", bootstraps.sds_file, "following", audited=True, host=ANY_HOST
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
        self._cores = cores
        self._servers = {"ours": ours, "following": following(ours, folder / "following")}
        self._asked: dict[str, tuple[Process, Address]] = {
            name: (server.process, server.socket) for name, server in self._servers.items()
        }
        self._printed = bootstraps.printed(ours.config, self._servers["following"].config)
        self._key = ours.key
        self._upstream: Address = 0

    @contextlib.contextmanager
    def up(self, names: list[str]) -> Iterator[None]:
        """Start what these variants ask, and the upstream. Raises PartError."""
        key, cores = self._key, self._cores
        with contextlib.ExitStack() as parts:
            with on(cores.asked):
                if any(VARIANTS[name].asked == "following" for name in names):
                    parts.enter_context(_started(self._servers["following"]))
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
        bootstrap = variant.bootstrap(self._printed, places)
        envoy = Envoy(bootstrap, self._folder / "envoy", options=_FLUSH)
        for server in self._servers.values():
            access_log(server).unlink(missing_ok=True)  # hundreds of bytes for each request, too
        with on(self._cores.gateway):
            envoy.start()
        try:
            # The upstream answers 401 without the credential. No filter: the client brings it itself.
            key = "of-the-client" if variant.asked else self._key
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
        ours = self._servers.get(variant.asked, self._servers["ours"])
        if variant.audited:
            _all_quiet(ours)
        ours.empty_audit()
        allowed = ours.counts()
        before = {name: cpu_seconds(number) for name, number in pids.items()}
        run = load.run(plan.seconds, plan.cores)
        used = {"gateway": cpu_seconds(pids["gateway"]) - before["gateway"]}
        _all_checked(variant, run, allowed, ours.counts())
        _all_answered(envoy)
        if variant.audited:
            _all_audited(ours, run)
        if asked:  # the lines that it writes afterwards are its work, too
            used["asked"] = cpu_seconds(pids["asked"]) - before["asked"]
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


@contextlib.contextmanager
def _started(server: Ours) -> Iterator[None]:
    server.process.start()
    try:
        server.process.wait_until(server.ready)
        yield
    finally:
        server.process.terminate()


def _all_quiet(ours: Ours) -> None:
    """The warm-up's lines are written, so that none of them passes for one of the run's."""
    seen = -1
    while (size := ours.audit.stat().st_size) != seen:
        seen = size
        time.sleep(_QUIET)


def _all_audited(ours: Ours, run: Run) -> None:
    """Each request has its line, which is written behind the answer; by ALS and a file a moment later."""
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
    with bench.up(names):
        for number in range(plan.rounds):
            for name in rotated(names, number):
                try:
                    found[name].append(bench.measure(name, plan))
                except LoadError as exc:
                    raise LoadError(f"{name}: {exc}") from exc
            told(f"round {number + 1} of {plan.rounds}")
    return found
