"""Every door under the cases that all answer alike: Envoy's by both transports, and both of Kong's."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contract import kong_bed
from tests.contract.door_cases import UPSTREAMS, DoorCases, Outcome, Sent, Way
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.kong import Consumer, Kong
from tests.contract.kong_bed import STOCK, our_server, outside, routes
from tests.contract.test_server import CHECK, Client, client
from tests.patience import PATIENCE
from vaultauthz._pb.ext_authz_pb2 import AttributeContext, CheckRequest, CheckResponse
from vaultauthz.admin.client import AdminAccess, AdminClient
from vaultauthz.listening import Address

_WAITS = 5.0  # seconds that the gateway waits for a check


class KongWay:
    """The stand-in's Kong."""

    def __init__(self, kong: Kong) -> None:
        self._kong = kong

    def send(self, sent: Sent) -> Outcome:
        """Send a request through it."""
        caller = Consumer(sent.caller) if sent.caller else None
        path = f"/{sent.upstream}{sent.path}"
        answer = self._kong.request(sent.method, path, headers=sent.headers, consumer=caller)
        if answer.received is None:
            told = answer.json()
            assert answer.header("content-type") == "application/json"
            after = answer.header("retry-after")
            return Outcome(answer.status, told["error"], after, request_id=told["request_id"])
        headers: dict[str, list[str]] = {}
        for name, value in answer.received.headers:
            headers.setdefault(name.lower(), []).append(value)
        return Outcome(200, headers=headers, query=answer.received.query)


class EnvoyWay:
    """ext_authz, its answer carried out as Envoy does it."""

    def __init__(self, made: Client) -> None:
        self._client = made

    def send(self, sent: Sent) -> Outcome:
        """Send a request through it."""
        data = self._client.call(CHECK, _checked(sent), timeout=_WAITS)
        response = CheckResponse.FromString(data)
        if not response.HasField("ok_response"):
            denied = response.denied_response
            told = {o.header.key: o.header.value.decode() for o in denied.headers}
            body = json.loads(denied.body)
            after = told.get("retry-after")
            return Outcome(denied.status.code, body["error"], after, request_id=body["request_id"])
        ok = response.ok_response
        headers: dict[str, list[str]] = {}
        for name, value in sent.headers:
            headers.setdefault(name.lower(), []).append(value)
        headers |= {o.header.key: [o.header.value.decode()] for o in ok.headers}
        for name in ok.headers_to_remove:
            headers.pop(name, None)
        gone = {*ok.query_parameters_to_remove, *(p.key for p in ok.query_parameters_to_set)}
        pairs = [p for p in sent.path.partition("?")[2].split("&") if p]
        kept = [pair for pair in pairs if pair.partition("=")[0] not in gone]
        query = "&".join([*kept, *(f"{p.key}={p.value}" for p in ok.query_parameters_to_set)])
        return Outcome(200, headers=headers, query=query)


def _checked(sent: Sent) -> bytes:
    http = AttributeContext.HttpRequest(
        method=sent.method.encode(),
        path=f"/{sent.upstream}{sent.path}".encode(),
        host=b"api.test",
        headers={name.lower(): value.encode() for name, value in sent.headers},
        id="1",
    )
    attributes = AttributeContext(request=AttributeContext.Request(http=http))
    attributes.source.principal = sent.caller
    attributes.context_extensions["upstream"] = sent.upstream
    return CheckRequest(attributes=attributes).SerializeToString()


class EnvoyCases(DoorCases):
    """`vaultauthz serve`, asked as Envoy asks."""

    gateway = "envoy"
    transport: ClassVar[str]

    @classmethod
    def configured(
        cls, vault: FakeVault, folder: Path, upstreams: Mapping[str, Any] | None = None
    ) -> Path:
        """See ``DoorCases``."""
        listen = {
            "admin": f"unix://{folder}/admin.sock",
            "grpc": f"unix://{folder}/grpc.sock",
            "transport": cls.transport,
        }
        wanted = UPSTREAMS if upstreams is None else upstreams
        return kong_bed.config(vault, folder, wanted, listen=listen)

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, folder: Path, path: Path, names: list[str], environment: Mapping[str, str]
    ) -> Iterator[Way]:
        """See ``DoorCases``."""
        command = [sys.executable, "-P", "-m", "vaultauthz", "serve", "-c", str(path)]
        with (folder / "serve.log").open("wb") as told:
            process = subprocess.Popen(command, env=dict(environment), stderr=told)
        try:
            assert wait_until(lambda: _is_ready(folder)), (folder / "serve.log").read_text()
            with client(f"unix://{folder}/grpc.sock") as made:
                yield EnvoyWay(made)
        finally:
            process.terminate()
            status = process.wait(PATIENCE)
        assert status == 0


def _is_ready(folder: Path) -> bool:
    """Whether everything that is not optional has its credential."""
    with contextlib.suppress(Exception):
        asked = AdminClient(AdminAccess(Address(path=folder / "admin.sock")))
        rows = [row for row in asked.leases() if row["upstream"] and not row["optional"]]
        return bool(rows) and all(row["credential_id"] for row in rows)
    return False


@pytest.mark.native
class TestEnvoyNative(EnvoyCases):
    transport = "native"


class TestEnvoyGrpcio(EnvoyCases):
    transport = "grpcio"


class TestKong(DoorCases):
    """Our plugin server, as Kong starts it."""

    gateway = "kong"

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, folder: Path, path: Path, names: list[str], environment: Mapping[str, str]
    ) -> Iterator[Way]:
        """See ``DoorCases``."""
        server = replace(our_server(folder, path), environment=environment)
        with Kong(server, routes(names)) as kong:
            yield KongWay(kong)


class TestKongStock(DoorCases):
    """Kong's own server; one that Kong ends has no time to revoke, so that the test ends it."""

    gateway = "kong"

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, folder: Path, path: Path, names: list[str], environment: Mapping[str, str]
    ) -> Iterator[Way]:
        """See ``DoorCases``."""
        started = outside(STOCK, folder, path, environment)
        kong = Kong(started.server, routes(names, STOCK))
        try:
            kong.wait_for_server()
            yield KongWay(kong)
        finally:
            started.process.terminate()
            status = started.process.wait(PATIENCE)
            kong.close()
        assert status == 0
