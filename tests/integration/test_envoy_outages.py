"""A real Envoy while vaultauthz has no credential yet, is killed, hangs, restarts or rotates under load."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest

from tests.integration.gateway_bed import GatewayBed, Reply, Route
from tests.integration.served import TIMEOUT, Login, Served
from vaultauthz.demo.parts import OpenBao, wait_for

pytestmark = pytest.mark.integration

POLICY = 'path "outage/*" { capabilities = ["read"] }'
FIRST, SECOND = "first-key-1", "second-key-2"
UPSTREAMS = """
upstreams:
  geo:
    secret: {kv: outage/geo, refresh: 1s}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
"""
MINE = [("X-Api-Key", "mine")]


@pytest.fixture(scope="module")
def stopped(bao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server that each test starts for itself."""
    bao.put_kv("outage/geo", {"api_key": FIRST})
    login = Login(bao.address, *bao.enable_approle("outage", POLICY))
    return Served(tmp_path_factory.mktemp("served"), login, UPSTREAMS)


@pytest.fixture(scope="module")
def bed(stopped: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBed]:
    """The gateway; it starts while nobody answers it."""
    routes = [Route("geo.test", "geo")]
    with GatewayBed(tmp_path_factory.mktemp("bed"), stopped.socket, routes) as made:
        yield made


@pytest.fixture
def served(stopped: Served, bao: OpenBao) -> Iterator[Served]:
    """A ready server with the first key, ended after the test."""
    bao.put_kv("outage/geo", {"api_key": FIRST})
    with stopped as server:
        server.wait_ready()
        yield server


class Load:
    """Three clients that ask without a pause, from entering to leaving it."""

    def __init__(self, bed: GatewayBed) -> None:
        self._bed = bed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(3)]
        self.replies: list[Reply] = []

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.replies.append(self._bed.get("geo.test", headers=MINE))

    def count(self) -> Counter[str]:
        """How often each key reached the service, and each other status a client."""
        return Counter(
            ",".join(r.got("x-api-key")) if r.seen else str(r.status) for r in self.replies
        )

    def see(self, outcome: str) -> None:
        """Wait until some more requests ended like this."""
        wanted = self.count()[outcome] + 5
        assert wait_for(lambda: self.count()[outcome] >= wanted, TIMEOUT), self.count()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT)


def fails_closed(reply: Reply) -> None:
    """Envoy itself refused, with 503, and nothing went on to the service."""
    assert (reply.status, reply.error, reply.seen) == (503, "", None)


def test_before_vaultauthz_is_there(bed: GatewayBed) -> None:
    """Envoy refuses every request with 503 and knows that nobody answers it."""
    fails_closed(bed.get("geo.test", headers=MINE))
    assert wait_for(lambda: not bed.healthy(), TIMEOUT)


def test_before_the_first_credential(bao: OpenBao, bed: GatewayBed, stopped: Served) -> None:
    """200 parallel requests get our 503 and its reason; when the secret is there, so are answers."""
    bao.client().secrets.kv.v2.delete_metadata_and_all_versions("geo", mount_point="outage")
    with stopped as server:
        server.wait(lambda: not server.ready and bool(server.audit("login")), "no login")
        with ThreadPoolExecutor(50) as pool:
            replies = list(pool.map(lambda _: bed.get("geo.test", headers=MINE), range(200)))
        outcomes = {(r.status, r.error, r.seen) for r in replies}
        assert outcomes == {(503, "no_credential", None)}
        assert not bed.healthy()
        bao.put_kv("outage/geo", {"api_key": FIRST})
        server.wait_ready()
        assert bed.get("geo.test", headers=MINE).got("x-api-key") == [FIRST]
        assert wait_for(bed.healthy, TIMEOUT)


def test_killed_and_back(bed: GatewayBed, served: Served) -> None:
    """Killed: only 503, never a request without our credential. Back: answers, no restart of Envoy."""
    assert bed.get("geo.test", headers=MINE).got("x-api-key") == [FIRST]
    served.process.kill()
    fails_closed(bed.get("geo.test", headers=MINE))
    assert wait_for(lambda: not bed.healthy(), TIMEOUT)
    fails_closed(bed.get("geo.test", headers=MINE))
    served.start()
    served.wait_ready()
    assert wait_for(bed.healthy, TIMEOUT)
    assert bed.get("geo.test", headers=MINE).got("x-api-key") == [FIRST]


def test_stopped_in_order(bed: GatewayBed, served: Served) -> None:
    """After SIGTERM Envoy's health check fails and it refuses by itself."""
    assert wait_for(bed.healthy, TIMEOUT)
    served.ask(signal.SIGTERM)
    assert served.ended() == 0
    assert wait_for(lambda: not bed.healthy(), TIMEOUT)
    fails_closed(bed.get("geo.test", headers=MINE))


def test_hanging(bed: GatewayBed, served: Served) -> None:
    """While we are frozen, Envoy gives up on each check and refuses; then all is as before."""
    assert bed.get("geo.test", headers=MINE).got("x-api-key") == [FIRST]
    served.process.suspend()
    try:
        fails_closed(bed.get("geo.test", headers=MINE))
    finally:
        served.process.resume()
    assert wait_for(lambda: bed.get("geo.test").status == 200, TIMEOUT)
    assert bed.get("geo.test", headers=MINE).got("x-api-key") == [FIRST]


def test_restarted_under_load(bed: GatewayBed, served: Served) -> None:
    """Under constant traffic a kill and a restart show as 503, and nothing reaches the service bare."""
    with Load(bed) as load:
        load.see(FIRST)
        served.process.kill()
        load.see("503")
        served.start()
        served.wait_ready()
        load.see(FIRST)
    assert load.count().keys() == {FIRST, "503"}


def test_rotated_under_load(bao: OpenBao, bed: GatewayBed, served: Served) -> None:
    """Under constant traffic a new secret takes the old one's place without one failed request."""
    with Load(bed) as load:
        load.see(FIRST)
        bao.put_kv("outage/geo", {"api_key": SECOND})
        load.see(SECOND)
        served.audited("lease.rotated")
        before = len(load.replies)
        load.see(SECOND)
    assert load.count().keys() == {FIRST, SECOND}
    after = {r.got("x-api-key")[0] for r in load.replies[before + 3 :]}  # 3 were in flight
    assert after == {SECOND}
