"""What one check costs a whole server: CPU and throughput of each way to serve, by h2load.

    apt-get install nghttp2-client
    python benchmarks/check_server.py [--rounds 5] [--calls 30000]

Ways: our two transports, and `pygrpc_native.server()` around the same handler with a pool of
four threads and with an executor that runs calls in place, which are the ways not taken.
Rounds are interleaved, medians printed: read them as ratios.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pygrpc_native
from check_micro import check_request

from vaultauthz.config.values import Listen
from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import Allowed
from vaultauthz.core.injection import Mutation
from vaultauthz.envoy.ext_authz import METHOD, SERVICE, Check
from vaultauthz.envoy.server import GrpcServer

WAYS = ("native", "grpcio", "server-pool", "server-inline")


class InPlace(Executor):
    """Runs each call in the thread that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it; the result is always there at once."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def serve(way: str) -> None:
    """Serve until standard input ends; prints the port, and for each line its CPU seconds."""
    mutation = Mutation(headers=(("authorization", "Basic cGF5bWVudHM6c2VjcmV0"),))
    allowed = Allowed("payments", "production", Credential(mutation, "c-1", "lease/1", 9e9))
    if way.startswith("server"):
        check = Check(lambda _: allowed)
        executor = InPlace() if way == "server-inline" else ThreadPoolExecutor(4)
        native = pygrpc_native.server(executor)
        handler = grpc.unary_unary_rpc_method_handler(lambda data, _: check.answer(data))
        native.add_registered_method_handlers(SERVICE, {"Check": handler})
        port = native.add_insecure_port("127.0.0.1:0")
        native.start()
    else:
        ours = GrpcServer(
            Listen(grpc="127.0.0.1:0", transport=way), lambda _: allowed, lambda: True
        )
        ours.start()
        port = ours.port
    print(port, flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)


def asked(server: subprocess.Popen[str]) -> float:
    """The CPU seconds that the server has used."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write("\n")
    server.stdin.flush()
    return float(server.stdout.readline())


def measure(way: str, calls: int, body: Path) -> tuple[float, float]:
    """CPU microseconds of the server for each check, and checks a second."""
    command = [sys.executable, __file__, "--serve", way]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}{METHOD}"
        load = ["h2load", "-c4", "-m4", "-d", str(body), "-Hcontent-type: application/grpc"]
        subprocess.run([*load, "-n2000", "-Hte: trailers", url], check=True, capture_output=True)
        before = asked(server)
        done = subprocess.run(
            [*load, f"-n{calls}", "-Hte: trailers", url], check=True, capture_output=True, text=True
        )
        cpu = asked(server) - before
        server.kill()
    found = re.search(r"([\d.]+) req/s", done.stdout)
    assert found is not None, done.stdout
    assert f"{calls} 2xx" in done.stdout, done.stdout
    return cpu / calls * 1e6, float(found.group(1))


def main() -> None:
    """Measure each way in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=30_000)
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if shutil.which("h2load") is None:
        parser.error("h2load is missing: apt-get install nghttp2-client")
    results: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    data = check_request()
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        body.write_bytes(b"\0" + struct.pack(">I", len(data)) + data)
        for _ in range(options.rounds):
            for way, found in results.items():
                found.append(measure(way, options.calls, body))
    for way, found in results.items():
        cpu, rate = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"{way:14} {cpu:6.1f} µs CPU for each check {rate:9.0f} checks/s")


if __name__ == "__main__":
    main()
