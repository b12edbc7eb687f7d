"""Discovery over real sockets: many names, many Envoys, and what a client may do wrong."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import grpc
import pytest

from tests.contract.faults import wait_until
from tests.contract.sds_client import ADS, SECRETS, EnvoyLine, Line, channel, streaming
from tests.contract.test_server import TIMEOUT, checked, client
from tests.unit.envoy.sds_world import STAGE, World
from vaultauthz._pb.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from vaultauthz.config.values import Listen
from vaultauthz.core.events import SDS_DELIVERED, SDS_REFUSED, Event
from vaultauthz.envoy.sds.discovery import Discovery
from vaultauthz.envoy.sds.subscription import MOST_UNANSWERED
from vaultauthz.envoy.server import GrpcServer

METHODS = (
    f"{SECRETS}/StreamSecrets",
    f"{SECRETS}/DeltaSecrets",
    f"{ADS}/StreamAggregatedResources",
    f"{ADS}/DeltaAggregatedResources",
)
GEO = f"{STAGE}/geo"


class Made:
    """A world, SDS in front of it, and a server."""

    def __init__(self, listen: Listen) -> None:
        self.world = World()
        self.events: list[Event] = []
        self.sds = Discovery(self.world, self.world.clock, self.events.append)
        self.listen = listen
        self.server: GrpcServer
        self.channel: grpc.Channel

    def add(self, *names: str) -> None:
        """Upstreams with a first credential."""
        for name in names:
            self.world.add(name)
            self.give(name, f"{name}-1")

    def give(self, name: str, key: str) -> None:
        """A credential arrives."""
        self.world.give(name, key)
        self.sds.changed(STAGE, name)

    def count(self, event: str) -> int:
        """How often this was announced."""
        return sum(e.name == event for e in tuple(self.events))


@pytest.fixture(params=["native", "grpcio"])
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    """Each transport, with one upstream, ``geo``."""
    made = Made(Listen("127.0.0.1:0", transport=request.param))
    made.add("geo")
    with streaming(made.listen, made.sds.streams) as made.server, channel(made.server) as there:
        made.channel = there
        yield made


@pytest.mark.parametrize("method", METHODS)
def test_rotation_arrives(made: Made, method: str) -> None:
    """In each form: the first credential, its replacement, and that Envoy has them."""
    with EnvoyLine(made.channel, method) as line:
        line.want(GEO)
        assert line.hear() == {GEO: "geo-1"}
        made.give("geo", "geo-2")
        assert line.hear() == {GEO: "geo-2"}
        assert wait_until(lambda: made.count(SDS_DELIVERED) == 2)
        (gateway,) = made.sds.connected
        assert (gateway.name, gateway.how, gateway.secrets) == ("edge/edge-1", "SDS", 1)
    assert {event.caller for event in made.events} == {"edge/edge-1"}
    assert wait_until(lambda: not made.sds.connected)


@pytest.mark.parametrize("method", METHODS[2:])
def test_a_thousand_names_on_one_stream(made: Made, method: str) -> None:
    """All arrive, in few answers; then one change is one small answer."""
    names = [f"u{number}" for number in range(1000)]
    made.add(*names)
    with EnvoyLine(made.channel, method) as line:
        line.want(*(f"{STAGE}/{name}" for name in names))
        line.hear_until(lambda has: len(has) == 1000)
        assert line.has == {f"{STAGE}/{name}": f"{name}-1" for name in names}
        assert wait_until(lambda: made.count(SDS_DELIVERED) == 1000)
        made.give("u500", "new")
        assert line.hear() == {f"{STAGE}/u500": "new"}
        for name in names:
            made.give(name, f"{name}-3")
        line.hear_until(lambda has: all(value.endswith("-3") for value in has.values()))


def test_many_envoys(made: Made) -> None:
    """Each is told of each change, whatever the others do."""
    with contextlib.ExitStack() as open_ones:
        lines = [
            open_ones.enter_context(EnvoyLine(made.channel, METHODS[n % 4], f"edge-{n}"))
            for n in range(100)
        ]
        for line in lines:
            line.want(GEO)
            line.hear()
        lines[0].call.cancel()
        made.give("geo", "geo-2")
        assert all(line.hear() == {GEO: "geo-2"} for line in lines[1:])
        assert wait_until(lambda: made.count(SDS_DELIVERED) == 199)
        assert len({event.caller for event in made.events}) == 100
    assert wait_until(lambda: made.server.open_streams == 0)


def test_one_that_refuses_keeps_no_other(made: Made) -> None:
    """A bad secret among good ones is refused by itself, once, and the good ones arrive."""
    made.add("bad", "good")
    wanted = [f"{STAGE}/{name}" for name in ("geo", "bad", "good")]
    with EnvoyLine(made.channel, METHODS[3]) as line:
        line.want(*wanted)
        assert list(line.hear(refuse=b"cannot use one of them")) == wanted
        for name in wanted:
            assert list(line.hear(refuse=b"not this" if "bad" in name else b"")) == [name]
        assert wait_until(lambda: made.count(SDS_REFUSED) == 1)
        made.give("good", "next")
        assert line.hear() == {wanted[2]: "next"}
        assert made.count(SDS_REFUSED) == 1


def test_fetch_is_unary(made: Made) -> None:
    """By a client that knows it as such; one that asks for nothing is answered too."""
    fetch = made.channel.unary_unary(
        f"{SECRETS}/FetchSecrets",
        request_serializer=DiscoveryRequest.SerializeToString,
        response_deserializer=DiscoveryResponse.FromString,
    )
    answer = fetch(DiscoveryRequest(resource_names=[GEO]), timeout=TIMEOUT)
    assert [b"geo-1" in resource.value for resource in answer.resources] == [True]
    assert len(fetch(DiscoveryRequest(), timeout=TIMEOUT).resources) == 0


def test_a_lease_that_ends_is_withdrawn_by_time_alone(made: Made) -> None:
    """Nobody says anything: the clock does."""
    with EnvoyLine(made.channel, METHODS[0]) as line:
        made.world.give("geo", "brief", lasts=0.2)
        line.want(GEO)
        assert line.hear() == {GEO: "brief"}
        made.world.now = 1.0
        assert line.hear() == {GEO: ""}


@pytest.mark.parametrize("method", [*METHODS, f"{SECRETS}/FetchSecrets"])
def test_random_bytes(made: Made, method: str) -> None:
    """They end their own stream, if any, and nothing else."""
    noise = random.Random(method)
    with EnvoyLine(made.channel, METHODS[0]) as other:
        other.want(GEO)
        other.hear()
        for size in (*range(12), 100, 10_000):
            with Line(made.channel, method) as line:
                line.send(noise.randbytes(size))
                line.end()
                codes = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK}
                assert line.code() in codes | {grpc.StatusCode.RESOURCE_EXHAUSTED}
        made.give("geo", "geo-2")
        assert other.hear() == {GEO: "geo-2"}


def test_too_many_names(made: Made) -> None:
    """The stream is ended with RESOURCE_EXHAUSTED."""
    for method in METHODS:
        with EnvoyLine(made.channel, method) as line:
            line.want(*(f"{STAGE}/{number}" for number in range(10_001)))
            assert line.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_client_that_never_reads(made: Made) -> None:
    """What changes meanwhile is kept once, as the name to look at; the others go on."""
    key = "x" * 10_000
    with EnvoyLine(made.channel, METHODS[0]) as deaf, EnvoyLine(made.channel, METHODS[1]) as line:
        for each in (deaf, line):
            each.want(GEO)
        line.hear()
        for number in range(2000):
            made.give("geo", f"{key}{number}")
            while not line.has[GEO].endswith(f"x{number}"):
                line.hear()
        kept = [len(connection._subscription._unanswered) for connection in made.sds._connected()]
        assert max(kept) <= MOST_UNANSWERED
        with client(f"127.0.0.1:{made.server.port}") as asking:
            assert asking.check(checked()) == 403


def test_changes_while_streams_come_and_go(made: Made) -> None:
    """Whoever asks at whatever moment ends up with the last credential."""
    stop = threading.Event()

    def change() -> None:
        number = 1
        while not stop.wait(0.001):
            number += 1
            made.give("geo", f"geo-{number}")
        made.give("geo", "last")

    thread = threading.Thread(target=change)
    thread.start()
    with contextlib.ExitStack() as open_ones:
        lines = []
        for number in range(40):
            line = open_ones.enter_context(EnvoyLine(made.channel, METHODS[number % 4]))
            line.want(GEO)
            line.hear()
            lines.append(line)
            if number % 3 == 0:
                lines.pop(0).call.cancel()
        stop.set()
        thread.join()
        for line in lines:
            line.hear_until(lambda has: has[GEO] == "last")
