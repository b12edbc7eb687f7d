"""docs/envoy-gateway in a real Envoy: with what is shipped vaultauthz is asked; and what its two holes do without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.certificates import Authority
from tests.contract.jwt_issuer import Issuer
from tests.integration.envoy_gateway_bed import REPLACING, ROUTE, SHIPPED, Tls, TranslatedBed
from tests.integration.served import Login, Served
from vaultauthz.demo.parts import OpenBao, free_port

pytestmark = pytest.mark.integration

POLICY = 'path "eg/*" { capabilities = ["read"] }'
KEY = "eg-key-1"
UPSTREAMS = """
upstreams:
  open:
    secret: {kv: eg/one}
    inject: [{bearer: "{api_key}"}]
    callers: any
  paying:
    secret: {kv: eg/one}
    inject: [{bearer: "{api_key}"}]
    callers: [{claims: {scope: pay}}]
routes:
  - {host: plain.test, upstream: open}
  - {host: token.test, upstream: open}
  - {host: paying.test, upstream: paying}
  - {host: replaced.test, upstream: open}
"""
HOSTS = {"plain.test": None, "token.test": ROUTE, "paying.test": ROUTE, "replaced.test": REPLACING}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Who issues the tokens that docs/envoy-gateway/route.yaml wants."""
    return Issuer("https://login.example.com/")


@pytest.fixture(scope="module")
def token(issuer: Issuer) -> str:
    """A caller's, who may pay."""
    return "Bearer " + issuer.token("alice", "payments", scope="pay")


@pytest.fixture(scope="module")
def login(bao: OpenBao) -> Login:
    """A login that reads the key."""
    bao.put_kv("eg/one", {"api_key": KEY})
    return Login(bao.address, *bao.enable_approle("eg", POLICY))


@pytest.fixture(scope="module")
def server(login: Login, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """vaultauthz, with an upstream for everybody and one for those whose token says so."""
    with Served(tmp_path_factory.mktemp("eg"), login, UPSTREAMS) as served:
        served.wait_ready()
        yield served


@pytest.fixture(scope="module")
def beds(
    server: Served, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, TranslatedBed]]:
    """Envoys with the filters as we ship them, and in Envoy Gateway's default order."""
    jwks = tmp_path_factory.mktemp("keys") / "jwks.json"
    jwks.write_text(json.dumps(issuer.jwks))

    def bed(name: str, order: list[dict[str, str]]) -> TranslatedBed:
        folder = tmp_path_factory.mktemp(name)
        return TranslatedBed(folder, server.socket, jwks, HOSTS, order)

    with bed("shipped", SHIPPED) as shipped, bed("default", []) as default:
        yield {"shipped": shipped, "default": default}


@pytest.fixture
def shipped(beds: dict[str, TranslatedBed]) -> TranslatedBed:
    """The filters as the shipped EnvoyProxy orders them."""
    return beds["shipped"]


@pytest.fixture
def default(beds: dict[str, TranslatedBed]) -> TranslatedBed:
    """The filters as they are without it."""
    return beds["default"]


class TestShipped:
    """With both: asked, injected, recorded."""

    def test_a_route_without_a_policy(self, shipped: TranslatedBed, server: Served) -> None:
        """The Gateway's own is in force."""
        reply = shipped.get("plain.test", "Bearer client's")
        assert reply.got("authorization") == [f"Bearer {KEY}"]
        assert server.audited("request.allowed", host="plain.test")

    def test_a_route_that_merges(self, shipped: TranslatedBed, server: Served, token: str) -> None:
        """The token is verified, its claims arrive and open the upstream, and the credential takes its place."""
        reply = shipped.get("paying.test", token)
        assert reply.status == 200
        assert reply.got("authorization") == [f"Bearer {KEY}"]
        assert server.audited("request.allowed", host="paying.test")["upstream"] == "paying"

    def test_a_claim_that_is_missing(
        self, shipped: TranslatedBed, server: Served, issuer: Issuer
    ) -> None:
        """A verified token of somebody who may not: 403, from us."""
        reply = shipped.get("paying.test", "Bearer " + issuer.token("bob", "payments"))
        assert (reply.status, reply.error) == (403, "caller_denied")
        assert server.audited("request.denied", host="paying.test")

    @pytest.mark.parametrize("authorization", ["", "Bearer forged", "Basic eDp5"])
    def test_no_token(self, shipped: TranslatedBed, authorization: str) -> None:
        """The gateway answers by itself."""
        reply = shipped.get("token.test", authorization)
        assert (reply.status, reply.seen) == (401, None)

    @pytest.mark.parametrize("host", ["plain.test", "token.test", "paying.test"])
    def test_what_an_extension_sees(self, shipped: TranslatedBed, token: str, host: str) -> None:
        """A script of an EnvoyExtensionPolicy has the client's token, and not the credential."""
        reply = shipped.get(host, token)
        assert reply.got("x-seen-by-lua") == [token]
        assert reply.got("authorization") == [f"Bearer {KEY}"]


class TestWithoutTheMerge:
    """The first hole, as it is: a route's own policy, without `mergeType`."""

    def test_nobody_is_asked(self, shipped: TranslatedBed, server: Served, token: str) -> None:
        """The client's token goes to the service, and no line says so."""
        before = len(server.audit("request.allowed", host="plain.test"))
        reply = shipped.get("replaced.test", token)
        assert reply.got("authorization") == [token]
        # The line of a later request is there, so that of an earlier one would be.
        shipped.get("plain.test")
        server.wait(
            lambda: len(server.audit("request.allowed", host="plain.test")) > before, "no line"
        )
        assert not server.audit(host="replaced.test")


class TestInTheDefaultOrder:
    """The second hole, as it is: ext_authz first."""

    def test_no_claims_have_come_yet(
        self, default: TranslatedBed, server: Served, token: str
    ) -> None:
        """Somebody who may is denied."""
        reply = default.get("paying.test", token)
        assert (reply.status, reply.error) == (403, "caller_denied")

    def test_the_credential_is_taken_for_the_token(
        self, default: TranslatedBed, token: str
    ) -> None:
        """jwt_authn reads the Authorization that we have set, and answers 401 to a good token."""
        reply = default.get("token.test", token)
        assert (reply.status, reply.error, reply.seen) == (401, "", None)

    def test_an_extension_sees_the_credential(self, default: TranslatedBed) -> None:
        """The script reads what was injected."""
        assert default.get("plain.test").got("x-seen-by-lua") == [f"Bearer {KEY}"]


class TestMutualTls:
    """BackendTLSPolicy and a client certificate, as they are translated: only the gateway's opens the door."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        """Who signs vaultauthz' certificate and the gateway's."""
        (tmp_path / "ca").mkdir()
        return Authority(tmp_path / "ca")

    @pytest.fixture
    def port(self, login: Login, authority: Authority, tmp_path: Path) -> Iterator[int]:
        """Where vaultauthz listens, by the name that BackendTLSPolicy checks."""
        place, ours = free_port(), authority.issue("vaultauthz.default.svc")
        ours.key.chmod(0o600)
        tls = f"{{cert: {ours.cert}, key: {ours.key}, client_ca: {authority.ca}}}"
        (tmp_path / "served").mkdir()
        listen = f"grpc: 127.0.0.1:{place}\n  grpc_tls: {tls}"
        with Served(tmp_path / "served", login, UPSTREAMS, listen) as server:
            server.wait_ready()
            yield place

    def bed(self, tmp_path: Path, port: int, tls: Tls) -> TranslatedBed:
        """An Envoy that asks there."""
        (tmp_path / "keys").write_text('{"keys": []}')
        (tmp_path / "envoy").mkdir()
        hosts = {"plain.test": None}
        return TranslatedBed(tmp_path / "envoy", port, tmp_path / "keys", hosts, SHIPPED, tls=tls)

    def test_with_the_gateways_certificate(
        self, tmp_path: Path, authority: Authority, port: int
    ) -> None:
        """Asked, and the credential arrives."""
        tls = Tls(authority.ca, authority.issue("gateway.test"))
        with self.bed(tmp_path, port, tls) as bed:
            assert bed.get("plain.test").got("authorization") == [f"Bearer {KEY}"]

    def test_without_one(self, tmp_path: Path, authority: Authority, port: int) -> None:
        """No certificate, no answer: 503 by `statusOnError`, and the request does not go on."""
        with self.bed(tmp_path, port, Tls(authority.ca, None)) as bed:
            reply = bed.get("plain.test", "Bearer client's")
            assert (reply.status, reply.seen) == (503, None)

    def test_with_somebody_elses(self, tmp_path: Path, authority: Authority, port: int) -> None:
        """One that another authority signed."""
        (tmp_path / "other").mkdir()
        other = Authority(tmp_path / "other").issue("gateway.test")
        with self.bed(tmp_path, port, Tls(authority.ca, other)) as bed:
            reply = bed.get("plain.test", "Bearer client's")
            assert (reply.status, reply.seen) == (503, None)
