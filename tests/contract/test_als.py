"""Access logs over real gRPC, and what a 401 does to an engine that is at work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import FAST
from tests.contract.running import Running, database, fake, kv, settings
from tests.patience import PATIENCE
from tests.unit.envoy.als_entries import NODE, Heard, checked, entry, message
from vaultauthz.config.values import Listen
from vaultauthz.core import events
from vaultauthz.core.decision import Allowed, Decision
from vaultauthz.core.request import Request
from vaultauthz.envoy.access_logs.history import CredentialHistory
from vaultauthz.envoy.access_logs.stream import METHOD, MOST_BYTES, AccessLogService
from vaultauthz.envoy.rpc import collected
from vaultauthz.envoy.server import GrpcServer

CHECK = "/envoy.service.auth.v3.Authorization/Check"
AT_ONCE = replace(FAST, rejected_gap=0.0)


def allow(_: Request) -> Decision:
    """A check that lets everything through."""
    return Allowed("u", "s", None)


@dataclass
class Door:
    """A server with access logs, and a channel to it."""

    heard: Heard
    channel: grpc.Channel

    def send(self, messages: Iterator[bytes]) -> bytes:
        """A stream from its first message to its answer."""
        call = self.channel.stream_unary(
            METHOD, request_serializer=bytes, response_deserializer=bytes
        )
        answer = call(messages, timeout=PATIENCE)
        assert isinstance(answer, bytes)
        return answer


@pytest.fixture(params=["native", "grpcio"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    """By either transport, on a unix socket."""
    heard = Heard()
    logs = AccessLogService(CredentialHistory(), heard.listeners())
    address = f"unix://{tmp_path}/s"
    listen = Listen(grpc=address, transport=request.param)
    server = GrpcServer(listen, allow, lambda: True, streams={METHOD: collected(logs.stream)})
    server.start()
    with grpc.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield Door(heard, channel)
    server.stop(1.0)


def test_a_stream_is_taken_in(door: Door) -> None:
    """Every entry of every message is heard, and the end is answered with an empty message."""
    messages = [message([entry(), checked()], node=NODE if not n else "") for n in range(50)]
    assert door.send(iter(messages)) == b""
    assert len(door.heard.accesses) == 50
    assert door.heard.answers["production", "payments", 200] == 100
    assert {trial[3] for trial in door.heard.trials} == {200}
    assert len(door.heard.trials) >= 50  # those whose credential is known


def test_junk_leaves_the_stream_open(door: Door) -> None:
    """What follows on the same stream is still heard."""
    junk = [b"\xff" * 100, b"\0" * (MOST_BYTES + 1), message([b"\xff"]), message([entry()])]
    assert door.send(iter(junk)) == b""
    assert door.heard.ignored == {"unreadable": 2, "too_large": 1}
    assert len(door.heard.accesses) == 1


def test_a_flood_does_not_keep_checks_waiting(door: Door) -> None:
    """While four streams send without a pause, checks are answered."""
    flooding = threading.Event()
    data = message([entry() for _ in range(500)])

    def endless() -> Iterator[bytes]:
        while not flooding.is_set():
            yield data

    streams: Any = [
        threading.Thread(target=door.send, args=(endless(),), daemon=True) for _ in range(4)
    ]
    for one in streams:
        one.start()
    check = door.channel.unary_unary(CHECK, request_serializer=bytes, response_deserializer=bytes)
    assert wait_until(lambda: bool(door.heard.accesses))
    for _ in range(100):
        assert check(b"", timeout=PATIENCE)
    flooding.set()
    for one in streams:
        one.join(PATIENCE)
        assert not one.is_alive()


# --- the engine ---


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with a database."""
    with fake() as made:
        yield made


def in_use(running: Running, upstream: str = "pay") -> str:
    """The id of the credential in use."""
    found = running.engine.shared("production", upstream)
    assert found
    assert found[1].credential
    return found[1].credential.credential_id


def test_a_401_brings_another_credential(vault: FakeVault) -> None:
    """The credential in use is replaced, and its first 401 is announced once."""
    with Running(settings(vault), AT_ONCE) as running:
        running.wait_ready()
        first, user = in_use(running), running.sent()
        assert running.engine.answered_401("pay", "production", first)
        assert wait_until(lambda: running.sent() != user)
        (rejected,) = running.named(events.REJECTED)
        assert (rejected.stage, rejected.upstream) == ("production", "pay")
        assert (rejected.credential_id, bool(rejected.lease_id)) == (first, True)


def test_an_old_ones_401_leads_to_nothing(vault: FakeVault) -> None:
    """Nor does one of an upstream or a stage that there is not."""
    with Running(settings(vault), AT_ONCE) as running:
        running.wait_ready()
        user, calls = running.sent(), len(vault.heard)
        for call in (
            ("pay", "production", "old"),
            ("pay", "staging", in_use(running)),
            ("geo", "production", in_use(running)),
        ):
            assert not running.engine.answered_401(*call)
        assert (running.sent(), len(vault.heard)) == (user, calls)
        assert not running.named(events.REJECTED)


def test_a_young_ones_401_waits(vault: FakeVault) -> None:
    """However often it is told, a credential of a moment ago is kept: the next is no better."""
    with Running(settings(vault), FAST) as running:
        running.wait_ready()
        user, first = running.sent(), in_use(running)
        assert all(running.engine.answered_401("pay", "production", first) for _ in range(100))
        assert running.sent() == user
        assert len(running.named(events.REJECTED)) == 1


def test_a_callers_own_lease_is_replaced(vault: FakeVault) -> None:
    """Under `per: caller` the 401 concerns that caller's lease and nobody else's."""
    document = settings(vault, pay=database("pay", per="caller"))
    with Running(document, AT_ONCE) as running:
        running.wait_ready()
        before = {name: running.sent(principal=name) for name in ("alice", "bob")}
        row = next(r for r in running.engine.keeper.rows() if r.caller == "alice")
        assert running.engine.answered_401("pay", "production", row.credential_id)
        assert wait_until(lambda: running.sent(principal="alice") != before["alice"])
        assert running.sent(principal="bob") == before["bob"]


def test_a_requests_own_lease_is_not_replaced(vault: FakeVault) -> None:
    """Under `per: request` it is never used again, so nobody needs another."""
    document = settings(vault, pay=database("pay", per="request"), geo=kv("one"))
    with Running(document, AT_ONCE) as running:
        running.wait_ready()
        running.sent()
        (issued,) = running.named(events.ISSUED, "pay")
        assert not running.engine.answered_401("pay", "production", issued.credential_id)
