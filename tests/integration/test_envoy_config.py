"""What `vaultauthz envoy` prints: Envoy takes all of it, and it does what it says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from tests.contract.certificates import Pair
from tests.contract.jwt_issuer import Issuer
from tests.integration.gateway_bed import TIMEOUT, Reply
from tests.integration.printed_bed import (
    AUDIENCE,
    Certificates,
    PrintedBed,
    manager_of,
    printed,
    with_files,
)
from tests.integration.served import Login, Served
from vaultauthz.config import load
from vaultauthz.core.request import Request
from vaultauthz.demo.parts import Envoy, OpenBao, wait_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
POLICY = 'path "printed/*" { capabilities = ["read"] }\npath "sys/leases/revoke" { capabilities = ["update"] }'
KEY, NEXT = "printed-key-1", "printed-key-2"
ONE = """
    secret: {kv: printed/one}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers_enforced_by: envoy
"""
RULES = {
    "anyone": "any",
    "checkout": '[{principal: "spiffe://corp/checkout/*"}]',
    "exactly": "[{principal: one.test}]",
    "starred": '[{principal: "s*corp*one"}]',
    "somebody": '[{principal: "*"}]',
    "pay": "[{claims: {scope: pay}}]",
    "level": "[{claims: {realm.level: 3, beta: true}}]",
    "pod": "[{claims: {kubernetes.io.namespace: payments}}]",
    "reader": "[{methods: [GET], path_prefix: /v1}, {path_prefix: /open/}]",
    "either": '[{principal: "spiffe://corp/*", claims: {scope: pay}}, {methods: [PUT]}]',
    "kong": "[{consumer: '*'}, {group: staff}]",
    "guarded": "any\n    deny: [{path_prefix: /admin}, {principal: spiffe://corp/evil}, {claims: {sub: bob}},"
    " {principal: spiffe://corp/" + "k/s" * 62 + "}, {principal: 'spiffe://*/r" + "K/s" * 29 + "'},"
    " {claims: {app.x.role: z}}]",
    "numbered": f"[{{claims: {{scope: pay}}}}]\n    deny: [{{claims: {{uid: {2**53 - 1}}}}}, {{claims: {{uid: -5}}}}]",
    "keeps": "any\n    deny: [{methods: [DELETE, PUT]}]",
    "writes": "[{methods: [POST]}, {methods: [DELETE], path_prefix: /own}]",
    "both": "[{path_prefix: /v1}]\n    deny: [{path_prefix: /v1/secret, methods: [GET]}]",
}
UPSTREAMS = (
    "upstreams:\n"
    + "".join(f"  {name}:{ONE}    callers: {rules}\n" for name, rules in RULES.items())
    + "routes:\n"
    + "".join(f"  - {{host: {name}.test, upstream: {name}}}\n" for name in RULES)
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Who signs the gateway's and the clients' certificates."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Who issues the callers' tokens."""
    return Issuer("https://login.test/")


@pytest.fixture(scope="module")
def login(bao: OpenBao) -> Login:
    """A login that reads the secrets."""
    bao.put_kv("printed/one", {"api_key": KEY})
    bao.put_kv("printed/two", {"api_key": KEY, "token": "tok-1"})
    return Login(bao.address, *bao.enable_approle("printed", POLICY))


@pytest.fixture(scope="module")
def ruled(login: Login, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose upstreams differ in their rules alone."""
    with Served(tmp_path_factory.mktemp("ruled"), login, UPSTREAMS) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def gateways(
    ruled: Served,
    authority: Certificates,
    issuer: Issuer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, PrintedBed]]:
    """Both modes' Envoys for that server."""
    beds = {}
    for mode in ("ext_authz", "sds"):
        status, text, err = printed(ruled.config, "--mode", mode)
        assert (status, err) == (0, "")
        beds[mode] = PrintedBed(text, tmp_path_factory.mktemp(mode), authority, issuer)
    with beds["ext_authz"], beds["sds"]:
        assert wait_for(lambda: beds["sds"].secrets() == len(RULES), TIMEOUT)
        yield beds


CERTIFICATES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "checkout": ("x", ("spiffe://corp/checkout/web",), ()),
    "second uri": ("x", ("spiffe://other/one", "spiffe://corp/checkout/web"), ("one.test",)),
    "lying subject": ("spiffe://corp/checkout/web", ("spiffe://other/two",), ()),
    "one": ("x", ("spiffe://corp/one",), ()),
    "evil": ("x", ("spiffe://corp/evil",), ("one.test",)),
    "evil otherwise": ("x", ("SPIFFE://Corp/Evil",), ()),
    "long": ("x", ("spiffe://corp/" + "k/s" * 62,), ()),
    "long otherwise": ("x", ("spiffe://corp/" + "K/s" * 61 + "K/S",), ()),
    "costly": ("x", ("spiffe://corp/r" + "k/S" * 29,), ()),
    "dns": ("x", (), ("one.test", "two.test")),
    "second dns": ("x", (), ("two.test", "one.test")),
    "subject": ("one.test", (), ()),
}
TOKENS: tuple[dict[str, Any], ...] = (
    {"scope": "read pay"},
    {"scope": ["pay", 1]},
    {"scope": "payments"},
    {"realm": {"level": 3}, "beta": True},
    {"realm.level": 3, "realm": {"level": 4}, "beta": True},
    {"realm.level": None, "realm": {"level": 3}, "beta": [False, True]},
    {"realm.level": [], "realm": {"level": 3}, "beta": True},
    {"realm": {"level": 3}, "beta": 1},
    {"realm": {"level": "3"}, "beta": True},
    {"realm": {"level": 3.0}, "beta": True},
    {"realm": {"level": True}, "beta": True},
    {"realm": {"level": 3.0000000000000001}, "beta": True},
    {"scope": "read\u00a0pay"},
    {"uid": 2**53 - 1, "scope": "pay"},
    {"uid": 2**53 + 1, "scope": "pay"},
    {"uid": -5, "scope": "pay"},
    {"uid": "-5", "scope": "pay"},
    {"kubernetes.io": {"namespace": "payments", "serviceaccount": {"name": "web"}}},
    {"kubernetes.io": {"namespace": "other"}},
    {"kubernetes.io": {"namespace": "payments"}, "kubernetes": {"io": {"namespace": "other"}}},
    {"app": {"x": {"role": "z"}}},
    {"app.x": {"role": ["z"]}},
    {"app": {"x.role": "z"}, "app.x.role": "yes"},
)
PATHS = (
    *("/v1", "/v1/x?y=/open/", "/v10", "/v1;x", "/open", "/open/x", "/v1/secret/x", "/v1/secrets"),
    *(
        "/v1/x/..;/y",
        "/v1/%2e%2e/open/x",
        "/v1//secret",
        "/v1/secret%3Bx",
        "/v1;x/secret",
        "/v1/a%252e",
    ),
    *(
        "/v1/%252e%252e/x",
        "/v1/%2573ecret",
        "/v1/a%20b",
        "/admin",
        "/admin;x",
        "/admin%3bx/y",
        "/;/admin",
    ),
    *("/ADMIN", "/%61dmin", "/x/../admin", "/admin2", "/%2541dmin", "/a%2525", "/a%252541"),
    *(
        "/%2561dmin",
        "/admin%252Fx",
        "/%ef%bd%81dmin",
        "/admin.",
        "/admin%20",
        "/admin%253Bx",
        "/%25c0%25ae",
    ),
    *("/files/100%25", "/files/%e2%82%ac", "/admin%3Fx", "/Admin/x", "/.../admin", "/%u0061dmin"),
)
METHODS = ("POST", "DELETE", "PUT", "OPTIONS")
OVERRIDES: tuple[list[tuple[str, str]], ...] = (
    [],
    [("X-HTTP-Method-Override", "DELETE")],
    [("X-HTTP-Method", "delete")],
    [("X-Method-Override", "Post")],
    [("X-Method-Override", "PATCH"), ("X-HTTP-Method", "PUT")],
    [("X-HTTP-Method-Override", "")],
    [("X-HTTP-Method-Override", "POST, DELETE")],
    [("X-HTTP-Method-Override", "POST"), ("X-HTTP-Method-Override", "DELETE")],
)


@pytest.fixture(scope="module")
def certificates(authority: Certificates) -> dict[str, Pair | None]:
    """Each of CERTIFICATES, and none."""
    made = {name: authority.client(name, *names) for name, names in CERTIFICATES.items()}
    return {**made, "none": None}


class TestTheSameAnswers:
    """A request gets the credential in SDS mode if and only if it does in ext_authz mode."""

    def both(
        self, gateways: dict[str, PrintedBed], host: str, path: str = "/", **more: Any
    ) -> bool:
        """Whether both let it through; fails where they differ."""
        replies = {mode: bed.send(host, path, **more) for mode, bed in gateways.items()}
        passed = {mode: reply.seen is not None for mode, reply in replies.items()}
        assert len(set(passed.values())) == 1, (host, path, more, passed)
        for reply in replies.values():
            if reply.seen:
                assert reply.got("x-api-key") == [KEY]
            else:
                assert reply.status in (400, 403), (host, path, reply)
        return passed["sds"]

    @pytest.mark.parametrize("rule", RULES)
    def test_certificates(
        self,
        gateways: dict[str, PrintedBed],
        certificates: dict[str, Pair | None],
        rule: str,
        ruled: Served,
    ) -> None:
        """Who the caller is by its certificate, also by one of several names."""
        callers = load(ruled.config, {}).upstreams[rule].callers
        for name, pair in certificates.items():
            subject, uris, dns = CERTIFICATES.get(name, ("", (), ()))
            principal = next(iter((*uris, *dns)), f"CN={subject}" if subject else "")
            for method in ("GET", "PUT"):
                passed = self.both(gateways, f"{rule}.test", "/v1", method=method, certificate=pair)
                assert passed == callers.permits(
                    Request("envoy", method, f"{rule}.test", "/v1", principal=principal)
                ), (name, method)

    @pytest.mark.parametrize("rule", ["pay", "level", "pod", "either", "guarded", "numbered"])
    def test_tokens(
        self,
        gateways: dict[str, PrintedBed],
        certificates: dict[str, Pair | None],
        issuer: Issuer,
        rule: str,
        ruled: Served,
    ) -> None:
        """What its token says, in any shape that a claim may have."""
        callers = load(ruled.config, {}).upstreams[rule].callers
        pair = certificates["one"]
        for claims, subject in itertools.product(TOKENS, ("ann", "bob")):
            token = issuer.token(subject, AUDIENCE, **claims)
            headers = [("Authorization", f"Bearer {token}")]
            passed = self.both(gateways, f"{rule}.test", headers=headers, certificate=pair)
            sent = Request(
                "envoy", "GET", principal="spiffe://corp/one", claims=({"sub": subject, **claims},)
            )
            assert passed == callers.permits(sent), claims

    @pytest.mark.parametrize("rule", ["reader", "guarded", "both"])
    def test_paths(self, gateways: dict[str, PrintedBed], rule: str) -> None:
        """What it asks for, also in spellings that a server may take for something else."""
        passed = {
            (path, method): self.both(gateways, f"{rule}.test", path, method=method)
            for path, method in itertools.product(PATHS, ("GET", "POST"))
        }
        assert set(passed.values()) == {True, False}

    @pytest.mark.parametrize("rule", ["keeps", "writes"])
    def test_methods(self, gateways: dict[str, PrintedBed], rule: str) -> None:
        """What it asks for by its method, and by what a service may take for its method."""
        passed = {}
        for method, sent in itertools.product(METHODS, OVERRIDES):
            for path in ("/", "/own", "/?_method=DELETE"):
                values = ",".join(value for _, value in sent)
                passed[method, path, values] = self.both(
                    gateways, f"{rule}.test", path, method=method, headers=sent
                )
        assert passed["POST", "/", ""]
        assert not passed["POST", "/", "DELETE"]
        assert passed["DELETE", "/own", "Post"] == (rule == "writes")
        assert not passed["POST", "/?_method=DELETE", ""]

    def test_answers_read_alike(self, gateways: dict[str, PrintedBed]) -> None:
        """A denial has the same status and the same body, whoever decided it."""
        replies = [bed.send("pay.test") for bed in gateways.values()]
        assert {(r.status, r.error, r.headers["content-type"]) for r in replies} == {
            (403, "caller_denied", "application/json")
        }
        assert all(json.loads(r.text)["request_id"] for r in replies)

    def test_a_bad_token_ends_the_request(self, gateways: dict[str, PrintedBed]) -> None:
        """A token of somebody else's is 401, also where any caller may."""
        token = Issuer("https://login.test/").token("ann", AUDIENCE, scope="pay")
        for bed in gateways.values():
            reply = bed.send("anyone.test", headers=[("Authorization", f"Bearer {token}")])
            assert (reply.status, reply.seen) == (401, None)


TWO = """
upstreams:
  two:
    secret: {kv: printed/two, refresh: 1s}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}, {bearer: "{token}"}]
    strip: [X-Debug-Key]
    callers: any
"""
HOST = "two.gateway.example"  # as printed for an upstream that no route leads to
MINE = [(n, "mine") for n in ("X-Api-Key", "x-api-key", "Authorization", "X-Debug-Key", "X-Other")]


@pytest.fixture(scope="module")
def two(login: Login, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server that each test starts for itself, with two headers to fill."""
    return Served(tmp_path_factory.mktemp("two"), login, TWO)


def bed_of(
    mode: str, served: Served, folder: Path, authority: Certificates, issuer: Issuer
) -> PrintedBed:
    """The Envoy that is printed for it."""
    return PrintedBed(printed(served.config, "--mode", mode)[1], folder, authority, issuer)


def filled(reply: Reply, key: str = KEY) -> bool:
    """Whether ours is all that the service got, in the places that are ours."""
    assert reply.seen, (reply.status, reply.text)
    assert reply.got("x-debug-key") == []
    assert reply.got("x-other") == ["mine"]
    return (reply.got("x-api-key"), reply.got("authorization")) == ([key], ["Bearer tok-1"])


def unavailable(reply: Reply) -> bool:
    """Whether Envoy refused, as it does for a fault."""
    return (reply.status, reply.seen) == (503, None)


class TestExtAuthz:
    def test_as_printed(
        self, two: Served, tmp_path: Path, authority: Certificates, issuer: Issuer
    ) -> None:
        """Requests are filled; without vaultauthz they are refused; when it is back they are filled."""
        with bed_of("ext_authz", two, tmp_path, authority, issuer) as bed:
            assert unavailable(bed.send(HOST, headers=MINE))
            with two:
                two.wait_ready()
                assert filled(bed.send(HOST, headers=MINE))
                assert bed.send("nobody.test").error == "no_upstream"
                assert bed.send(HOST, headers=[("x_api_key", "mine")]).status == 400
                assert bed.send(HOST, "/a%2fb").status == 400
            assert unavailable(bed.send(HOST, headers=MINE))
            with two:
                two.wait_ready()
                assert wait_for(lambda: bed.send(HOST).status == 200, TIMEOUT)
            self._nothing_leaks(bed)

    def _nothing_leaks(self, bed: PrintedBed) -> None:
        line = bed.logged(status=200)
        assert (line["upstream"], line["stage"]) == ("two", "production")
        assert line["credential_id"]
        told = bed.envoy.log.read_text() + bed.envoy.config_dump()
        assert KEY not in told
        assert "tok-1" not in told

    def test_nothing_else_may_be_changed(
        self, two: Served, tmp_path: Path, authority: Certificates, issuer: Issuer
    ) -> None:
        """A header that the printed rules do not name is refused with 500, as they are of another configuration."""
        with bed_of("ext_authz", two, tmp_path, authority, issuer) as bed:
            text = two.config.read_text()
            two.config.write_text(text.replace("X-Debug-Key", "X-Forwarded-Proto"))
            try:
                with two:
                    two.wait_ready()
                    reply = bed.send(HOST, headers=MINE)
                    assert (reply.status, reply.seen) == (500, None)
            finally:
                two.config.write_text(text)


class TestSds:
    def test_as_printed(
        self, two: Served, tmp_path: Path, authority: Certificates, issuer: Issuer
    ) -> None:
        """503 before the first secret; then filled, also while vaultauthz is away; a revoked one is gone."""
        with bed_of("sds", two, tmp_path, authority, issuer) as bed:
            reply = bed.send(HOST, headers=MINE)
            assert unavailable(reply)
            assert (reply.error, reply.headers["retry-after"]) == ("no_credential", "1")
            with two:
                assert wait_for(lambda: bed.send(HOST, headers=MINE).status == 200, TIMEOUT)
                assert filled(bed.send(HOST, "/by-sds", headers=MINE))
                assert bed.send(HOST, headers=[("x_api_key", "mine")]).status == 400
                assert bed.send("nobody.test").status == 404
                two.audited("request.allowed", upstream="two", stage="production", path="/by-sds")
            assert filled(bed.send(HOST, headers=MINE))
            line = bed.logged(status=200)
            assert (line["upstream"], line["stage"]) == ("two", "production")
            told = bed.envoy.log.read_text() + bed.envoy.config_dump()
            assert KEY not in told
            assert "tok-1" not in told

    def test_a_new_secret_and_none(
        self, bao: OpenBao, two: Served, tmp_path: Path, authority: Certificates, issuer: Issuer
    ) -> None:
        """A secret that is changed arrives without a failed request; one that is deleted is used no more."""
        with bed_of("sds", two, tmp_path, authority, issuer) as bed, two:
            assert wait_for(lambda: bed.send(HOST, headers=MINE).status == 200, TIMEOUT)
            bao.put_kv("printed/two", {"api_key": NEXT, "token": "tok-1"})
            assert wait_for(lambda: filled(bed.send(HOST, headers=MINE), NEXT), TIMEOUT)
            bao.client().secrets.kv.v2.delete_metadata_and_all_versions(
                "two", mount_point="printed"
            )
            try:
                assert wait_for(lambda: unavailable(bed.send(HOST, headers=MINE)), TIMEOUT)
            finally:
                bao.put_kv("printed/two", {"api_key": KEY, "token": "tok-1"})


BODY = """
upstreams:
  signed:
    secret: {kv: printed/one}
    inject: [{hmac: {key: "{api_key}", sign: ["{body}"], headers: {X-Signature: "{signature}"}}}]
    callers: any
  asks:
    secret: {kv: printed/one}
    inject: [{query: {name: key, value: "{api_key}+~%"}}, {cookie: {name: session, value: "{api_key}"}}]
    callers: any
"""


def test_bodies_and_queries(
    login: Login,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Certificates,
    issuer: Issuer,
) -> None:
    """A body is signed whole, up to the limit that is printed; a query takes any value."""
    served = Served(tmp_path_factory.mktemp("body"), login, BODY)
    bed = bed_of("ext_authz", served, tmp_path_factory.mktemp("bed"), authority, issuer)
    with served, bed:
        served.wait_ready()
        for size in (10, 200_000, 1_048_575, 1_048_576):
            reply = bed.send("signed.gateway.example", method="POST", body=b"x" * size)
            assert len(reply.got("x-signature")[0]) == 64, size
        too_large = bed.send("signed.gateway.example", method="POST", body=b"x" * 1_048_577)
        assert (too_large.status, too_large.seen) == (413, None)
        reply = bed.send(
            "asks.gateway.example", "/q?a=1&key=mine", headers=[("Cookie", "session=mine; b=2")]
        )
        assert parse_qsl(urlsplit(reply.path).query) == [("a", "1"), ("key", f"{KEY}+~%")]
        assert reply.got("cookie") == [f"b=2; session={KEY}"]
        assert bed.logged(path="/q")
        assert "key=" not in bed.envoy.log.read_text()


HEAD = """
vault: {address: "http://127.0.0.1:8200"}
stages:
  production: {auth: {method: token_file, path: token, allow_long_lived: true}}
  staging: {auth: {method: token_file, path: token, allow_long_lived: true}}
"""
CLAIMS = 'callers: [{principal: "s*c*b"}, {claims: {"a.b": 1, scope: pay, ok: true}, path_prefix: "/a~b/"}]'
SECRET = 'secret: {kv: "secret/a"}'
KEYED = 'inject: [{header: {name: X-Api-Key, value: "{k}"}}, {bearer: "{k}"}]'
ANY = f"{{{SECRET}, {KEYED}, callers: any}}"
RULED = f"{{{SECRET}, {KEYED}, {CLAIMS}, deny: [{{path_prefix: /{'long/' * 30}}}], callers_enforced_by: envoy}}"
MANY = ", ".join(f"X-Long-Header-{number}" for number in range(99))
CA = "/etc/envoy/vaultauthz/ca.pem"
SHAPES = {
    "plain": f"upstreams: {{a: {{{SECRET}, {KEYED}, callers: any, stages: [staging]}}}}",
    "names": f"upstreams: {{on: {ANY}, vaultauthz: {ANY}, 123: {ANY}, Aa: {ANY}, aA: {ANY}, a.b_c: {ANY}}}",
    "rules": f"upstreams: {{a: {RULED}}}",
    "long": f"upstreams: {{a: {{{SECRET}, {KEYED}, callers: any, strip: [{MANY}]}}}}",
    "certificate": f"upstreams: {{a: {{{SECRET}, inject: [{{tls: {{}}}}], callers: any}}}}",
    "routes": f"upstreams: {{a: {ANY}}}\nroutes:\n"
    "  - {host: a.test, path_prefix: /v1, upstream: a, stage: staging}\n"
    "  - {host: '[::1]', path_prefix: /v1/, upstream: a, stage: staging}\n"
    "  - {path_prefix: '/a b', upstream: a, stage: production}\nunmatched: pass",
    "services": "upstreams:\n"
    + "".join(
        f"  s{number}: {{{SECRET}, {how}, callers: any, stages: [staging], to: {to}}}\n"
        for number, (how, to) in enumerate(
            (
                (KEYED, "https://one.test"),
                (KEYED, "'https://[::1]:8443'"),
                (KEYED, "http://127.0.0.1:8080"),
                (KEYED, "{address: 'http://two.test', health: '/up?a=\"b', preserve_host: true}"),
                (KEYED, f"{{address: 'https://10.0.0.1', server_name: a.test, ca_cert: {CA}}}"),
                ("inject: [{tls: {}}]", f"{{address: 'https://a.test', ca_cert: {CA}, health: /}}"),
            )
        )
    )
    + "routes:\n"
    + "".join(f"  - {{host: s{n}.test, upstream: s{n}}}\n" for n in range(6))
    + "gateway: {address: '[::]:8443', node: edge-2, tls: {cert: /etc/envoy/tls/gateway.pem,"
    " key: /etc/envoy/tls/gateway.key, client_ca: /etc/envoy/tls/clients-ca.pem}}\n",
}
EVERYTHING = f"""upstreams:
  a: {{{SECRET}, {KEYED}, callers: any}}
  query: {{{SECRET}, inject: [{{query: {{name: k, value: "{{k}}"}}}}], callers: any}}
  cookie: {{{SECRET}, inject: [{{cookie: {{name: k, value: "{{k}}"}}}}], callers: any, per: caller}}
  aws: {{{SECRET}, inject: [{{sigv4: {{region: r, service: s3, host: "b.s3.test:8443"}}}}], callers: any}}
  host: {{{SECRET}, inject: [{{sigv4: {{region: r, service: es}}}}], callers: any}}
routes:
  - {{host: a.test, upstream: a, stage: staging}}
  - {{host: a.test, path_prefix: /q, upstream: query, stage: staging}}
  - {{path_prefix: /k, upstream: cookie, stage: production}}
"""


class TestEnvoyTakesIt:
    """`envoy --mode validate` on each shape of configuration."""

    def check(self, folder: Path, authority: Certificates, text: str) -> None:
        """Raises PartError with Envoy's reason."""
        Envoy(with_files(text, authority, folder), folder / "envoy").validate()

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("mode", ["ext_authz", "sds"])
    def test_whole_and_in_parts(
        self, tmp_path: Path, authority: Certificates, shape: str, mode: str
    ) -> None:
        """The bootstrap as it is, and the snippet in one."""
        config = tmp_path / "c.yaml"
        config.write_text(HEAD + SHAPES[shape])
        status, whole, _ = printed(config, "--mode", mode)
        assert status == 0
        assert ("REPLACE" in whole) == ("gateway:" not in SHAPES[shape])
        self.check(tmp_path, authority, whole)
        snippet = yaml.safe_load(printed(config, "--mode", mode, "--snippet")[1])
        self.check(tmp_path, authority, yaml.safe_dump(_around(snippet, yaml.safe_load(whole))))

    @pytest.mark.parametrize("listen", ["unix:///tmp/x", "127.0.0.1:9000", "localhost:1"])
    @pytest.mark.parametrize("mode", ["ext_authz", "sds"])
    def test_every_form(
        self, tmp_path: Path, authority: Certificates, listen: str, mode: str
    ) -> None:
        """Queries, cookies, signatures; what SDS cannot do is left out, told, and status 1."""
        config = tmp_path / "c.yaml"
        config.write_text(HEAD + EVERYTHING + f"listen: {{grpc: '{listen}'}}")
        status, text, err = printed(config, "--mode", mode)
        assert status == (1 if mode == "sds" else 0)
        for name in ("query", "cookie", "aws", "host"):
            assert (f"vaultauthz: {name} is left out" in err) == (mode == "sds")
            assert (f"\n# - {name} " in text) == (mode == "sds")
        refused = text.count("direct_response: {status: 503}")  # a's two, and any other host's
        assert refused == (3 if mode == "sds" else 0)
        self.check(tmp_path, authority, text)

    @pytest.mark.parametrize(
        "listen", ["0.0.0.0:9000", "10.0.0.1:9000", "authz.internal:9000", "[fd00::1]:9000"]
    )
    def test_over_a_network(self, tmp_path: Path, authority: Certificates, listen: str) -> None:
        """Beyond loopback there is TLS, with a certificate of Envoy's own."""
        pair = authority.issue("authz.internal")
        tls = f"{{cert: {pair.cert}, key: {pair.key}, client_ca: {authority.ca}}}"
        pair.key.chmod(0o600)
        config = tmp_path / "c.yaml"
        config.write_text(
            HEAD + SHAPES["plain"] + f"\nlisten: {{grpc: '{listen}', grpc_tls: {tls}}}"
        )
        for mode in ("ext_authz", "sds"):
            text = printed(config, "--mode", mode)[1]
            assert text.count("/etc/envoy/vaultauthz/client.pem") == 2  # calls, and logs
            self.check(tmp_path, authority, text)


def _around(snippet: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """The snippet's parts where it says that they go, in a bootstrap that has nothing of ours."""
    manager = manager_of(whole)
    router = [one for one in manager["http_filters"] if one["name"].endswith("router")]
    manager["http_filters"] = [*snippet.get("http_filters", ()), *router]
    manager["access_log"] = snippet["access_log"]
    for key in ("local_reply_config", "node", "layered_runtime"):
        if key in snippet:
            (manager if key == "local_reply_config" else whole)[key] = snippet[key]
        else:
            whole.pop(key, None)
    names = {cluster["name"] for cluster in snippet["clusters"]}
    routes = snippet.get("routes", [])
    for route in routes:
        route["route"]["cluster"] = "there"
    there = {"name": "there", "type": "STATIC", "load_assignment": {"cluster_name": "there"}}
    if routes:
        hosts = [{"name": "here", "domains": ["*"], "routes": routes}]
        manager["route_config"] = {"virtual_hosts": hosts}
    assert names <= {cluster["name"] for cluster in whole["static_resources"]["clusters"]}
    whole["static_resources"]["clusters"] = [*snippet["clusters"], there]
    return whole


def test_envoy_takes_the_patches_of_the_manifests(tmp_path: Path) -> None:
    """What docs/envoy-gateway and docs/istio merge into filter and connection manager, Envoy takes."""
    whole = yaml.safe_load((ROOT / "envoy" / "ext_authz.yaml").read_text())
    manager = manager_of(whole)
    asking = manager["http_filters"][0]["typed_config"]
    gateway, istio = (
        {one["kind"]: one["spec"] for one in yaml.safe_load_all((ROOT / "docs" / name).read_text())}
        for name in ("envoy-gateway/vaultauthz.yaml", "istio/vaultauthz.yaml")
    )
    for patch in gateway["EnvoyPatchPolicy"]["jsonPatches"]:
        operation = patch["operation"]
        place = asking["grpc_service"] if operation["jsonPath"].endswith("service") else asking
        place[operation["path"].removeprefix("/")] = operation["value"]
    for patch in istio["EnvoyFilter"]["configPatches"]:
        target = manager if patch["applyTo"] == "NETWORK_FILTER" else asking
        target |= patch["patch"]["value"]["typed_config"]
    Envoy(whole, tmp_path).validate()
