from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vaultauthz.core.callers import INEXACT, Callers, Claim, Pattern, Rule
from vaultauthz.core.request import Request

SHOP = Pattern.parse("spiffe://corp/shop/*")
NOBODY = Request("envoy")
ANYBODY = Request(
    "envoy",
    method="POST",
    host="pay.test",
    path="/v1/pay?x=1",
    principal="spiffe://corp/shop/web",
    consumer="acme",
    groups=("gold", "eu"),
    claims=({"sub": "u1", "scope": "pay read"},),
)


# --- patterns ---


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("spiffe://corp/shop/*", "spiffe://corp/shop/web", True),
        ("spiffe://corp/shop/*", "spiffe://corp/shop/eu/web", True),
        ("spiffe://corp/shop/*", "spiffe://corp/shop/", True),
        ("spiffe://corp/shop/*", "spiffe://corp/shop", False),
        ("spiffe://corp/shop/*", "spiffe://corp/shopping/web", False),
        ("spiffe://corp/shop/*", "xspiffe://corp/shop/web", False),
        ("shop.corp", "shopxcorp", False),
        ("shop", "Shop", False),
        ("shop", "shop\n", False),
        ("shop*", "shop\nnext line", True),
        ("*.corp", "a.b.corp", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("a*b*b", "ab", False),
        ("a*b*b", "abxb", True),
        ("[a-z]+(x|y)$^?", "[a-z]+(x|y)$^?", True),
        ("[a-z]+", "abc", False),
        ("*", "anybody", True),
        ("*", "", False),
        ("", "", False),
    ],
)
def test_pattern(pattern: str, value: str, fits: bool) -> None:
    """``*`` stands for any run of characters and nothing else is special; empty never fits."""
    assert Pattern.parse(pattern).matches(value) is fits


@given(st.text(min_size=1).filter(lambda text: "*" not in text), st.text())
def test_pattern_without_star_is_equality(text: str, value: str) -> None:
    """Text without ``*`` matches itself alone, whatever it holds."""
    assert Pattern.parse(text).matches(text)
    assert Pattern.parse(text).matches(value) is (value == text)


@given(st.lists(st.text(".*+?()[]{}|^$\\/ab"), min_size=2, max_size=4), st.text(min_size=1))
def test_pattern_takes_anything_for_a_star(pieces: list[str], run: str) -> None:
    """Filling any text in for the stars gives a value that matches."""
    pieces = [piece.replace("*", "") for piece in pieces]
    assert Pattern.parse("*".join(pieces)).matches(run.join(pieces))


def meant(pattern: str, value: str) -> bool:
    """What a pattern is: the regular expression that says it, which is slow in some cases."""
    regex = ".*".join(re.escape(piece) for piece in pattern.split("*"))
    return bool(value) and re.fullmatch(regex, value, re.DOTALL) is not None


@given(st.text("ab*", max_size=8), st.text("ab\n", max_size=10))
@example("a*a", "a")
@example("ab*ba", "aba")
@example("*a*b*", "ba")
@example("**", "")
def test_pattern_is_what_its_expression_says(pattern: str, value: str) -> None:
    """Looking for one piece after the other finds exactly what the regular expression would."""
    assert Pattern.parse(pattern).matches(value) is meant(pattern, value)


class Counted(str):
    """Text that counts how often it is searched."""

    __slots__ = ()
    searches = 0

    def find(self, *args: Any) -> int:
        Counted.searches += 1
        return super().find(*args)


def test_pattern_searches_once_for_each_piece() -> None:
    """A value made to be shared out among the stars in many ways costs no more than another."""
    Counted.searches = 0
    value = Counted("spiffe://" + "/ns//sa//pod/" * 600)
    assert not Pattern.parse("spiffe://*/ns/*/sa/*/pod/*/web").matches(value + "/we")
    assert not Pattern.parse("spiffe://*/ns/*/sa/*/pod/*/x/*").matches(Counted(value + "/"))
    assert Counted.searches <= 4


# --- claims ---


@pytest.mark.parametrize(
    ("path", "wanted", "claims", "met"),
    [
        ("role", "admin", {"role": "admin"}, True),
        ("role", "admin", {"role": "Admin"}, False),
        ("role", "admin", {"role": "admin,root"}, False),
        ("role", "admin", {"role": "reader admin"}, False),  # only scopes are written so
        ("role", "admin", {"role": ["reader", "admin"]}, True),
        ("role", "admin", {"role": ("reader", "admin")}, True),
        ("role", "admin", {"role": ["administrator"]}, False),
        ("role", "admin", {"role": [["admin"]]}, False),
        ("role", "admin", {"role": {"admin": True}}, False),
        ("role", "admin", {}, False),
        ("role", "admin", {"role": None}, False),
        ("role", "admin", {"role": []}, False),
        ("scope", "pay", {"scope": "read pay"}, True),
        ("scope", "pay", {"scope": "payments"}, False),
        ("scope", "pay", {"scope": ["read", "pay"]}, True),
        ("scp", "pay", {"scp": "pay"}, True),
        ("token.scope", "pay", {"token": {"scope": "a pay"}}, True),
        ("realm_access.roles", "gw", {"realm_access": {"roles": ["gw"]}}, True),
        ("realm_access.roles", "gw", {"realm_access": "gw"}, False),
        ("realm_access.roles", "gw", {"realm_access": {}}, False),
        ("https://corp.example/role", "x", {"https://corp.example/role": "x"}, True),
        ("level", 3, {"level": 3}, True),
        ("level", 3, {"level": 3.0}, True),  # a Struct has only doubles
        ("level", 3, {"level": 3.5}, False),
        ("level", 3, {"level": "3"}, False),
        ("level", "3", {"level": 3.0}, False),
        ("level", 3, {"level": [1.0, 3.0]}, True),
        ("level", 1, {"level": True}, False),
        ("level", 0, {"level": False}, False),
        ("vip", True, {"vip": True}, True),
        ("vip", True, {"vip": 1.0}, False),
        ("vip", True, {"vip": "true"}, False),
        ("vip", False, {"vip": False}, True),
        ("vip", False, {"vip": 0.0}, False),
        ("vip", False, {}, False),
        ("vip", False, {"vip": None}, False),
    ],
)
def test_claim(path: str, wanted: str | int | bool, claims: dict[str, Any], met: bool) -> None:
    """A claim is met by the same value of the same kind, also in a list or a scope."""
    assert Claim(tuple(path.split(".")), wanted).met_by(claims) is met


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("resource_access.my.client.roles", {"resource_access": {"my.client": {"roles": ["x"]}}}),
        ("https://corp.example/app.role", {"https://corp.example/app": {"role": "x"}}),
        ("kubernetes.io.namespace", {"kubernetes.io": {"namespace": "x"}}),
        (
            "kubernetes.io.serviceaccount.name",
            {"kubernetes.io": {"namespace": "y", "serviceaccount": {"name": "x", "uid": "z"}}},
        ),
        ("a.b", {"a.b": "x", "a": {"b": ["x"]}}),
        ("a.b", {"a.b": None, "a": {"b": "x"}}),
        ("a.b.c", {"a": {"b.c": "x"}, "a.b": {"d": "y"}}),
    ],
)
def test_a_dot_may_be_one_of_a_name(path: str, claims: dict[str, Any]) -> None:
    """Names of clients, of URLs and Kubernetes' own have dots."""
    for widely in (False, True):
        assert Claim(tuple(path.split(".")), "x").met_by(claims, widely=widely)
        assert not Claim(tuple(path.split(".")), "z").met_by(claims, widely=widely)


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("a.b", {"a.b": "y", "a": {"b": "x"}}),
        ("a.b", {"a.b": "x", "a": {"b": "y"}}),
        ("a.b", {"a.b": [], "a": {"b": ["x"]}}),
        ("a.b", {"a.b": {}, "a": {"b": "x"}}),
        ("a.b.c", {"a": {"b.c": "y"}, "a.b": {"c": "x"}}),
        ("scope", {"scope": ["read x"]}),
        ("a.scp", {"a": {"scp": ["x\u00a0read"]}}),
    ],
)
def test_what_can_be_read_in_two_ways(path: str, claims: dict[str, Any]) -> None:
    """One is enough to deny; what allows has to be said by all, and by the book."""
    claim = Claim(tuple(path.split(".")), "x")
    assert claim.met_by(claims, widely=True)
    assert claim.shown_in(claims, widely=True) not in ("y", [], {})
    assert not claim.met_by(claims)
    assert claim.shown_in(claims) != "x"
    assert not Claim(claim.path, "z").met_by(claims, widely=True)


@given(st.recursive(
    st.sampled_from(("x", "y", 1.0, True, None)),
    lambda inner: st.dictionaries(st.sampled_from(("a", "b", "a.b", "b.scope")), inner)
    | st.lists(inner, max_size=2),
))  # fmt: skip
def test_a_claim_that_denies_finds_no_less(claims: Any) -> None:
    """What would be allowed by a claim is denied by it."""
    for path in (("a",), ("a", "b"), ("a", "b", "a"), ("a", "b", "scope")):
        for wanted in ("x", 1, True):
            claim = Claim(path, wanted)
            token = {"a": claims, "a.b": claims}
            assert claim.met_by(token, widely=True) >= claim.met_by(token)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("spiffe://corp/bob", "SPIFFE://Corp/bob"),
        ("spiffe://Corp/*/x", "spiffe://corp/a/X"),
        ("bob.corp", "Bob.CORP"),
        ("*.corp", "bob.Corp"),
        ("CN=Bob*", "cn=bob,O=x"),
    ],
)
def test_no_letter_case_of_a_name_leads_past_deny(pattern: str, name: str) -> None:
    """A host is the same in any; what allows wants the very name."""
    rule = Rule(principal=Pattern.parse(pattern))
    request = replace(ANYBODY, principal=name)
    assert rule.matches(request, widely=True)
    assert not rule.matches(request)
    assert not rule.matches(replace(request, principal=f"x{name}x"), widely=True)
    assert not Rule(consumer=Pattern.parse("Bob")).matches(
        replace(request, consumer="bob"), widely=True
    )


@pytest.mark.parametrize(
    ("claims", "widely", "shown"),
    [
        ({"team": "ops"}, False, "ops"),
        ({"team": "dev"}, False, "dev"),
        ({"team": None}, False, None),
        ({}, True, None),
        ({"team": ["dev", "ops"]}, True, ["dev", "ops"]),
    ],
)
def test_what_people_are_shown_of_a_claim(claims: dict[str, Any], widely: bool, shown: Any) -> None:
    """The value that is there, be it the wanted one or not; None when there is none."""
    assert Claim(("team",), "ops").shown_in(claims, widely=widely) == shown


def test_of_several_values_the_one_that_decides_is_shown() -> None:
    """The one that does not fit where all have to, the one that does where one is enough."""
    claim, claims = Claim(("a", "b"), "ops"), {"a.b": "ops", "a": {"b": "dev"}}
    assert claim.shown_in(claims) == "dev"
    assert claim.shown_in(claims, widely=True) == "ops"
    assert claim.shown_in({"a.b": "x", "a": {"b": "y"}}, widely=True) == "x", "none does"


@pytest.mark.parametrize(
    ("path", "wanted", "value", "met"),
    [
        ("scope", "read", "readonly a.read read-all read", True),
        ("scope", "read", "read readonly", True),
        ("scope", "read", "readonly", False),
        ("scope", "a b", "a b", False),
        ("scope", True, "True", False),
        ("aud", "read", "read write", False),
    ],
)
def test_words_of_a_scope(path: str, wanted: str | bool, value: str, met: bool) -> None:
    """Each is looked at; a wanted text with a space in it is none, and other claims have none."""
    claim = Claim((path,), wanted)
    assert claim.met_by({path: value}) is met
    assert claim.met_by({path: value}, widely=True) is met
    assert claim.met_by({path: [5, f"{value} x"]}, widely=True) is met


def test_claims_of_one_token() -> None:
    """Two claims must be met by one token; two half-fitting tokens are not enough."""
    rule = Rule(claims=(Claim(("iss",), "a"), Claim(("role",), "admin")))
    halves = ({"iss": "a", "role": "user"}, {"iss": "b", "role": "admin"})
    assert not rule.matches(replace(ANYBODY, claims=halves))
    assert rule.matches(replace(ANYBODY, claims=(*halves, {"iss": "a", "role": "admin"})))


# --- rules ---

KEYS: dict[str, tuple[Rule, Request]] = {
    "principal": (Rule(principal=SHOP), replace(ANYBODY, principal="spiffe://corp/other")),
    "claims": (
        Rule(claims=(Claim(("scope",), "pay"),)),
        replace(ANYBODY, claims=({"scope": "x"},)),
    ),
    "consumer": (Rule(consumer=Pattern.parse("acme")), replace(ANYBODY, consumer="acme2")),
    "group": (Rule(group="gold"), replace(ANYBODY, groups=("golden",))),
    "methods": (Rule(methods=frozenset({"POST"})), replace(ANYBODY, method="GET")),
    "path_prefix": (Rule(path_prefix="/v1"), replace(ANYBODY, path="/v10?/v1")),
}


@pytest.mark.parametrize("key", KEYS)
def test_key(key: str) -> None:
    """Each key lets the request through that has it, and not the one that has another."""
    rule, other = KEYS[key]
    assert rule.matches(ANYBODY)
    assert not rule.matches(other)


@pytest.mark.parametrize("key", KEYS)
def test_missing_identity_never_matches(key: str) -> None:
    """What the gateway did not say fits no rule that asks for it."""
    rule, _ = KEYS[key]
    assert not rule.matches(replace(NOBODY, path=""))


@pytest.mark.parametrize(
    "rule", [Rule(principal=Pattern.parse("*")), Rule(consumer=Pattern.parse("*"))]
)
def test_star_asks_for_somebody(rule: Rule) -> None:
    """``*`` means anybody who is authenticated, not nobody."""
    assert rule.matches(ANYBODY)
    assert not rule.matches(NOBODY)


def test_all_keys_of_a_rule_must_match() -> None:
    """One key that does not fit is enough to fail the rule."""
    whole = Rule(
        principal=SHOP,
        claims=KEYS["claims"][0].claims,
        consumer=Pattern.parse("acme"),
        group="gold",
        methods=frozenset({"POST"}),
        path_prefix="/v1",
    )
    assert whole.matches(ANYBODY)
    for _, other in KEYS.values():
        assert not whole.matches(other)


def test_methods_of_none_is_no_method() -> None:
    """An empty set of methods is not the same as no ``methods`` key."""
    assert not Rule(methods=frozenset()).matches(ANYBODY)
    assert Rule().matches(NOBODY)


# --- callers ---


def test_any() -> None:
    """``callers: any`` lets everybody in, also those without a name."""
    assert Callers(allow=None).permits(NOBODY)


def test_no_rules_is_nobody() -> None:
    """An empty list lets nobody in."""
    assert not Callers(allow=()).permits(ANYBODY)


def test_rules_are_alternatives() -> None:
    """One rule that matches is enough."""
    rules = (Rule(group="silver"), Rule(group="gold"))
    assert Callers(rules).permits(ANYBODY)
    assert not Callers(rules[:1]).permits(ANYBODY)


MATCHING = st.sampled_from([rule for rule, _ in KEYS.values()])
OTHERS = st.sampled_from([Rule(group="no"), Rule(consumer=Pattern.parse("no"))])


@given(st.none() | st.lists(MATCHING | OTHERS), st.lists(OTHERS), MATCHING, st.lists(OTHERS))
def test_deny_wins(
    allow: list[Rule] | None, before: list[Rule], deny: Rule, after: list[Rule]
) -> None:
    """Whoever a deny rule matches is out, whatever allows him."""
    allowed = None if allow is None else tuple(allow)
    assert not Callers(allowed, (*before, deny, *after)).permits(ANYBODY)
    assert not Callers(None, (deny,)).permits(ANYBODY)
    assert Callers(None, tuple(before)).permits(ANYBODY)


RULES = st.builds(
    Rule,
    principal=st.sampled_from([None, SHOP, Pattern.parse("no")]),
    claims=st.sampled_from([(), (Claim(("sub",), "u1"),)]),
    consumer=st.sampled_from([None, Pattern.parse("acme")]),
    group=st.sampled_from([None, "gold"]),
    methods=st.sampled_from([None, frozenset({"POST"})]),
    path_prefix=st.sampled_from([None, "/", "/v1", "/v1/", "/v2", "/v1/pay"]),
)
ASKING = st.builds(
    replace,
    st.sampled_from([NOBODY, ANYBODY]),
    method=st.sampled_from(["GET", "POST"]),
    path=st.sampled_from(["/v1/pay?x=1", "/v10", "/v2", "//v2", "/;a/v2/x", "*", ""]),
    principal=st.sampled_from(["", "spiffe://corp/shop/web"]),
    consumer=st.sampled_from(["", "acme"]),
    groups=st.sampled_from([(), ("gold",)]),
    claims=st.sampled_from([(), ({"sub": "u1"},)]),
)


@pytest.mark.parametrize(
    ("deny", "request_"),
    [
        (Rule(principal=Pattern.parse("shop.test")), replace(NOBODY, principal="SHOP.test")),
        (
            Rule(claims=(Claim(("a", "b"), "x"),)),
            replace(NOBODY, claims=({"a.b": "x", "a": {"b": "y"}},)),
        ),
        (Rule(claims=(Claim(("n",), INEXACT),)), replace(NOBODY, claims=({"n": float(INEXACT)},))),
        (Rule(path_prefix="/admin"), replace(NOBODY, path="//Admin/x")),
    ],
)
def test_what_is_widely_denied_is_not_as_widely_allowed(deny: Rule, request_: Request) -> None:
    """Whatever may be meant is denied; only what is certainly meant is allowed."""
    assert not Callers(None, (deny,)).permits(request_)
    assert not Callers((deny,)).permits(request_)
    assert not deny.matches(request_)
    assert not deny.fits_caller(request_) or deny.path_prefix
    of_others = replace(deny, principal=SHOP)
    assert Callers(None, (of_others,)).permits(request_)


def test_a_number_that_has_neighbours_is_not_any_other() -> None:
    """Denied is what is the same double; not each number."""
    claim = Claim(("n",), INEXACT)
    assert claim.met_by({"n": float(INEXACT)}, widely=True)
    assert not claim.met_by({"n": 1.0}, widely=True)
    assert not claim.met_by({"n": float(INEXACT)})


def test_who_has_every_claim_of_a_rule() -> None:
    """In one token; of a claim with two values both have to fit, unless it denies."""
    rule = Rule(claims=(Claim(("a", "b"), "x"),))
    request = replace(NOBODY, claims=({"a.b": "x", "a": {"b": "y"}},))
    assert not rule.claims_met(request)
    assert rule.claims_met(request, widely=True)


def test_a_rule_about_a_path_denies_no_other() -> None:
    """Where anybody is allowed, and where some are."""
    deny = Rule(path_prefix="/admin")
    for callers in (Callers(None, (deny,)), Callers((Rule(methods=frozenset({"GET"})),), (deny,))):
        for path, permitted in (("/x", True), ("/admin", False), ("/x", True)):
            assert callers.permits(replace(NOBODY, method="GET", path=path)) is permitted


@pytest.mark.parametrize(
    "more", [{"groups": ("gold",)}, {"consumer": "acme"}, {"claims": ({"sub": "u1"},)}]
)
def test_what_one_request_brought_is_not_the_next_ones(more: dict[str, Any]) -> None:
    """With the same certificate and method, whichever comes first."""
    rules = (
        Rule(group="gold"),
        Rule(consumer=Pattern.parse("acme")),
        Rule(claims=(Claim(("sub",), "u1"),)),
    )
    plain = replace(NOBODY, method="GET")
    for order in ((False, True), (True, False)):
        callers = Callers(rules)
        for brings in order:
            request = replace(plain, **more) if brings else plain
            assert callers.permits(request) is brings


def test_each_method_that_a_rule_names_is_judged_by_itself() -> None:
    """Those that none names are all alike."""
    callers = Callers(
        (
            Rule(methods=frozenset({"GET"})),
            Rule(methods=frozenset({"PUT"}), consumer=Pattern.parse("acme")),
        )
    )
    for method in ("GET", "PUT", "LOCK", "MOVE", "GET"):
        assert callers.permits(replace(NOBODY, method=method)) is (method == "GET")
    assert len(callers._known) == 3


@given(st.none() | st.lists(RULES), st.lists(RULES), st.lists(ASKING))
def test_who_was_here_before_changes_nothing(
    allow: list[Rule] | None, deny: list[Rule], requests: list[Request]
) -> None:
    """Each request is judged as if its rules were read one by one, in whatever order they come."""
    callers = Callers(None if allow is None else tuple(allow), tuple(deny))
    for request in requests:
        denied = any(rule.matches(request, widely=True) for rule in deny)
        allowed = allow is None or any(rule.matches(request) for rule in allow)
        assert callers.permits(request) == (allowed and not denied)


def test_what_is_remembered_of_callers_is_bounded() -> None:
    """A million callers do not fill the memory."""
    callers = Callers((Rule(principal=SHOP),))
    for number in range(3000):
        principal = f"spiffe://corp/shop/{number}"
        assert callers.permits(replace(NOBODY, principal=principal))
        assert len(callers._known) <= 1024


@pytest.mark.parametrize("path", ["/admin", "/admin/x", "/admin?x"])
def test_path_under_the_prefix(path: str) -> None:
    """A prefix allows and denies what lies under it."""
    rule = Rule(path_prefix="/admin")
    assert not Callers(None, (rule,)).permits(replace(ANYBODY, path=path))
    assert Callers((rule,)).permits(replace(ANYBODY, path=path))


@pytest.mark.parametrize(
    "path", ["//admin", "/admin;v=1/x", "/;a/admin", "/admin;", "/a;/../admin"]
)
def test_deny_catches_other_spellings(path: str) -> None:
    """A path that the upstream may read as a denied one is denied, and never allowed."""
    rule = Rule(path_prefix="/admin")
    if ".." not in path:  # those are refused before, as ambiguous
        assert not Callers(None, (rule,)).permits(replace(ANYBODY, path=path))
    assert not Callers((rule,)).permits(replace(ANYBODY, path=path))


def test_what_a_decision_reads() -> None:
    """The doors ask what they must find out: claims and path only where a rule has them."""
    claims, path = KEYS["claims"][0], KEYS["path_prefix"][0]
    assert not Callers(None).reads_claims
    assert not Callers((Rule(group="x"),)).reads_path
    assert Callers((Rule(), claims)).reads_claims
    assert Callers(None, (claims,)).reads_claims
    assert Callers((path,)).reads_path
    assert Callers(None, (path,)).reads_path
    assert Callers((claims,), (path,)).rules == (claims, path)


def test_whether_a_decision_reads_the_method() -> None:
    """Then other methods that it may be taken for are judged as well."""
    method = Rule(methods=frozenset({"GET"}))
    assert Callers((Rule(group="x"), method)).reads_method is True
    assert Callers(None, (method,)).reads_method is True
    assert Callers((Rule(group="x"),), (Rule(path_prefix="/a"),)).reads_method is False
    assert Callers(None).reads_method is False


# --- request.caller ---


@pytest.mark.parametrize(
    ("request_", "caller"),
    [
        (ANYBODY, "spiffe://corp/shop/web, u1"),
        (replace(ANYBODY, principal=""), "acme, u1"),
        (replace(ANYBODY, principal="", consumer=""), "u1"),
        (Request("envoy", claims=({"sub": 7}, {"sub": "u2"})), "u2"),
        (NOBODY, ""),
    ],
)
def test_caller(request_: Request, caller: str) -> None:
    """The audit log's name for who sent it: principal or consumer, and a token's subject."""
    assert request_.caller == caller
