"""How long a credential is on its way: from our decision to the upstream that reads it.

    python benchmarks/on_the_way.py [--requests 20000] [--hogs 4] [--json]

Real OpenBao, `vaultauthz serve` and Envoy, started here. The decision is the time of its
line in the audit log, the arrival when a server behind Envoy has read the header; both by
this machine's clock. With `--hogs`, so many processes burn the cores meanwhile. What it
shows bounds the margin before the end of a lease: `core.credential.on_the_way`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from compared import bootstraps
from compared.bootstraps import Places
from compared.servers import Ours, ours, settle

from vaultauthz.demo.parts import Envoy, free_port, wait_for

_CONNECTIONS = 16
_PACE = 0.02  # seconds between two requests of one connection: it is no test of throughput
_HOST = "api-0.example.com"
_SHARES = (0.5, 0.9, 0.99, 0.999, 1.0)
_BURN = "while True: pass"


class _Arrivals(BaseHTTPRequestHandler):
    """Writes down when each path arrived with a credential."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Note it, and answer."""
        if self.headers.get("x-api-key"):
            self.seen.append(f"{self.path} {time.time()}")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its signature
        """No access log."""


def _upstream() -> None:
    """In a process of its own: serve until standard input ends, then print the arrivals."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Arrivals)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    print("\n".join(_Arrivals.seen))


@contextlib.contextmanager
def _hogs(count: int) -> Iterator[None]:
    hogs = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def _send(port: int, who: int, count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number in range(count):
        connection.request("GET", f"/{who}-{number}", headers={"Host": _HOST})
        connection.getresponse().read()
        time.sleep(_PACE)


def _passes(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/warm", headers={"Host": _HOST})
    return connection.getresponse().status == 200


def _decided(server: Ours) -> dict[str, float]:
    """When each path was allowed, in seconds since 1970."""
    settle(server)
    lines = (json.loads(line) for line in server.audit.read_text().splitlines())
    allowed = (line for line in lines if line["event"] == "request.allowed")
    return {line["path"]: datetime.fromisoformat(line["time"]).timestamp() for line in allowed}


def _measure(folder: Path, requests: int, hogs: int) -> list[float]:
    argv = [sys.executable, __file__, "--upstream"]
    with (
        ours(folder) as server,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as upstream,
    ):
        assert upstream.stdout is not None
        port = free_port()
        places = Places(port, int(upstream.stdout.readline()), server.socket)
        files = bootstraps.printed(server.config, server.config)
        with Envoy(bootstraps.ext_authz(files, places), folder / "envoy"):
            if not wait_for(lambda: _passes(port), 30):
                raise SystemExit("no request passes")
            with _hogs(hogs):
                each = requests // _CONNECTIONS
                senders = [
                    threading.Thread(target=_send, args=(port, who, each))
                    for who in range(_CONNECTIONS)
                ]
                for sender in senders:
                    sender.start()
                for sender in senders:
                    sender.join()
            arrived, _ = upstream.communicate()
        decided = _decided(server)
    pairs = (line.rsplit(" ", 1) for line in arrived.splitlines())
    return sorted(float(at) - decided[path] for path, at in pairs if path != "/warm")


def main() -> None:
    """Measure, and print the percentiles in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--hogs", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        _upstream()
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = _measure(Path(folder), options.requests, options.hogs)
    at = {share: found[min(len(found) - 1, int(share * len(found)))] * 1e3 for share in _SHARES}
    told = {f"p{share * 100:g}_ms": round(value, 2) for share, value in at.items()}
    if options.json:
        print(json.dumps({"requests": len(found), "hogs": options.hogs, "load": load, **told}))
        return
    print(f"{len(found)} requests, {options.hogs} hogs beside, load {load:.1f} at the start")
    print("  ".join(f"{name} {value}" for name, value in told.items()))


if __name__ == "__main__":
    main()
