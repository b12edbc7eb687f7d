from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.envoy_config.rbac_model import Sent, passes
from tests.unit.envoy_config.test_expressions import TAME_PATH, WILD_PATH
from vaultauthz.broker import Binding, BindingTable, Broker
from vaultauthz.core.callers import Callers, Claim, Pattern, Rule
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.injection import Mutation
from vaultauthz.core.readings import OVERRIDES, among
from vaultauthz.core.request import Request
from vaultauthz.core.routing import Routes
from vaultauthz.envoy_config.rbac import UnsayableError, filters

NAMES = (
    *("spiffe://a/one", "spiffe://a/two", "one.test", "CN=one", "spiffe://a/"),
    *("Spiffe://A/one", "ONE.test", "\u017fpiffe://a/one", "spiffe://a/\u212a", "spiffe://a/k"),
    *("CN=\u00fck", "cn=\u00fcK", "CN=\u00dck"),
)
GLOBS = (
    *("spiffe://a/*", "spiffe://a/one", "*", "*one*", "**", "*.test", "CN=*", "s*a*e", "spiffe"),
    *("spiffe://A/k", "ONE.TEST", "/*", "cn=*\u00fcK", "CN=\u00fc*", "SPIFFE*"),
)
WORDS = st.sampled_from(
    (
        "pay",
        "x",
        "pay x",
        "x\tpay",
        "payx",
        "",
        "a.b",
        "1",
        "true",
        "null",
        "x\u00a0pay",
        "ü",
        "u\u0308",
        "x\u2003pay",
        "pay\x85",
        "\uff50ay",
        "-0",
        "1.0",
        " pay ",
        "payü",
        "ü pay",
    )
)
BIGGEST = 2**53 - 1
NUMBERS = (0, 1, 1.0, 3, 2.5, -1, -0.0, 0.1, 1e308, -(2.0**53), 2.0**53, float(BIGGEST), 5e-324)
PLAIN = st.none() | st.booleans() | st.sampled_from(NUMBERS) | WORDS
FLAT = PLAIN | st.lists(PLAIN, max_size=3)
VALUES = FLAT | st.dictionaries(
    st.sampled_from(("b", "c", "b.c", "scope")),
    FLAT | st.dictionaries(st.sampled_from("bc"), PLAIN, max_size=2),
    max_size=2,
)
CLAIMS = st.dictionaries(
    st.sampled_from(("scope", "scp", "a", "a.b", "a.b.c", "a.scope")), VALUES, max_size=4
)
WANTED = st.sampled_from(
    (
        "pay",
        "x",
        "pay x",
        "",
        "1",
        "true",
        "ü",
        "x\u00a0pay",
        True,
        False,
        0,
        1,
        -1,
        3,
        BIGGEST,
        -BIGGEST,
    )
)
PATHS = (("scope",), ("scp",), ("a",), ("a", "b"), ("a", "scope"), ("a", "b", "c"))
CLAIM = st.builds(Claim, st.sampled_from(PATHS), WANTED)
METHODS = st.frozensets(st.sampled_from(("GET", "POST", "M-SEARCH", "G.T")), min_size=1)
RULE = st.builds(
    Rule,
    principal=st.none() | st.sampled_from(GLOBS).map(Pattern.parse),
    claims=st.lists(CLAIM, max_size=2).map(tuple),
    consumer=st.none() | st.none() | st.just(Pattern.parse("*")),
    group=st.none() | st.none() | st.just("g"),
    methods=st.none() | METHODS,
    path_prefix=st.none() | st.sampled_from(("/", "/a", "/v1/", "/v1", "/v1/a~b")),
)
RULES = st.lists(RULE, max_size=3).map(tuple)
CALLERS = st.builds(Callers, st.none() | RULES, RULES)
SANS = st.lists(st.sampled_from(NAMES), max_size=2).map(tuple)
OTHERS = ("", "GET", "post", "GXT", "G.T", "GET, POST", "m-search")
QUERIES = (
    "",
    "?x=1",
    "?_method=POST",
    "?a;%5fMethod=x",
    "?+_method[]",
    "?_methods=1",
    "?x=_method",
)
PATH = TAME_PATH | st.sampled_from(
    ("/v1/..;/x", "/v1/%2e%2e/x", "/v1?x=/a", "/v1#/a", "*", "v1", "")
)
SENT = st.builds(
    Sent,
    method=st.sampled_from(
        ("GET", "POST", "PUT", "GXT", "M-SEARCH", "post", "Get", "POST ", "GÉT")
    ),
    path=st.tuples(PATH, st.sampled_from(QUERIES)).map("".join),
    headers=st.lists(
        st.tuples(st.sampled_from(OVERRIDES), st.sampled_from(OTHERS)), max_size=3
    ).map(tuple),
    uris=SANS,
    dns=SANS,
    subject=st.sampled_from((*NAMES, "")),
    claims=st.none() | CLAIMS,
)


def allowed(callers: Callers, sent: Sent) -> bool:
    """What vaultauthz would answer to the check of this request."""
    slot = Slot()
    slot.credential = Credential(Mutation(), "id", "", ends_at=1.0)
    table = BindingTable([Binding("u", "s", callers, slot)], Routes())
    broker = Broker(table, lambda _request, _decision: True, lambda: 0.0)
    claims = () if sent.claims is None else (sent.claims,)
    named = Request("envoy", sent.method, "h", sent.path, "u", "s", sent.principal, claims=claims)
    named.headers = partial(among, sent.headers)
    return broker.check(named).allowed


@settings(max_examples=500)
@given(CALLERS, SENT)
@example(Callers(None, (Rule(methods=frozenset(("POST",))),)), Sent(method="post"))
@example(
    Callers((Rule(methods=frozenset(("GET",))), Rule(methods=frozenset(("POST",))))),
    Sent(headers=(("x-method-override", "post"),)),
)
@example(Callers(None, (Rule(path_prefix="/a"),)), Sent(path="/;x/a"))
@example(Callers((Rule(path_prefix="/v1"),)), Sent(path="/v1/..;/x"))
@example(Callers((Rule(principal=Pattern.parse("spiffe://a/one")),)), Sent(uris=NAMES[1::-1]))
def test_envoy_decides_as_we_do(callers: Callers, sent: Sent) -> None:
    """The printed rules let through what a check would allow, and nothing else."""
    assert passes(filters(callers), sent) == allowed(callers, sent)


@settings(max_examples=300)
@given(CALLERS, SENT, WILD_PATH)
@example(Callers(None, (Rule(path_prefix="/a"),)), Sent(), "/%2561")
@example(Callers(None, (Rule(path_prefix="/a"),)), Sent(), "/a%252Fx")
def test_envoy_lets_nothing_through_that_we_deny(callers: Callers, sent: Sent, path: str) -> None:
    """Of paths that are encoded twice, where it may deny more."""
    sent = replace(sent, path=path)
    if passes(filters(callers), sent):
        assert allowed(callers, sent)


@given(CLAIM, CLAIMS)
@example(Claim(("a", "b"), "x"), {"a.b": None, "a": {"b": "x"}})
@example(Claim(("a", "b"), "x"), {"a.b": "y", "a": {"b": "x"}})
@example(Claim(("a", "b"), "x"), {"a.b": [], "a": {"b": "x"}})
@example(Claim(("a", "b"), "x"), {"a": {"b": ["x"]}})
@example(Claim(("a", "b", "c"), "x"), {"a": {"b.c": "x"}})
@example(Claim(("a", "b", "c"), "x"), {"a.b": {"c": "x"}})
@example(Claim(("a", "b", "c"), "x"), {"a.b": {"c": "x"}, "a": {"b": {"c": "y"}}})
@example(Claim(("a", "b", "c"), "x"), {"a.b": {"c": "x"}, "a": {"b": {"c": None}}})
@example(Claim(("a", "scope"), "x"), {"a": {"scope": ["pay x"]}})
def test_claims(claim: Claim, claims: dict[str, Any]) -> None:
    """A claim is found under its name with dots or nested, alone or in a list, as we find it."""
    rule = Rule(claims=(claim,))
    assert passes(filters(Callers((rule,))), Sent(claims=claims)) == claim.met_by(claims)
    denied = not passes(filters(Callers(None, (rule,))), Sent(claims=claims))
    assert denied == claim.met_by(claims, widely=True)


def lets(callers: Callers, **sent: Any) -> bool:
    return passes(filters(callers), Sent(**sent))


class TestOneByOne:
    """The property, spelled out where a slip would hurt."""

    def test_only_the_first_name_counts(self) -> None:
        """A second URI, or a subject that looks like one, is not who the caller is."""
        callers = Callers((Rule(principal=Pattern.parse("spiffe://a/one")),))
        assert lets(callers, uris=("spiffe://a/one", "spiffe://a/two"))
        assert not lets(callers, uris=("spiffe://a/two", "spiffe://a/one"))
        assert not lets(callers, uris=("spiffe://a/two",), subject="spiffe://a/one")
        assert not lets(callers, uris=("spiffe://a/two",), dns=("spiffe://a/one",))

    def test_nobody_is_no_principal(self) -> None:
        """`principal: *` wants a certificate."""
        callers = Callers((Rule(principal=Pattern.parse("*")),))
        assert not lets(callers)
        assert lets(callers, subject="CN=one")

    def test_deny_wins(self) -> None:
        """A rule of `deny` wins over `callers`, and all of its keys have to fit."""
        callers = Callers(None, (Rule(methods=frozenset(("POST",)), path_prefix="/admin"),))
        assert not lets(callers, method="POST", path="/admin/x")
        assert lets(callers, method="GET", path="/admin/x")
        assert lets(callers, method="POST", path="/administrators")

    def test_deny_knows_disguises(self) -> None:
        """Parameters, encoded ones too, do not lead past a denied prefix."""
        callers = Callers(None, (Rule(path_prefix="/admin"),))
        for path in (
            "/admin;x",
            "/admin%3Bx/y",
            "/;/admin",
            "/%61dmin",
            "/a/../admin",
            "/x/..;/admin",
        ):
            assert not lets(callers, path=path), path
        assert lets(callers, path="/admin2")

    def test_a_tunnel_does_not_lead_past_a_path(self) -> None:
        """CONNECT has no path, and what goes through has some that nobody sees."""
        for callers in (
            Callers(None, (Rule(path_prefix="/admin"),)),
            Callers((Rule(path_prefix="/"),)),
        ):
            assert not lets(callers, method="CONNECT", path="")
            assert lets(callers, path="/x")
        assert lets(Callers(None, (Rule(methods=frozenset(("POST",))),)), method="CONNECT", path="")

    def test_kong_s_keys_match_nobody(self) -> None:
        """A rule with a consumer or a group allows nobody at Envoy's door, and denies nobody."""
        rules = (Rule(consumer=Pattern.parse("*")), Rule(group="g"))
        assert not lets(Callers(rules))
        assert lets(Callers(None, rules))

    def test_a_scope_with_odd_spaces(self) -> None:
        """What no word of a scope may hold separates words where that denies, not where it allows."""
        rule = Rule(claims=(Claim(("scope",), "pay"),))
        assert not lets(Callers((rule,)), claims={"scope": "x\u00a0pay"})
        assert not lets(Callers(None, (rule,)), claims={"scope": "x\u00a0pay"})


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule(claims=(Claim(tuple("abcdefghi"), "x"),)), "too many dots"),
    ],
)
def test_names_with_too_many_ways_are_refused(rule: Rule, why: str) -> None:
    """Each dot doubles what Envoy has to be told."""
    with pytest.raises(UnsayableError, match=rf"callers\[0\].*{why}"):
        filters(Callers((rule,)))
    with pytest.raises(UnsayableError, match=rf"deny\[0\].*{why}"):
        filters(Callers(None, (rule,)))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule(path_prefix="/a%20b"), "path_prefix"),
        (Rule(path_prefix="/a;v=1"), "path_prefix"),
        (Rule(principal=Pattern.parse("a*b*" + "c" * 82)), "too long"),
        (Rule(principal=Pattern.parse("a*\u00fc" + "c" * 88)), "too long"),
        (Rule(claims=(Claim(("a", "", "b"), "x"),)), "empty part"),
    ],
)
def test_what_envoy_cannot_say_is_refused(rule: Rule, why: str) -> None:
    """A rule that Envoy would read otherwise is refused, as one that allows and one that denies."""
    for callers, place in (
        (Callers((rule,)), r"callers\[0\]"),
        (Callers(None, (rule,)), r"deny\[0\]"),
    ):
        with pytest.raises(UnsayableError, match=f"{place}.*{why}"):
            filters(callers)
