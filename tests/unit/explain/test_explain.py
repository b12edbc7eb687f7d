"""What explain says is what the broker decides."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config import Config, parse
from vaultauthz.core.callers import Callers, Claim, Pattern, Rule
from vaultauthz.core.request import Request
from vaultauthz.explain import DescribedRequest, UsageError, run
from vaultauthz.explain.explanation import judge
from vaultauthz.terminal import Output

TEXT = """\
vault: {address: "http://127.0.0.1:1"}
stages:
  live: {auth: {method: approle, role_id: a}}
  test: {auth: {method: approle, role_id: a}}
upstreams:
  pay:
    secret: {path: "database/creds/pay-{stage}"}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: [{principal: "spiffe://corp/shop/*", methods: [GET]}, {claims: {scope: pay, sub: ann}}]
    deny: [{path_prefix: /v1/admin}]
  geo:
    secret: {kv: secret/geo}
    inject:
      - {header: {name: X-Api-Key, value: "v1 {key} s3cr3t"}}
      - {query: {name: key, value: "{key}"}}
      - {cookie: {name: session, value: "{key}"}}
    strip: [X-Debug]
    callers: any
  orders:
    stages: [live]
    secret: {path: aws/sts/orders}
    inject: [{sigv4: {region: eu-west-1, service: execute-api}}]
    callers: any
  hooks:
    stages: [live]
    secret: {kv: secret/hooks}
    inject: [{hmac: {key: "{key}", sign: ["{body}"], headers: {X-Signature: "{signature}"}}}]
    callers: any
  partner:
    stages: [live]
    secret: {pki: pki/issue/gateway}
    inject: [{tls: {}}]
    callers: any
  own:
    stages: [live]
    per: caller
    secret: {path: database/creds/own}
    inject: [{bearer: "{password}"}]
    callers: any
routes:
  - {host: pay.test, path_prefix: /v1/, upstream: pay, stage: live}
"""
SHOP = "spiffe://corp/shop/web"


@pytest.fixture(scope="module")
def config() -> Config:
    """Three upstreams in two stages."""
    return parse(TEXT, "test.yaml", Path("/"), {})


def explained(
    config: Config, asked: DescribedRequest, *, width: int | None = None
) -> tuple[int, str]:
    """The exit status and what is printed."""
    out = io.StringIO()
    return run(config, asked, Output(out, width=width)), out.getvalue()


def as_json(config: Config, asked: DescribedRequest) -> dict[str, Any]:
    out = io.StringIO()
    run(config, asked, Output(out, as_json=True))
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_an_allowed_request_names_its_rule_and_what_is_set(config: Config) -> None:
    """The upstream and how it was found, each rule, the secret's path, the slots by field."""
    status, text = explained(
        config, DescribedRequest("https://pay.test/v1/charges?x=1", principal=SHOP)
    )
    assert status == 0
    assert text.splitlines() == [
        "GET pay.test/v1/charges?x=1",
        "",
        "upstream  pay in stage live (routes[0]: host pay.test, path /v1/ or below)",
        (
            "caller    deny[0]: does not fit: path wants /v1/admin or below, "
            "the request has '/v1/charges'"
        ),
        (
            f"          callers[0]: fits: principal '{SHOP}' is spiffe://corp/shop/*, "
            "method 'GET' is GET"
        ),
        (
            "          callers[1]: does not fit: claim scope wants pay, the request has nothing, "
            "claim sub wants ann, the request has nothing"
        ),
        "secret    database/creds/pay-live, shared by all callers",
        "sets      header authorization: Basic base64({username}:{password})",
        "drops     the client's authorization",
        "",
        "ALLOWED as soon as there is a credential",
    ]


def test_text_around_a_field_is_not_shown(config: Config) -> None:
    """It may be a secret that stands in the configuration."""
    found = as_json(config, DescribedRequest("/", upstream="geo", stage="test"))
    assert found["sets"] == [
        "header x-api-key: {key}",
        "query parameter key={key}",
        "cookie session={key}",
    ]
    assert found["drops"] == ["x-api-key", "cookie", "x-debug"]
    assert "s3cr3t" not in json.dumps(found)


def test_a_query_on_a_tunnel(config: Config) -> None:
    """As a check has it: there is no path that it could be put behind."""
    told = as_json(
        config, DescribedRequest("geo.test:443", "CONNECT", upstream="geo", stage="live")
    )
    assert (told["allowed"], told["reason"], told["status"]) == (False, "bad_request", 400)
    assert as_json(config, DescribedRequest("https://geo.test/", upstream="geo", stage="live"))[
        "allowed"
    ]


def test_a_certificate_is_set_on_no_request(config: Config) -> None:
    """It goes to Envoy ahead of requests."""
    found = as_json(config, DescribedRequest("/", upstream="partner"))
    assert found["sets"] == ["client certificate: by SDS, not for each request"]
    assert found["drops"] == []


def test_signatures_are_named_by_their_slots(config: Config) -> None:
    """Nothing is signed for it."""
    (line,) = as_json(config, DescribedRequest("/", upstream="orders"))["sets"]
    assert line.startswith("AWS signature for execute-api in eu-west-1: header authorization, ")
    (line,) = as_json(config, DescribedRequest("/", upstream="hooks"))["sets"]
    assert line == "HMAC signature (sha256): header x-signature"


@pytest.mark.parametrize(
    ("asked", "status", "reason", "words"),
    [
        (
            DescribedRequest("https://pay.test/v1/x"),
            403,
            "caller_denied",
            "the request has nothing",
        ),
        (
            DescribedRequest("https://pay.test/v1/admin", principal=SHOP),
            403,
            "caller_denied",
            "deny[0]: fits and denies",
        ),
        (DescribedRequest("https://pay.test/"), 403, "no_upstream", "no route fits"),
        (DescribedRequest("/", upstream="gone"), 403, "no_upstream", "names 'gone'"),
        (DescribedRequest("/", upstream="pay"), 403, "no_upstream", "names 'pay'"),  # which stage?
        (DescribedRequest("https://pay.test/v1/%61dmin"), 400, "bad_request", "servers differ"),
        (DescribedRequest("/", upstream="own"), 403, "caller_denied", "no lease for nobody"),
    ],
)
def test_a_denied_request_says_why(
    config: Config, asked: DescribedRequest, status: int, reason: str, words: str
) -> None:
    """Status 1, the answer that a client would get, and what decided."""
    code, text = explained(config, asked)
    assert code == 1
    assert f"DENIED with {status} {reason}: " in text
    assert words in text


def test_claims_are_judged_by_the_token_that_has_the_most_of_them(config: Config) -> None:
    """All claims of a rule must be in one token, as in a check."""
    split = ('{"scope": "pay"}', '{"sub": "ann"}')
    assert explained(config, DescribedRequest("https://pay.test/v1/x", claims=split))[0] == 1
    whole = ('{"sub": "bob"}', '{"sub": "ann", "scope": "read pay"}')
    assert explained(config, DescribedRequest("https://pay.test/v1/x", claims=whole))[0] == 0


@pytest.mark.parametrize("claims", ["no", "[]", '"x"'])
def test_claims_that_are_no_object_are_refused(config: Config, claims: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(UsageError, match="wants a JSON object"):
        explained(config, DescribedRequest("/", claims=(claims,)))


def test_it_fits_a_narrow_terminal(config: Config) -> None:
    """Long lines are wrapped."""
    _, text = explained(
        config, DescribedRequest("https://pay.test/v1/charges", principal=SHOP), width=80
    )
    assert max(map(len, text.splitlines())) <= 80


NAMES = st.sampled_from(["", "a", "ab", "spiffe://corp/a"])
PATHS = st.sampled_from(["/", "/v1", "/v1/x", "//v1/x", "/v1;a/x", "/v10"])
CLAIM = st.builds(
    Claim,
    st.sampled_from([("scope",), ("sub",), ("realm", "role")]),
    st.sampled_from(["a", "b", 1, True]),
)
RULE = st.builds(
    Rule,
    principal=st.none() | st.sampled_from(["*", "a*", "spiffe://*"]).map(Pattern.parse),
    claims=st.lists(CLAIM, max_size=2).map(tuple),
    consumer=st.none() | st.sampled_from(["a", "*b"]).map(Pattern.parse),
    group=st.none() | st.sampled_from(["x", "y"]),
    methods=st.none() | st.frozensets(st.sampled_from(["GET", "POST"]), min_size=1),
    path_prefix=st.none() | st.sampled_from(["/v1", "/v1/", "/"]),
)
TOKEN = st.fixed_dictionaries(
    {},
    optional={
        "scope": st.sampled_from(["a", "a b", ["b"]]),
        "sub": st.sampled_from(["a", 1.0, True]),
        "realm": st.just({"role": ["a", "b"]}) | st.just("a"),
    },
)
REQUEST = st.builds(
    Request,
    st.just("test"),
    method=st.sampled_from(["GET", "POST"]),
    path=PATHS,
    principal=NAMES,
    consumer=NAMES,
    groups=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
    claims=st.lists(TOKEN, max_size=2).map(tuple),
)


@given(
    st.builds(
        Callers,
        st.none() | st.lists(RULE, max_size=3).map(tuple),
        st.lists(RULE, max_size=2).map(tuple),
    ),
    REQUEST,
)
def test_each_rule_is_judged_as_a_check_would(callers: Callers, request: Request) -> None:
    """Of any callers and any request."""
    judged = judge(callers, request)
    deny, allow = judged[: len(callers.deny)], judged[len(callers.deny) :]
    assert [j.fits for j in deny] == [r.matches(request, widely=True) for r in callers.deny]
    assert [j.fits for j in allow] == [r.matches(request) for r in callers.allow or ()]
