"""What whoever reaches `listen.grpc` gets, as docs/architecture.md ("Who reaches the gRPC socket") says."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.contract.sds_client import SECRETS, EnvoyLine
from tests.integration.served import Login, Served, answer_of, check_request
from tests.patience import PATIENCE
from tests.unit.envoy.als_entries import certificate, entry, message, note
from vaultauthz._pb.ext_authz_pb2 import CheckRequest
from vaultauthz.demo.parts import OpenBao

pytestmark = pytest.mark.integration

CHECK = "/envoy.service.auth.v3.Authorization/Check"
LOGS = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
POLICY = """
path "socket/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""
OPEN_KEY, GUARDED_KEY = "socket-key-1", "socket-key-2"
UPSTREAMS = """
upstreams:
  open:
    secret: {kv: socket/open}
    inject: [{bearer: "{api_key}"}]
    callers: any
  guarded:
    secret: {kv: socket/guarded}
    inject: [{bearer: "{api_key}"}]
    callers: [{principal: spiffe://corp/checkout, claims: {scope: pay}}]
routes:
  - {host: only.test, upstream: open}
"""


@pytest.fixture(scope="module")
def server(bao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An upstream for everybody, and one for a caller with a certificate and a claim."""
    for name, key in (("open", OPEN_KEY), ("guarded", GUARDED_KEY)):
        bao.put_kv(f"socket/{name}", {"api_key": key})
    login = Login(bao.address, *bao.enable_approle("socket", POLICY))
    with Served(tmp_path_factory.mktemp("socket"), login, UPSTREAMS) as served:
        served.wait_ready()
        yield served


@pytest.fixture
def channel(server: Served) -> Iterator[grpc.Channel]:
    """A stranger's connection."""
    with grpc.insecure_channel(f"unix:{server.socket}") as made:
        yield made


def call(channel: grpc.Channel, method: str, data: bytes) -> Any:
    """A call with bytes; the answer's."""
    return channel.unary_unary(method, bytes, bytes)(data, timeout=PATIENCE)


def test_any_credential_in_anybodys_name(channel: grpc.Channel, server: Served) -> None:
    """The peer says who calls, with which claims, to which upstream; it gets the credential, and so says the line."""
    request = CheckRequest.FromString(check_request("guarded", host="elsewhere.test"))
    request.attributes.source.principal = "spiffe://corp/checkout"
    claims = request.attributes.metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]
    claims.update({"any": {"sub": "alice", "scope": "pay"}})
    answer = answer_of(call(channel, CHECK, request.SerializeToString()))
    assert answer.headers["authorization"] == f"Bearer {GUARDED_KEY}"
    line = server.audited("request.allowed", upstream="guarded")
    assert line["caller"] == "spiffe://corp/checkout, alice"


def test_without_them_it_is_denied(channel: grpc.Channel) -> None:
    """What an honest gateway tells of a stranger."""
    answer = answer_of(call(channel, CHECK, check_request("guarded")))
    assert (answer.status, answer.error) == (403, "caller_denied")


def test_secrets_by_sds(channel: grpc.Channel) -> None:
    """Those of upstreams whose callers nobody asks about here; of the others none."""
    with EnvoyLine(channel, f"{SECRETS}/StreamSecrets", "stranger") as line:
        line.want("production/guarded", "production/open")
        line.hear_until(lambda has: bool(has.get("production/open")))
        assert line.has["production/open"] == f"Bearer {OPEN_KEY}"
        assert not line.has.get("production/guarded")


def test_forged_access_lines(channel: grpc.Channel, server: Served) -> None:
    """A request that never was is in the audit log, with a caller, host and path of the peer's choice."""
    tags = {"vaultauthz.stage": b"production", "vaultauthz.upstream": b"guarded"}
    forged = entry(start=time.time() - 1, tags=tags, path=b"/forged")
    certificate(forged).subject = b"CN=somebody else"
    stream = channel.stream_unary(LOGS, bytes, bytes)
    stream(iter([message([forged], "any-node")]), timeout=PATIENCE)
    line = server.audited("request.allowed", path="/forged")
    assert (line["upstream"], line["caller"]) == ("guarded", "CN=somebody else")


def test_a_rotation(channel: grpc.Channel, server: Served) -> None:
    """A 401 that never was has the credential in use fetched anew; the check told its id."""
    call(channel, CHECK, check_request("open", host="rotated.test"))
    told = server.audited("request.allowed", host="rotated.test")
    forged = entry(401, start=time.time() - 1, tags={})
    told_by_us = {key: told[key] for key in ("upstream", "stage", "credential_id")}
    note(forged, "envoy.filters.http.ext_authz", told_by_us)
    stream = channel.stream_unary(LOGS, bytes, bytes)
    stream(iter([message([forged], "any-node")]), timeout=PATIENCE)
    line = server.audited("credential.rejected")
    assert line["credential_id"] == told["credential_id"]


@pytest.mark.parametrize(
    "method",
    [
        "/envoy.service.auth.v3.Authorization/Rotate",
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/Other",
        "/vaultauthz.v1.Admin/Revoke",
    ],
)
def test_nothing_else_is_there(channel: grpc.Channel, method: str) -> None:
    """No call that rotates, revokes or changes anything by name."""
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, method, b"")
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_who_may_open_it(server: Served) -> None:
    """The owner and the socket's group; nobody else."""
    found = server.socket.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_gid == server.folder.stat().st_gid
