"""`vaultauthz serve` with its audit log on what breaks, and clients that count its answers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import Any

import grpc

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from vaultauthz._pb.ext_authz_pb2 import AttributeContext, CheckRequest, CheckResponse
from vaultauthz.demo.client import get_unix

CHECK = "/envoy.service.auth.v3.Authorization/Check"
PATIENCE = 30.0  # seconds; what takes so long never comes
LENGTH = 400  # characters of a path: so lines are long, and a pipe is soon full
_CONFIG = """\
vault: {{address: "{vault}", timeout: 2s}}
stages:
  production: {{auth: {{method: approle, role_id: gateway, secret_id_file: secret_id}}}}
upstreams:
  a:
    secret: {{kv: secret/a}}
    inject: [{{header: {{name: X-Api-Key, value: "{{key}}"}}}}]
    callers: any
listen:
  grpc: unix://{folder}/grpc.sock
  admin: unix://{folder}/admin.sock
audit: {audit}
"""


def request(number: int) -> CheckRequest:
    """A check that has its number as the request's id."""
    http = AttributeContext.HttpRequest(
        method=b"GET",
        host=b"h",
        path=b"/" + b"x" * LENGTH,
        headers={"x-request-id": str(number).encode()},
    )
    return CheckRequest(
        attributes=AttributeContext(
            request=AttributeContext.Request(http=http), context_extensions={"upstream": "a"}
        )
    )


class Client:
    """Asks on one connection."""

    def __init__(self, socket: Path) -> None:
        self.channel = grpc.insecure_channel(
            f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._call: Any = self.channel.unary_unary(
            CHECK,
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )

    def check(self, number: int) -> int:
        """The HTTP status; 200 when it is let through."""
        answer = self._call(request(number), timeout=PATIENCE)
        return int(answer.denied_response.status.code) or 200 if answer.status.code else 200


@dataclass
class Bed:
    """A server in ``folder`` that is ready."""

    folder: Path
    process: subprocess.Popen[bytes]

    def client(self) -> Client:
        """Another client."""
        return Client(self.folder / "grpc.sock")

    def ready(self) -> int:
        """The status of /readyz; 0 when nobody answers."""
        with contextlib.suppress(OSError, HTTPException):
            return get_unix(self.folder / "admin.sock", "/readyz").status
        return 0

    @property
    def log(self) -> str:
        """What it has said on standard error."""
        return (self.folder / "stderr").read_text()


@contextlib.contextmanager
def served(
    vault: FakeVault, folder: Path, audit: str, stdout: int = subprocess.DEVNULL
) -> Iterator[Bed]:
    """It runs, with the section ``audit`` so, until the block ends."""
    vault.put_kv("secret/a", {"key": "k"})
    secret_id = folder / "secret_id"
    secret_id.touch(0o600)
    secret_id.write_text("s3cr3t-id")
    config = folder / "c.yaml"
    config.write_text(_CONFIG.format(vault=vault.address, folder=folder, audit=audit))
    argv: list[str | Path] = [sys.executable, "-m", "vaultauthz", "serve", "-c", config]
    with (folder / "stderr").open("ab") as errors:
        process = subprocess.Popen(argv, stdout=stdout, stderr=errors)
    bed = Bed(folder, process)
    try:
        assert wait_until(lambda: bed.ready() == 200, PATIENCE), bed.log
        yield bed
    finally:
        process.kill()
        process.wait()


class Load:
    """Clients that ask as fast as they are answered, until nobody answers."""

    def __init__(self, bed: Bed, clients: int) -> None:
        self.answers: list[list[tuple[int, int]]] = [[] for _ in range(clients)]
        self._threads = [
            Thread(target=self._ask, args=(bed.client(), number, answers), daemon=True)
            for number, answers in enumerate(self.answers)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: Client, number: int, answers: list[tuple[int, int]]) -> None:
        with contextlib.suppress(grpc.RpcError):
            while True:
                answers.append((number, client.check(number)))
                number += len(self.answers)

    def allowed(self) -> set[int]:
        """The numbers of the requests that were let through so far."""
        return {number for part in self.answers for number, status in list(part) if status == 200}

    def refused(self) -> int:
        """How many were not."""
        return sum(status != 200 for part in self.answers for _, status in list(part))

    def end(self) -> None:
        """Wait until all have heard that nobody answers."""
        for thread in self._threads:
            thread.join(PATIENCE)


def recorded(data: bytes) -> set[int]:
    """The numbers of the requests that a log says were let through."""
    found = set()
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if record["event"] == "request.allowed":
                found.add(int(record["request_id"]))
    return found


def drain(reader: int) -> bytes:
    """All that is in a pipe whose other end is closed."""
    data = b""
    while part := os.read(reader, 1 << 16):
        data += part
    return data
