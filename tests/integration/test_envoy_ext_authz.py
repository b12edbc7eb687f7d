"""Requests through a real Envoy: what the service behind it receives, and what it never does."""

from __future__ import annotations

import base64
import json
import posixpath
import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from tests.integration.gateway_bed import GatewayBed, Reply, Route
from tests.integration.served import Login, Served
from vaultauthz.demo.parts import OpenBao

pytestmark = pytest.mark.integration

POLICY = 'path "gateway/*" { capabilities = ["read"] }'
# Every character that a URL gives a meaning, a space, and one beyond ASCII.
HARD = "a b+c%20&d=e/f?g#h;ü"
SECRETS = {
    "header": {"api_key": "header-key-1"},
    "bearer": {"token": "bearer-token-1"},
    "basic": {"username": "münchen", "password": "pass:word-1"},
    "query": {"key": "query-key-1"},
    "hard": {"key": HARD},
    "cookie": {"session": "cookie-key-1"},
    "broken": {"api_key": "broken-key-1\r\nX-Evil: yes"},
    "staged-production": {"api_key": "production-key"},
    "staged-staging": {"api_key": "staging-key"},
    "alpha": {"api_key": "alpha-key-1"},
    "beta": {"api_key": "beta-key-1"},
}
UPSTREAMS = """
upstreams:
  header:
    stages: [production]
    secret: {kv: gateway/header}
    inject: [{header: {name: X-Api-Key, value: "Key {api_key}, v1"}}]
    strip: [X-Debug-Key, Cookie]
    callers: any
  bearer:
    stages: [production]
    secret: {kv: gateway/bearer}
    inject: [{bearer: "{token}"}]
    callers: any
  basic:
    stages: [production]
    secret: {kv: gateway/basic}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: any
  query:
    stages: [production]
    secret: {kv: gateway/query}
    inject: [{query: {name: key, value: "{key}"}}]
    callers: any
  hard:
    stages: [production]
    secret: {kv: gateway/hard}
    inject: [{query: {name: key, value: "{key}"}}]
    callers: any
  cookie:
    stages: [production]
    secret: {kv: gateway/cookie}
    inject: [{cookie: {name: session, value: "{session}"}}]
    callers: any
  several:
    stages: [production]
    secret: {kv: gateway/query}
    inject:
      - {header: {name: X-Api-Key, value: "{key}"}}
      - {bearer: "{key}"}
      - {query: {name: key, value: "{key}"}}
      - {cookie: {name: session, value: "{key}"}}
    callers: any
  broken:
    optional: true
    stages: [production]
    secret: {kv: gateway/broken}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
  staged:
    secret: {kv: "gateway/staged-{stage}"}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
  guarded:
    stages: [production]
    secret: {kv: gateway/alpha}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: [{principal: spiffe://corp/shop}, {claims: {scope: pay}}]
  alpha:
    stages: [production]
    secret: {kv: gateway/alpha}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
  beta:
    stages: [production]
    secret: {kv: gateway/beta}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
  public:
    stages: [production]
    secret: {kv: gateway/alpha}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
    deny: [{path_prefix: /admin}]
routes:
  - {host: paths.test, path_prefix: /v1/, upstream: alpha}
  - {host: paths.test, upstream: beta}
  - {host: staged.test, upstream: staged, stage: staging}
"""
NAMED = (
    *("header", "bearer", "basic", "query", "hard", "cookie", "several"),
    *("broken", "guarded", "public", "gone"),
)
ROUTES = [
    *(Route(f"{name}.test", name) for name in NAMED),
    Route("production.test", "staged", "production"),
    Route("staging.test", "staged", "staging"),
    Route("neither.test", "staged"),
    Route("staged.test", "staged", "production", prefix="/live/"),
    Route("staged.test"),
    Route("paths.test", prefix="/v1/", service="alpha"),
    Route("paths.test", service="beta"),
    Route("nobody.test"),
]

Get = Callable[..., Reply]


@pytest.fixture(scope="module")
def served(bao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an upstream for each form of injection."""
    for name, fields in SECRETS.items():
        bao.put_kv(f"gateway/{name}", fields)
    login = Login(bao.address, *bao.enable_approle("gateway", POLICY), ("production", "staging"))
    with Served(tmp_path_factory.mktemp("served"), login, UPSTREAMS) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def bed(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBed]:
    """The gateway in front of two services."""
    with GatewayBed(tmp_path_factory.mktemp("bed"), served.socket, ROUTES) as made:
        yield made


@pytest.fixture(params=["strict-1.1", "strict-2", "raw-1.1", "raw-2"])
def get(request: pytest.FixtureRequest, bed: GatewayBed) -> Get:
    """A GET over each HTTP version, with the headers sent to us in either encoding."""
    by, version = request.param.split("-")
    send = bed.get if version == "1.1" else bed.get2

    def get(host: str, path: str = "/", headers: list[tuple[str, str]] | None = None) -> Reply:
        return send(host, path, headers or [], by)

    return get


def mine(*names: str) -> list[tuple[str, str]]:
    """Each of these headers as a client may send it: twice, in other letter case, and empty."""
    return [
        (spelled, value)
        for name in names
        for spelled, value in ((name, "mine"), (name.upper(), "mine-too"), (name.lower(), ""))
    ]


class TestHeaders:
    def test_header(self, get: Get) -> None:
        """The header holds our text around the field, once, whatever the client sent."""
        for headers in ([], mine("X-Api-Key")):
            assert get("header.test", "/", headers).got("x-api-key") == ["Key header-key-1, v1"]

    def test_bearer(self, get: Get) -> None:
        """The token replaces every Authorization of the client."""
        reply = get("bearer.test", "/", mine("Authorization"))
        assert reply.got("authorization") == ["Bearer bearer-token-1"]

    def test_copies_that_envoy_joins(self, bed: GatewayBed) -> None:
        """Without `encode_raw_headers` none of the client's copies is left either."""
        reply = bed.get("header.test", "/", mine("X-Api-Key"), "careless")
        assert reply.got("x-api-key") == ["Key header-key-1, v1"]
        reply = bed.get("bearer.test", "/", mine("Authorization"), "careless")
        assert reply.got("authorization") == ["Bearer bearer-token-1"]
        reply = bed.get("cookie.test", "/", [("Cookie", "a=1; session=mine")], "careless")
        assert reply.got("cookie") == ["a=1; session=cookie-key-1"]

    def test_basic(self, get: Get) -> None:
        """User and password are encoded as UTF-8, and a colon in the password is kept."""
        reply = get("basic.test", "/", mine("Authorization"))
        (value,) = reply.got("authorization")
        assert base64.b64decode(value.removeprefix("Basic ")).decode() == "münchen:pass:word-1"

    def test_strip(self, get: Get) -> None:
        """Headers that the configuration strips are gone in every spelling; others stay."""
        headers = [*mine("X-Debug-Key"), ("Cookie", "a=b"), ("X-Other", "kept")]
        reply = get("header.test", "/", headers)
        assert reply.got("x-debug-key") == reply.got("cookie") == []
        assert reply.got("x-other") == ["kept"]
        assert reply.got("x-api-key") == ["Key header-key-1, v1"]

    def test_other_headers_are_left_alone(self, get: Get) -> None:
        """What this upstream does not set or strip reaches it as sent."""
        headers = [
            ("Authorization", "mine"),
            ("X-Debug-Key", "1"),
            ("X-Twice", "a"),
            ("X-Twice", "b"),
        ]
        reply = get("cookie.test", "/", headers)
        assert reply.got("authorization") == ["mine"]
        assert reply.got("x-debug-key") == ["1"]
        assert ",".join(reply.got("x-twice")) == "a,b"

    def test_underscores(self, bed: GatewayBed) -> None:
        """Services may read X_Api_Key as X-Api-Key: our file has Envoy refuse such a request."""
        reply = bed.get("header.test", "/", [("X_Api_Key", "mine")])
        assert (reply.status, reply.seen) == (400, None)


class TestCookies:
    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ([], []),
            (["theme=dark"], ["theme=dark"]),
            (["a=1; session=mine; b=2"], ["a=1", "b=2"]),
            (["a=1", "session=mine; session=again", "b=2"], ["a=1", "b=2"]),
            (["session=mine"], []),
            (["Session=other; sessions=x; xsession=y"], ["Session=other", "sessions=x", "xsession=y"]),
            (['q="a; session=mine"; b=2'], ['q="a', "b=2"]),
        ],
    )  # fmt: skip
    def test_cookie(self, get: Get, sent: list[str], kept: list[str]) -> None:
        """The client's other cookies are kept in order, its own copies of ours are not."""
        reply = get("cookie.test", "/", [("Cookie", value) for value in sent])
        assert reply.got("cookie") == ["; ".join([*kept, "session=cookie-key-1"])]


class TestQuery:
    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ("", []),
            ("?", []),
            ("?key", []),
            ("?key=mine&key=again&key=", []),
            ("?a=1&key=mine&b=2", [("a", "1"), ("b", "2")]),
            ("?%6bey=mine&k%65y=too&%6B%65%79", []),
            ("?a=%26key=mine", [("a", "&key=mine")]),
            ("?keys=1&xkey=2&Key=3", [("Key", "3"), ("keys", "1"), ("xkey", "2")]),
            ("?%256bey=1", [("%6bey", "1")]),
        ],
    )
    def test_query(self, get: Get, sent: str, kept: list[tuple[str, str]]) -> None:
        """The parameter is there once with our value, however the client spelled its own."""
        reply = get("query.test", f"/maps{sent}")
        parts = urlsplit(reply.path)
        assert parts.path == "/maps"
        found = parse_qsl(parts.query, keep_blank_values=True)
        assert sorted(found) == sorted([*kept, ("key", "query-key-1")])

    @pytest.mark.parametrize("version", ["1.1", "2"])
    def test_a_value_that_needs_encoding(self, bed: GatewayBed, version: str) -> None:
        """Characters with a meaning in URLs arrive as part of the value."""
        send = bed.get if version == "1.1" else bed.get2
        reply = send("hard.test", "/maps?a=1&key=mine", by="careless")
        query = urlsplit(reply.path).query
        assert sorted(parse_qsl(query)) == [("a", "1"), ("key", HARD)]

    def test_envoy_takes_no_encoded_value_under_validate_mutations(self, bed: GatewayBed) -> None:
        """Envoy 1.40 then refuses every `%` in a value: 500, and nothing goes on."""
        reply = bed.get("hard.test", "/maps", by="raw")
        assert (reply.status, reply.seen) == (500, None)


class TestSeveral:
    def test_all_at_once(self, get: Get) -> None:
        """Each place is filled, and cleared of what the client had there."""
        headers = [*mine("X-Api-Key", "Authorization"), ("Cookie", "a=1; session=mine")]
        reply = get("several.test", "/?key=mine", headers)
        assert reply.got("x-api-key") == ["query-key-1"]
        assert reply.got("authorization") == ["Bearer query-key-1"]
        assert reply.got("cookie") == ["a=1; session=query-key-1"]
        assert reply.path == "/?key=query-key-1"


class TestWhichUpstream:
    def test_envoy_names_upstream_and_stage(self, get: Get) -> None:
        """The route's context extensions choose, also between the stages of one upstream."""
        assert get("production.test").got("x-api-key") == ["production-key"]
        assert get("staging.test").got("x-api-key") == ["staging-key"]

    def test_envoy_wins_over_our_routes(self, get: Get) -> None:
        """Our routes are asked only where Envoy's route names no upstream."""
        assert get("staged.test", "/live/x").got("x-api-key") == ["production-key"]
        assert get("staged.test", "/x").got("x-api-key") == ["staging-key"]

    def test_our_routes(self, get: Get) -> None:
        """They go by host and path."""
        assert get("paths.test", "/v1/x").got("x-api-key") == ["alpha-key-1"]
        assert get("paths.test", "/v10").got("x-api-key") == ["beta-key-1"]

    @pytest.mark.parametrize("host", ["unknown.test", "nobody.test", "gone.test", "neither.test"])
    def test_nobody(self, get: Get, host: str) -> None:
        """An unknown host, one that no route claims, an unknown name, no stage: 403 no_upstream."""
        reply = get(host)
        assert (reply.status, reply.error, reply.seen) == (403, "no_upstream", None)
        assert reply.headers["content-type"] == "application/json"
        assert json.loads(reply.text).keys() == {"error", "request_id"}

    CLAIMS = (
        ("x-vaultauthz-upstream", "header"),
        ("x-vaultauthz-stage", "production"),
        ("upstream", "header"),
        ("stage", "production"),
        ("x-envoy-upstream", "header"),
        ("context-extensions", "upstream=header"),
        ("x-forwarded-host", "header.test"),
        ("x-original-host", "header.test"),
        ("x-envoy-original-path", "/v1/x"),
        ("x-rewrite-url", "/v1/x"),
        ("forwarded", "host=header.test"),
        ("x-forwarded-client-cert", "URI=spiffe://corp/shop"),
        ("x-principal", "spiffe://corp/shop"),
        ("x-jwt-payload", base64.b64encode(b'{"scope": "pay"}').decode()),
        ("authorization", "Bearer e30." + base64.b64encode(b'{"scope":"pay"}').decode() + "."),
        ("x-consumer-username", "shop"),
        ("x-envoy-internal", "true"),
        ("x-request-id", "chosen-by-the-client"),
    )

    def test_headers_that_claim_something(self, get: Get) -> None:
        """No header of a client chooses an upstream or a stage, or makes it somebody else."""
        headers = list(self.CLAIMS)
        assert get("nobody.test", "/", headers).error == "no_upstream"
        assert get("staging.test", "/", headers).got("x-api-key") == ["staging-key"]
        assert get("paths.test", "/x", headers).got("x-api-key") == ["beta-key-1"]
        guarded = get("guarded.test", "/", headers)
        assert (guarded.status, guarded.error, guarded.seen) == (403, "caller_denied", None)

    def test_the_port_does_not_matter(self, get: Get) -> None:
        """`host:port` is the same host."""
        assert get("paths.test:8443", "/v1/x").got("x-api-key") == ["alpha-key-1"]


KEYS = {"alpha": "alpha-key-1", "beta": "beta-key-1"}
TRICKS = (
    *("/v1/../x", "/x/../v1/y", "/./v1/x", "/v1/.", "/v1/..;/x", "/x/..//v1/y", "/v1//../x"),
    *("/v1/%2e%2e/x", "/v1/%2E./x", "/x/%2e%2e/v1/y", "/v1/%252e%252e/x", "/%76%31/x"),
    *("//v1/x", "/v1//x", "/v1%2Fx", "/v1%2f..%2fx", "/v1/..%2fx", "/v1%252Fx"),
    *("/v1\\..\\x", "\\v1\\x", "/v1/%5c..%5cx", "/x\\..\\v1\\y", "/v1%00/x"),
    *("http://paths.test/v1/x", "http://other.test/v1/x", "*", "v1/x", "/v1?/../x", "/V1/x"),
)  # fmt: skip


class TestPaths:
    @pytest.mark.parametrize("by", ["strict", "careless"])
    @pytest.mark.parametrize("path", TRICKS)
    def test_never_the_credential_of_another(self, bed: GatewayBed, by: str, path: str) -> None:
        """Either nothing is sent on, or the service gets its own credential and no other's."""
        reply = bed.get("paths.test", path, by=by)
        if reply.seen:
            assert reply.got("x-api-key") == [KEYS[reply.service]]
        else:
            assert reply.status in (400, 403)

    ADMIN = (
        *("/admin", "/admin/", "/admin/x?y", "/x/../admin", "/./admin", "//admin", "/.//admin"),
        *("/%61dmin", "/%2561dmin", "/x/%2e%2e/admin", "/admin%2Fx", "/x%2f..%2fadmin"),
        *("/x\\..\\admin", "/admin%00", "/x/..;/admin", "/admin/../admin"),
    )  # fmt: skip

    @pytest.mark.parametrize("path", ADMIN)
    def test_a_denied_path_in_disguise(self, bed: GatewayBed, path: str) -> None:
        """With our file for Envoy no spelling of a denied path gets to the service."""
        reply = bed.get("public.test", path)
        if reply.seen:
            plain = re.sub("/+", "/", unquote(reply.path).replace("\\", "/"))
            assert not posixpath.normpath(plain).startswith("/admin")
        else:
            assert reply.status in (400, 403)
        assert bed.get("public.test", "/open").got("x-api-key") == ["alpha-key-1"]

    @pytest.mark.parametrize(
        "path", ["/x/../admin", "/./admin", "/x/%2e%2e/admin", "/x%2f..%2fadmin", "/x\\..\\admin"]
    )
    def test_a_careless_gateway(self, bed: GatewayBed, path: str) -> None:
        """One that does not resolve dots and backslashes is told that the request is bad."""
        reply = bed.get("public.test", path, by="careless")
        assert (reply.status, reply.error, reply.seen) == (400, "bad_request", None)


class TestLimits:
    def test_a_secret_with_a_line_break(self, get: Get, served: Served) -> None:
        """It is never sent: 503, and standard error says which upstream and why, not what."""
        reply = get("broken.test", "/", mine("X-Api-Key"))
        assert (reply.status, reply.error, reply.seen) == (503, "no_credential", None)
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert "control character 0x0d" in served.stderr
        assert "broken-key-1" not in served.stderr + served.stdout

    def test_huge_requests(self, get: Get) -> None:
        """Up to Envoy's limit headers, cookies and paths of tens of kilobytes go through."""
        big = "x" * 50_000
        assert get("header.test", "/", [("X-Big", big)]).got("x-api-key")
        assert get("header.test", "/" + big).got("x-api-key")
        assert get("cookie.test", "/", [("Cookie", f"a={big}")]).got("cookie") == [
            f"a={big}; session=cookie-key-1"
        ]
        many = [(f"X-Many-{n}", "y" * 400) for n in range(80)]
        assert get("bearer.test", "/", many).got("authorization") == ["Bearer bearer-token-1"]

    def test_beyond_them(self, bed: GatewayBed) -> None:
        """Envoy refuses what is larger, and nothing goes on."""
        reply = bed.get("header.test", "/", [("X-Big", "x" * 70_000)])
        assert (reply.status, reply.seen) == (431, None)

    def test_bytes_that_are_no_text(self, bed: GatewayBed) -> None:
        """A header in Latin-1 neither hides our credential nor breaks the check."""
        reply = bed.get("header.test", "/caf\udce9", [("X-Name", "caf\udce9")])
        if reply.seen:
            assert reply.got("x-api-key") == ["Key header-key-1, v1"]
        else:
            assert reply.status == 400


class TestWhatIsTold:
    def test_the_access_log(self, bed: GatewayBed, served: Served) -> None:
        """Envoy's access log says who used which credential, and names our request's id."""
        reply = bed.get("query.test", "/logged?a=1")
        assert reply.path.endswith("key=query-key-1")
        denied = bed.get("guarded.test", "/logged-too")
        line = bed.logged("/logged")
        assert (line["upstream"], line["stage"]) == ("query", "production")
        issued = [e for e in served.audit("lease.issued") if e["upstream"] == "query"]
        assert line["credential_id"] == issued[0]["credential_id"]
        assert line["request_id"] == reply.got("x-request-id")[0]
        line = bed.logged("/logged-too")
        assert line["request_id"] == json.loads(denied.text)["request_id"]
        assert line["credential_id"] is None

    def test_our_audit_log_has_the_same_request(self, bed: GatewayBed, served: Served) -> None:
        """The request's id joins Envoy's log with ours."""
        (request_id,) = bed.get("header.test", "/audited?a=1").got("x-request-id")
        entry = served.audited("request.allowed", request_id=request_id)
        assert (entry["host"], entry["path"]) == ("header.test", "/audited")
        assert entry["gateway"] == "envoy"

    def test_no_secret_is_told(self, bed: GatewayBed, served: Served) -> None:
        """Neither Envoy's log, configuration and statistics nor our output holds a secret."""
        bed.get("several.test", "/told")
        bed.get("query.test", "/told-too")
        assert bed.logged("/told")
        assert bed.logged("/told-too")
        told = [bed.envoy.log.read_text(), bed.envoy.config_dump(), str(bed.envoy.stats())]
        told += [served.stdout, served.stderr]
        for fields in SECRETS.values():
            for secret in fields.values():
                assert not [text for text in told if secret in text], secret
