"""The next server takes over from the one that runs: real Envoy under traffic, without a retry but over TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.certificates import Authority
from tests.integration.faults.bed import GEOCODER, Bed, Times
from tests.patience import PATIENCE
from vaultauthz.cli import main
from vaultauthz.demo.parts import Postgres, Process, free_port, wait_for
from vaultauthz.observe.chain import verify

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
TIMES = {"unix": 10, "tcp": 10, "tls": 2}  # over TLS each wants the one before to have ended


class TakeOverBed(Bed):
    """A bed at a unix socket or a port, whose Envoy asks once and no second time; over TLS as it is printed."""

    def __init__(self, folder: Path, postgres: Postgres, kind: str) -> None:
        self._grpc = 0 if kind == "unix" else free_port()
        self._authority = Authority(folder) if kind == "tls" else None
        self.rounds = TIMES[kind]
        super().__init__(folder, postgres, Times(lease=60, check=5.0))
        self.gone: list[Process] = []

    def _config(self, role_id: str) -> dict[str, Any]:
        document = super()._config(role_id)
        if self._grpc:
            document["listen"]["grpc"] = f"127.0.0.1:{self._grpc}"
        if self._authority:
            pair = self._authority.issue("localhost")
            tls = {"cert": str(pair.cert), "key": str(pair.key)}
            document["listen"]["grpc_tls"] = tls | {"client_ca": str(self._authority.ca)}
        return document

    def _gateway(self) -> dict[str, Any]:
        document = super()._gateway()
        for found in _objects(document):
            if not self._authority:
                found.pop("retry_policy", None)
            if self._authority and found.get("name") == "vaultauthz":
                found["transport_socket"] = _tls(self._authority)
            if self._grpc and "pipe" in found:
                del found["pipe"]
                found["socket_address"] = {"address": "127.0.0.1", "port_value": self._grpc}
        return document

    def take_over(self) -> None:
        """Start the next one, and wait until the one before sends Envoy to it."""
        self.gone.append(self.serve)
        told = len(self.told(message="serving " + self._serving))
        self.serve = Process([*self.serve.argv[:6], "--take-over"], self.folder / "vaultauthz.log")
        self.serve.start()
        self.serve.wait_until(
            lambda: len(self.told(message="serving " + self._serving)) > told, PATIENCE
        )

    def wait_until_gone(self) -> None:
        """Each ends by itself, half a minute after the last connection to it: over TLS that lasts a minute."""
        assert wait_for(lambda: not any(one.running for one in self.gone), 4 * PATIENCE)

    @property
    def one_at_a_time(self) -> bool:
        """Whether a server keeps its place until the one before it has ended."""
        return self._authority is not None

    @property
    def _serving(self) -> str:
        where = f"127.0.0.1:{self._grpc}" if self._grpc else f"unix://{self.folder}/grpc.sock"
        return f"Envoy's checks on {where}"


def _tls(authority: Authority) -> dict[str, Any]:
    pair = authority.issue("gateway")
    context = {
        "alpn_protocols": ["h2"],
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(pair.cert)},
                "private_key": {"filename": str(pair.key)},
            }
        ],
        "validation_context": {"trusted_ca": {"filename": str(authority.ca)}},
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    typed = {"@type": kind, "sni": "localhost", "common_tls_context": context}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def _objects(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from _objects(one)


@pytest.fixture(params=["unix", "tcp", "tls"])
def bed(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres
) -> Iterator[TakeOverBed]:
    """Each kind of address; ``make test-grpcio`` has the other transport."""
    with TakeOverBed(tmp_path, postgres, request.param) as made:
        yield made
        for process in (*made.gone, made.serve):
            process.kill()


def test_ten_times(bed: TakeOverBed) -> None:
    """Each request is answered 200 and has its line in one chain; Vault has the last one's login and lease alone."""
    with bed.traffic() as traffic, bed.traffic(GEOCODER) as other:
        traffic.wait_for_200()
        for _ in range(bed.rounds):
            bed.take_over()
            traffic.wait_for_200()
            if bed.one_at_a_time:
                bed.wait_until_gone()
        bed.wait_until_gone()
        other.wait_for_200()
    assert [one.returncode for one in bed.gone] == [0] * bed.rounds
    assert set(traffic.statuses()) == set(other.statuses()) == {200}
    assert len(bed.tokens()) == len(bed.leases()) == len(bed.postgres.users()) == 1
    asked = traffic.statuses().total() + other.statuses().total()
    assert asked > 20 * bed.rounds
    bed.assert_none_dead()
    assert bed.serve.terminate(timeout=PATIENCE) == 0
    assert not bed.tokens()
    assert not bed.leases()
    bed.assert_clean_logs()
    bed.assert_quiet()
    _assert_whole(bed, asked)


def _assert_whole(bed: TakeOverBed, asked: int) -> None:
    file = bed.folder / "audit.jsonl"
    with file.open("rb") as log:
        lines = log.readlines()
    assert list(verify(lines)) == []
    assert main(["audit", "verify", str(file)]) == 0
    told = [json.loads(line)["event"] for line in lines]
    # A check that Envoy has asked again, which it may over TLS, has two.
    assert 0 <= told.count("request.allowed") - asked <= (2 if bed.one_at_a_time else 0)
    assert told.count("token.revoked") == bed.rounds + 1
