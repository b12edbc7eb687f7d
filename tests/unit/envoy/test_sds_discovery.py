"""Streams without sockets: who is told of a change, and what is written down about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.envoy.sds_world import STAGE, World
from vaultauthz._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Node,
    Secret,
    Status,
)
from vaultauthz.core.events import SDS_DELIVERED, SDS_REFUSED, SDS_WITHDRAWN, Event
from vaultauthz.envoy.rpc import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, Inbox, RpcError
from vaultauthz.envoy.sds import discovery as module
from vaultauthz.envoy.sds.discovery import Discovery
from vaultauthz.envoy.sds.subscription import SECRET_TYPE

SECRETS = "/envoy.service.secret.v3.SecretDiscoveryService"
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
NODE = Node(id="edge-1", cluster="edge")
GEO = f"{STAGE}/geo"


class Made:
    """A world, the service in front of it, and what it announces."""

    def __init__(self) -> None:
        self.world = World()
        self.world.add("geo")
        self.events: list[Event] = []
        self.sds = Discovery(self.world, self.world.clock, self.events.append)

    def give(self, name: str, key: str, lasts: float = 100.0) -> None:
        """A credential arrives, and the keeper says so."""
        self.world.give(name, key, lasts)
        self.sds.changed(STAGE, name)

    def open(self, method: str = f"{SECRETS}/StreamSecrets") -> Line:
        """A stream."""
        return Line(self.sds, method)

    def told(self, name: str) -> list[tuple[str, str, str, str, str]]:
        """The events of this name: stage, upstream, lease, credential and Envoy."""
        return [
            (e.stage, e.upstream, e.lease_id, e.credential_id, e.caller)
            for e in self.events
            if e.name == name
        ]


class Line:
    """One stream, driven by the test's own thread: reading where nothing comes would hang."""

    def __init__(self, sds: Discovery, method: str) -> None:
        self.inbox = Inbox()
        self._delta = "Delta" in method
        self.answers: Iterator[bytes] = sds.streams[method].answers(self.inbox)

    def send(self, message: Any) -> None:
        """Something from Envoy."""
        self.inbox.put(message if isinstance(message, bytes) else message.SerializeToString())

    def ask(self, *names: str, **more: Any) -> None:
        """A state-of-the-world request."""
        self.send(DiscoveryRequest(node=NODE, resource_names=names, **more))

    def next(self) -> Any:
        """The next answer."""
        data = next(self.answers)
        form = DeltaDiscoveryResponse if self._delta else DiscoveryResponse
        return form.FromString(data)

    def shown(self) -> dict[str, str]:
        """The next answer's names and headers' values, once acknowledged."""
        answer = self.next()
        secrets = [
            Secret.FromString(getattr(resource, "resource", resource).value)
            for resource in answer.resources
        ]
        names = [secret.name for secret in secrets]
        if self._delta:
            self.send(DeltaDiscoveryRequest(type_url=SECRET_TYPE, response_nonce=answer.nonce))
        else:
            self.ask(*names, type_url=SECRET_TYPE, response_nonce=answer.nonce)
        return {s.name: s.generic_secret.secret.inline_bytes.decode() for s in secrets}

    def rest(self) -> list[bytes]:
        """The client ends the stream; what it is still sent."""
        self.inbox.end()
        return list(self.answers)


@pytest.fixture
def made() -> Made:
    """One upstream, ``geo``."""
    return Made()


def test_a_change_is_pushed(made: Made) -> None:
    """And written down when Envoy has acknowledged it, with its name."""
    line = made.open()
    made.give("geo", "k1")
    line.ask(GEO)
    assert line.shown() == {GEO: "k1"}
    assert made.told(SDS_DELIVERED) == []
    made.give("geo", "k2")
    assert line.shown() == {GEO: "k2"}
    assert line.rest() == []
    assert made.told(SDS_DELIVERED) == [
        (STAGE, "geo", f"lease/{number}", f"id{number}", "edge/edge-1") for number in (1, 2)
    ]


def test_every_form_of_the_protocol(made: Made) -> None:
    """State of the world and delta, alone and aggregated."""
    made.give("geo", "k1")
    for path in (f"{SECRETS}/DeltaSecrets", f"{ADS}/DeltaAggregatedResources"):
        line = made.open(path)
        line.send(
            DeltaDiscoveryRequest(node=NODE, type_url=SECRET_TYPE, resource_names_subscribe=[GEO])
        )
        assert line.shown() == {GEO: "k1"}
        line.rest()
    line = made.open(f"{ADS}/StreamAggregatedResources")
    line.ask(GEO, type_url=SECRET_TYPE)
    assert line.shown() == {GEO: "k1"}
    line.rest()
    assert len(made.told(SDS_DELIVERED)) == 3


def test_other_types_are_not_ours(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    """On an aggregated stream Envoy may ask for clusters: told once, and not answered."""
    made.give("geo", "k1")
    line = made.open(f"{ADS}/StreamAggregatedResources")
    for _ in range(3):
        line.ask(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster")
    line.ask(GEO)  # without a type nobody knows of what
    assert line.rest() == []
    assert len(caplog.records) == 1
    assert "edge/edge-1 asks for 'type.googleapis.com/envoy.config" in caplog.text


def test_only_those_who_want_it_are_woken(made: Made) -> None:
    """A change concerns the streams that have a name of its upstream."""
    made.world.add("pay")
    lines = {name: made.open() for name in ("geo", "pay")}
    for name, line in lines.items():
        made.give(name, "k1")
        line.ask(f"{STAGE}/{name}")
        line.shown()
    made.give("geo", "k2")
    assert lines["geo"].shown() == {GEO: "k2"}
    assert lines["pay"].rest() == []


def test_changes_in_a_row_are_one_push(made: Made) -> None:
    """A stream that was busy is sent the last one only."""
    line = made.open()
    made.give("geo", "k1")
    line.ask(GEO)
    line.shown()
    for number in range(2, 10):
        made.give("geo", f"k{number}")
    assert line.shown() == {GEO: "k9"}
    assert line.rest() == []


def test_the_end_of_a_lease_is_not_waited_for_to_be_told(made: Made) -> None:
    """At its time the credential is withdrawn, and that is written down too."""
    line = made.open()
    made.give("geo", "k1", lasts=100.0)
    line.ask(GEO)
    assert line.shown() == {GEO: "k1"}
    made.world.now = 100.0
    assert line.shown() == {GEO: ""}
    assert line.rest() == []
    assert made.told(SDS_WITHDRAWN) == [(STAGE, "geo", "lease/1", "id1", "edge/edge-1")]


def test_a_reload_is_looked_at(made: Made) -> None:
    """A dropped upstream's credential is taken back, without any news of the keeper."""
    line = made.open()
    made.give("geo", "k1")
    line.ask(GEO)
    line.shown()
    made.world.drop("geo")
    made.sds.reloaded()
    assert line.shown() == {GEO: ""}


def test_a_refusal_is_told(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    """With Envoy's words in the log, without the secret if they should quote it, and an event."""
    line = made.open()
    for words in (b"Unexpected\nSDS secret", b"cannot use hush-hush"):
        made.give("geo", "hush-hush")
        line.ask(GEO)
        nonce = line.next().nonce
        line.ask(GEO, response_nonce=nonce, error_detail=Status(code=13, message=words))
    assert line.rest() == []
    assert "edge/edge-1 refuses production/geo: Unexpected SDS secret" in caplog.text
    assert "hush" not in caplog.text
    assert [told[-2:] for told in made.told(SDS_REFUSED)] == [
        ("id1", "edge/edge-1"),
        ("id2", "edge/edge-1"),
    ]
    assert made.told(SDS_DELIVERED) == []


def test_a_node_with_a_strange_name(made: Made) -> None:
    """It is fit for a log, and as long as a line may be."""
    line = made.open()
    made.give("geo", "k1")
    node = Node(id="e\n\x1b[31m" + "x" * 500)
    line.send(DiscoveryRequest(node=node, resource_names=[GEO]))
    line.shown()
    line.rest()
    ((*_, caller),) = made.told(SDS_DELIVERED)
    assert caller.startswith("e??[31mxxx")
    assert len(caller) == 200


def test_malformed_and_immodest_requests_end_the_stream(made: Made) -> None:
    """With gRPC's own codes; nobody else notices."""
    line = made.open()
    line.send(b"\xff\xff")
    with pytest.raises(RpcError) as raised:
        line.next()
    assert raised.value.code == INVALID_ARGUMENT
    line = made.open()
    line.ask("x" * 1000)
    with pytest.raises(RpcError) as raised:
        line.next()
    assert raised.value.code == RESOURCE_EXHAUSTED
    assert made.sds._connected() == ()


def test_fetch_answers_once(made: Made) -> None:
    """All that is to be had, in one answer; an empty one when that is nothing."""
    line = made.open(f"{SECRETS}/FetchSecrets")
    line.ask(GEO)
    assert [len(DiscoveryResponse.FromString(a).resources) for a in line.rest()] == [0]
    for number in range(50):
        made.world.add(f"u{number}")
        made.world.give(f"u{number}", "k")
    line = made.open(f"{SECRETS}/FetchSecrets")
    line.ask(*(f"{STAGE}/u{number}" for number in range(50)))
    assert [len(DiscoveryResponse.FromString(a).resources) for a in line.rest()] == [50]
    assert len(made.told(SDS_DELIVERED)) == 50
    bad = made.open(f"{SECRETS}/FetchSecrets")
    bad.send(b"\xff")
    with pytest.raises(RpcError):
        bad.rest()


def test_what_is_in_use(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an Envoy holds now, and for a minute what one held that has just gone."""
    assert made.sds.in_use() == frozenset()
    line = made.open()
    line.ask(GEO, f"{STAGE}/nobody")
    made.give("geo", "k1")
    line.next()
    assert made.sds.in_use() == {(STAGE, "geo")}
    line.rest()
    assert made.sds.in_use() == {(STAGE, "geo")}
    monkeypatch.setattr(module, "_COMES_BACK", 0.0)
    assert made.sds.in_use() == frozenset()


def test_a_withdrawn_credential_is_not_in_use(made: Made) -> None:
    """Nor is one that was refused in favour of nothing, or never there."""
    line = made.open()
    made.give("geo", "k1")
    line.ask(GEO)
    line.shown()
    made.world.withdraw("geo")
    made.sds.changed(STAGE, "geo")
    assert line.shown() == {GEO: ""}
    assert made.sds.in_use() == frozenset()
