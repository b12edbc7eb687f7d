"""Two replicas over TLS behind a real Envoy: one goes, certificates come, and no request is lost."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.contract.certificates import Pair
from tests.contract.jwt_issuer import Issuer
from tests.integration.printed_bed import Certificates
from tests.integration.replicas_bed import GATEWAY, HOST, Mounted, ReplicasBed, replicas
from tests.integration.sds_bed import metrics
from tests.integration.served import Login, Served
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, wait_for

pytestmark = pytest.mark.integration

POLICY = 'path "replicas/*" { capabilities = ["read"] }'
UPSTREAMS = """
upstreams:
  one:
    secret: {kv: replicas/one, refresh: 1s}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
"""
SOON = 10 / 3600  # hours


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Who signs the replicas' certificates and Envoy's."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def login(bao: OpenBao) -> Login:
    """A login that reads the secret."""
    bao.put_kv("replicas/one", {"api_key": "replicated-key"})
    return Login(bao.address, *bao.enable_approle("replicas", POLICY))


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Nobody's tokens are asked for."""
    return Issuer("https://login.test/")


def test_one_is_killed(
    tmp_path: Path, login: Login, authority: Certificates, issuer: Issuer
) -> None:
    """The health check works over TLS, and what hits the dead one meanwhile is asked of the other."""
    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer)
    with replicas(bed):
        bed.go_on()
        found = bed.stats()
        assert found["health_check.success"] > 0
        assert found["health_check.failure"] == 0
        bed.replicas[0].served.process.kill()
        bed.wait_healthy(1)
        bed.go_on()
        assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}
        bed.replicas[0].served.start()
        bed.wait_healthy(2)
        bed.go_on()
        assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}


def test_one_hangs(tmp_path: Path, login: Login, authority: Certificates, issuer: Issuer) -> None:
    """Frozen with its connections open: after each try's timeout the other is asked, until it is found."""
    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer, each="3s")
    with replicas(bed):
        bed.go_on()
        first = bed.replicas[0].served.process
        first.suspend()
        try:
            bed.wait_healthy(1)
            bed.go_on()
            found = bed.stats()
            assert found["upstream_rq_per_try_timeout"] > 0
            assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}
        finally:
            first.resume()


def test_one_stops(tmp_path: Path, login: Login, authority: Certificates, issuer: Issuer) -> None:
    """At SIGTERM it drains: Envoy turns to the other while it still answers, then it ends."""
    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer, more="\n  drain: 3s")
    with replicas(bed):
        bed.go_on()
        first = bed.replicas[0].served
        first.ask(signal.SIGTERM)
        assert first.ended() == 0
        assert "draining for 3 s" in first.stderr
        bed.wait_healthy(1)
        bed.go_on()
        assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}


def test_secrets_come_from_the_other_one(
    tmp_path: Path, bao: OpenBao, login: Login, authority: Certificates, issuer: Issuer
) -> None:
    """By SDS: whichever of them is gone, the next credential arrives, and no request is lost."""
    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer, mode="sds")

    def arrives(key: str) -> None:
        bao.put_kv("replicas/one", {"api_key": key})
        sent = bed.gateway.send
        assert wait_for(lambda: sent(HOST).got("x-api-key") == [key], PATIENCE), key

    with replicas(bed):
        arrives("first-key")
        for number, replica in enumerate(bed.replicas):
            replica.served.process.kill()
            bed.wait_healthy(1)
            arrives(f"key-without-{number}")
            replica.served.start()
            bed.wait_healthy(2)
        assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}


def test_certificates_are_replaced(
    tmp_path: Path, login: Login, authority: Certificates, issuer: Issuer
) -> None:
    """Ten times, by a link and in place, with Envoy connecting anew all the time."""
    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer, per_connection=20)
    with replicas(bed):
        for number in range(10):
            for replica in bed.replicas:
                replica.wait_shown(replica.renew(in_place=number % 2 == 1))
            bed.go_on(20)
        assert bed.stats()["upstream_cx_total"] > 20
        for replica in bed.replicas:
            told_of_files(replica.served)
        assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}


def told_of_files(served: Served) -> None:
    """SIGHUP tells of certificates that were replaced since the last one, and metrics count them."""
    for words in ("reloaded: listen.grpc_tls replaced", "reloaded: nothing has changed"):
        served.ask(signal.SIGHUP)
        served.wait(lambda w=words: w in served.stderr, f"it does not say {words}")  # type: ignore[misc]
    told = metrics(served.admin_socket)
    taken = 'vaultauthz_tls_replacements_total{listener="grpc",result="taken"} 10.0'
    assert taken in told
    assert 'vaultauthz_tls_current{listener="grpc"} 1.0' in told


def test_a_key_that_does_not_fit_is_not_taken(
    tmp_path: Path, login: Login, authority: Certificates, issuer: Issuer
) -> None:
    """By a link that is moved, while Envoy connects anew: the pair before stays in use, and it is told once."""
    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer, per_connection=20)
    wrong = "listen.grpc_tls: not taken, the certificate before stays in use: "
    with replicas(bed):
        for replica in bed.replicas:
            before = replica.renew()
            replica.wait_shown(before)
            cert, key = authority.issue("127.0.0.1"), authority.issue("elsewhere.test").key
            replica.put(Pair(cert.cert, key), authority.ca)
            served = replica.served
            served.wait(lambda s=served: wrong in s.stderr, "it says nothing")  # type: ignore[misc]
            bed.go_on(40)
            assert replica.shown() == before
            assert served.stderr.count(wrong) == 1
            told = metrics(served.admin_socket)
            assert 'vaultauthz_tls_current{listener="grpc"} 0.0' in told
            assert 'vaultauthz_tls_replacements_total{listener="grpc",result="refused"} 1.0' in told
            replica.wait_shown(replica.renew())
            assert 'vaultauthz_tls_current{listener="grpc"} 1.0' in metrics(served.admin_socket)
        bed.go_on(20)
        assert bed.stats()["upstream_cx_total"] > 10
        assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}


def test_a_certificate_that_has_ended_is_replaced(
    tmp_path: Path, login: Login, authority: Certificates, issuer: Issuer
) -> None:
    """What is connected goes on, without a new connection, and the next certificate mends it."""
    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer)
    with replicas(bed):
        bed.go_on()
        for replica in bed.replicas:
            replica.wait_shown(replica.renew(hours=SOON))
        for replica in bed.replicas:
            replica.served.wait(replica.told_of_its_end, "nothing is said of its end")
            assert "grpc_tls" in replica.served.admin("/readyz").body
        bed.go_on()
        for replica in bed.replicas:
            replica.wait_shown(replica.renew())
            assert "grpc_tls" not in replica.served.admin("/readyz").body
        bed.replicas[1].served.process.kill()
        bed.wait_healthy(1)
        bed.go_on()
        assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}


def test_the_authority_is_replaced(
    tmp_path: Path, login: Login, authority: Certificates, issuer: Issuer
) -> None:
    """On both sides, Envoy's as docs/envoy.md has them follow files: trust both, change over, trust one."""
    for name in ("secrets", "new"):
        (tmp_path / name).mkdir()
    new = Certificates(tmp_path / "new")
    both = tmp_path / "both.pem"
    both.write_bytes(authority.ca.read_bytes() + new.ca.read_bytes())
    mounted = Mounted(tmp_path / "mounted")

    def envoys(pair: Pair, ca: Path) -> None:
        mounted.put({"client.pem": pair.cert, "client.key": pair.key, "ca.pem": ca})

    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer, per_connection=20)
    ours, next_ = authority.issue(GATEWAY), new.issue(GATEWAY)
    envoys(ours, authority.ca)
    bed.from_files(tmp_path / "secrets", mounted)
    with replicas(bed):
        bed.go_on(20)
        for replica in bed.replicas:
            replica.wait_shown(replica.put(authority.issue("127.0.0.1"), both))
        envoys(ours, both)
        bed.wait_taken(new.ca)
        envoys(next_, both)
        bed.wait_taken(next_.cert)
        bed.go_on(20)
        for replica in bed.replicas:
            replica.wait_shown(replica.put(new.issue("127.0.0.1"), new.ca))
        envoys(next_, new.ca)
        bed.go_on()
        assert bed.traffic.statuses() == {200: len(bed.traffic.asked())}


def test_a_gateway_of_another_name(
    tmp_path: Path, login: Login, authority: Certificates, issuer: Issuer
) -> None:
    """With a certificate of the authority for somebody else Envoy gets nothing: 503, counted and told."""
    bed = ReplicasBed(tmp_path, login, UPSTREAMS, authority, issuer)
    stranger = authority.issue("reports.internal")
    for file, name in ((stranger.cert, "client.pem"), (stranger.key, "client.key")):
        (tmp_path / "gateway" / "vaultauthz" / name).write_bytes(file.read_bytes())
    with replicas(bed):
        bed.go_on()
        assert bed.traffic.statuses() == {503: len(bed.traffic.asked())}
        for replica in bed.replicas:
            assert "reports.internal" in replica.served.stderr
            assert replica.served.audited("client.refused")["caller"] == "reports.internal"
            assert not replica.served.audit("request.allowed")
            counted = (
                'vaultauthz_clients_refused_total{service="envoy.service.auth.v3.Authorization"}'
            )
            assert counted in metrics(replica.served.admin_socket)
