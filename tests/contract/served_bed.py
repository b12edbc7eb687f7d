"""A whole server for Envoy over a fake Vault, and every way to ask how it is."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.running import settings
from tests.patience import PATIENCE
from vaultauthz._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from vaultauthz.cli import main
from vaultauthz.config import parse
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.demo.client import get_unix
from vaultauthz.envoy.door import EnvoyDoor
from vaultauthz.envoy.server import HEALTH_METHOD
from vaultauthz.service import Service


@dataclass
class Asked:
    """A whole server, and who asks it."""

    service: Service
    folder: Path
    document: dict[str, Any]  # its configuration

    def readyz(self, query: str = "") -> tuple[int, Any]:
        """The status of /readyz, and what it says."""
        reply = get_unix(self.folder / "a.sock", f"/readyz{query}")
        return reply.status, reply.body

    def scrape(self) -> str:
        """What a Prometheus gets."""
        return self.get("/metrics")

    def get(self, path: str) -> str:
        """What the admin server answers."""
        connection = http.client.HTTPConnection("localhost")
        with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.folder / "a.sock"))
            connection.sock = sock
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def serving(self) -> bool:
        """What Envoy's health check is told."""
        with grpc.insecure_channel(f"unix:{self.folder}/g.sock") as channel:
            check = channel.unary_unary(
                HEALTH_METHOD,
                HealthCheckRequest.SerializeToString,
                HealthCheckResponse.FromString,
            )
            answer = check(HealthCheckRequest(), timeout=PATIENCE, wait_for_ready=True)
        return bool(answer.status == HealthCheckResponse.SERVING)

    def gauge(self, series: str) -> float:
        """A value of /metrics."""
        lines = self.service.metrics.text().splitlines()
        (value,) = (line.split()[-1] for line in lines if line.startswith(f"{series} "))
        return float(value)

    def waits_for(self, *upstreams: str) -> bool:
        """Whether it is for these."""
        waiting = self.readyz()[1].get("waiting", [])
        return {one["upstream"] for one in waiting} == set(upstreams)

    def leases(self, *more: str) -> int:
        """The status of the command."""
        return main(["leases", "--admin", f"unix://{self.folder}/a.sock", *more])

    def row(self, upstream: str = "pay") -> LeaseRow:
        """An upstream's lease, as it stands."""
        rows = self.service.engine.keeper.rows()
        return next(row for row in rows if row.upstream == upstream)


@contextlib.contextmanager
def served(
    vault: FakeVault, folder: Path, upstreams: dict[str, Any], **tls: str
) -> Iterator[Asked]:
    """Serves these upstreams; ``tls`` is the configuration's, towards Vault."""
    listen = {"grpc": f"unix://{folder}/g.sock", "admin": f"unix://{folder}/a.sock"}
    audit = {"file": f"{folder}/audit.jsonl"}
    document = settings(vault, **upstreams) | {"listen": listen, "audit": audit}
    document["vault"] |= {"tls": tls} if tls else {}
    service = Service(parse(yaml.safe_dump(document), "c.yaml", folder, {}), EnvoyDoor)
    service.start()
    try:
        yield Asked(service, folder, document)
    finally:
        service.stop()
