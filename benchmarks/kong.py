"""Our plugin server for Kong against kong-python-pluginserver: the same plugin, the same requests.

    python benchmarks/kong.py [--rounds 5] [--seconds 3] [--connections 1,16,64]
    python benchmarks/kong.py --long 200000         # memory and threads instead

Kong's side of both protocols is benchmarks/kong_clients.py, on unix sockets; behind the servers is the
fake Vault of the tests. A request is an access phase, which sets a token (three PDK calls), and a log phase.
Rounds are interleaved, and each ratio is taken within a round. `kong_vs_stock` in benchmarks/results/latest.json
is the median for 16 connections, requests a second; latencies are of the access phase, which a client waits for.
Exit status: 0 measured, 1 a wrong answer.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compared import results  # noqa: E402
from compared.about import machine  # noqa: E402
from compared.figures import ratio  # noqa: E402
from compared.usage import cpu_seconds  # noqa: E402
from kong_clients import MsgPack, ProtoBuf, Tally, WrongError, drive  # noqa: E402

from tests.contract.kong import Kong, Server  # noqa: E402
from tests.contract.kong.process import listening, wait_until  # noqa: E402
from tests.contract.kong_bed import (  # noqa: E402
    OURS,
    STOCK,
    UPSTREAMS,
    config,
    outside,
    routes,
    server_of,
    server_pid,
)
from tests.contract.running import fake  # noqa: E402

PROTOCOLS: dict[str, type[ProtoBuf | MsgPack]] = {OURS: ProtoBuf, STOCK: MsgPack}
HEADLINE = 16  # connections
TOKEN = "Bearer one-1"


@contextlib.contextmanager
def running(kind: str, folder: Path, path: Path) -> Iterator[tuple[Server, int]]:
    """The server and its process id, while it runs."""
    started = outside(kind, folder, path)
    with started.process:
        try:
            wait_until(lambda: listening(started.server), "a server")
            yield started.server, started.process.pid
        finally:
            started.process.terminate()


def measured(
    kind: str, server: Server, process: int, slots: int, seconds: float
) -> dict[str, float]:
    """One server under so many connections, after a quarter of the time to warm up."""
    protocol = PROTOCOLS[kind]
    drive(server.socket, protocol, slots, Tally(TOKEN), seconds / 4)
    tally, before = Tally(TOKEN), cpu_seconds(process)
    took = drive(server.socket, protocol, slots, tally, seconds)
    count = len(tally.seconds)
    each = statistics.quantiles(tally.seconds, n=100)
    return {
        "rps": count / took,
        "p50_us": each[49] * 1e6,
        "p99_us": each[98] * 1e6,
        "cpu_us": (cpu_seconds(process) - before) / count * 1e6,
        "pdk_calls": tally.pdk_calls / count,
    }


def compare(
    folder: Path, options: argparse.Namespace
) -> dict[int, dict[str, list[dict[str, float]]]]:
    """Each round of each server, by connections."""
    found: dict[int, dict[str, list[dict[str, float]]]] = {
        slots: {OURS: [], STOCK: []} for slots in options.connections
    }
    with fake() as vault, contextlib.ExitStack() as stack:
        servers = {}
        for kind in (OURS, STOCK):
            place = folder / kind
            place.mkdir()
            path = config(vault, place, {"bearer": UPSTREAMS["bearer"]})
            servers[kind] = stack.enter_context(running(kind, place, path))
        for number in range(options.rounds):
            for slots, rounds in found.items():
                for kind in (OURS, STOCK) if number % 2 else (STOCK, OURS):
                    rounds[kind].append(measured(kind, *servers[kind], slots, options.seconds))
    return found


def tell(found: dict[int, dict[str, list[dict[str, float]]]]) -> None:
    """Medians, and the ratio of requests a second."""
    for slots, rounds in found.items():
        for kind, records in rounds.items():
            middle = {key: statistics.median(r[key] for r in records) for key in records[0]}
            print(
                f"{slots:3} connections  {kind:5} {middle['rps']:7.0f} requests/s "
                f"p50 {middle['p50_us']:7.0f} µs  p99 {middle['p99_us']:7.0f} µs  "
                f"CPU {middle['cpu_us']:5.0f} µs each, {middle['pdk_calls']:.0f} PDK calls"
            )
        for key in ("rps", "cpu_us"):
            one = ratio(rounds, OURS, STOCK, key)
            if one is not None:
                print(
                    f"{'':17}ours / stock, {key}: {one.median:.2f} ({one.least:.2f} to {one.most:.2f})"
                )


def write(found: dict[int, dict[str, list[dict[str, float]]]]) -> None:
    """Put the part "kong" into the results."""
    rounds = found[HEADLINE]
    one = ratio(rounds, OURS, STOCK, "rps")
    if one is None:
        return
    part: dict[str, Any] = {
        f"{slots} connections": {
            kind: {key: statistics.median(r[key] for r in records) for key in records[0]}
            for kind, records in by_kind.items()
        }
        for slots, by_kind in found.items()
    }
    told = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join(["python", "benchmarks/kong.py", *sys.argv[1:]]),
        "machine": machine(),
    }
    found_part = {
        "kong_vs_stock": one.median,
        "spread": {"kong_vs_stock": [one.least, one.most]},
        "kong": {"medians": part, "rounds": rounds},
    }
    results.write(found_part, told)


def long(folder: Path, count: int) -> None:
    """Our server's memory, threads and files over ``count`` requests, half of them denied."""
    denied = {"no": {**UPSTREAMS["bearer"], "callers": [{"consumer": "nobody"}]}}
    with fake() as vault:
        upstreams = {"bearer": UPSTREAMS["bearer"], **denied}
        server = server_of(OURS, folder, config(vault, folder, upstreams))
        with Kong(server, routes(list(upstreams))) as kong:
            for tenth in range(11):
                print(
                    f"{tenth * count // 10:8} requests: {footprint(server_pid(folder))}",
                    flush=True,
                )
                if tenth == 10:
                    break
                for _ in range(count // 20):
                    if kong.request("GET", "/bearer").status != 200:
                        raise WrongError("a request that should pass")
                    if kong.request("GET", "/no").status != 403:
                        raise WrongError("a request that should not pass")
                kong.lines.clear()
                for route in kong.routes.values():
                    route.service.received.clear()


def footprint(process: int) -> str:
    """Memory, threads and open files of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return f"{status['VmRSS'].strip()}, {status['Threads'].strip()} threads, {files} files"


def main() -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=numbers, default=[1, HEADLINE, 64])
    parser.add_argument("--long", type=int, metavar="REQUESTS")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    # Short: a unix socket's path has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            if options.long:
                long(Path(folder), options.long)
                return 0
            found = compare(Path(folder), options)
        except WrongError as exc:
            print(f"the measurement failed: {exc}", file=sys.stderr)
            return 1
    tell(found)
    if not options.no_write and HEADLINE in found:
        write(found)
    return 0


def numbers(text: str) -> list[int]:
    """Numbers with commas between them."""
    return [int(one) for one in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
