"""Whose lease a request gets: who is who, and that nobody can be taken for another."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.request import Request

# Few and short, with the characters that somebody might join parts with: collisions are likely.
words = st.sampled_from(
    ["", "a", "b", "aa", "ab", "a\x00b", "a,b", "()", "None", "'", "iss", "sub"]
)
tokens = st.fixed_dictionaries({}, optional={"iss": words, "sub": words, "scope": words})


def request_of(principal: str = "", consumer: str = "", *claims: Mapping[str, Any]) -> Request:
    """A request of this caller."""
    return Request("envoy", principal=principal, consumer=consumer, claims=claims)


requests = st.builds(
    lambda principal, consumer, claims: request_of(principal, consumer, *claims),
    words,
    words,
    st.lists(tokens, max_size=3),
)


def authenticated(request: Request) -> object:
    """All that the gateway has said about the caller, as values that cannot be confused."""
    subjects = frozenset(
        (claims.get("iss") or None, claims["sub"]) for claims in request.claims if claims.get("sub")
    )
    return request.principal or None, request.consumer or None, subjects


@given(requests, requests)
def test_two_callers_are_one_exactly_if_all_that_is_known_of_them_is_the_same(
    one: Request, other: Request
) -> None:
    """No value, however it is written, stands in for another part or for a boundary."""
    same = authenticated(one) == authenticated(other)
    assert (one.identity == other.identity) == same


@given(requests)
def test_nobody_is_who_has_neither_certificate_nor_consumer_nor_subject(request: Request) -> None:
    """And only he has no identity."""
    assert (request.identity == ()) == (authenticated(request) == (None, None, frozenset()))


def test_the_same_word_in_each_place_is_another_caller() -> None:
    """Principal a, consumer a, subject a and issuer a: none of them is the same."""
    callers = [
        request_of("a"),
        request_of("", "a"),
        request_of("a", "a"),
        request_of("", "", {"sub": "a"}),
        request_of("", "", {"iss": "a", "sub": "a"}),
        request_of("a", "", {"sub": "a"}),
        request_of("a", "", {"iss": "a", "sub": "a"}),
        request_of("a", "", {"iss": "a", "sub": "a"}, {"sub": "a"}),
        request_of("", "a", {"sub": "a"}),
        request_of("", "", {"iss": "a", "sub": "b"}, {"iss": "b", "sub": "a"}),
        request_of("", "", {"iss": "a", "sub": "a"}, {"iss": "b", "sub": "b"}),
    ]
    assert len({request.identity for request in callers}) == len(callers)


def test_neither_order_nor_repetition_of_tokens_matters() -> None:
    """Six tokens are the same caller whichever the gateway lists first, and however often."""
    tokens = [{"iss": iss, "sub": sub} for iss in ("x", "y") for sub in ("1", "2", "3")]
    orders = [*itertools.permutations(tokens), (*tokens, *tokens)]
    assert len({request_of("", "", *order).identity for order in orders}) == 1


@pytest.mark.parametrize("subject", [None, ""])
def test_a_token_without_a_subject_names_nobody(subject: object) -> None:
    """Not one caller for all whose tokens have none; beside a certificate it adds nothing."""
    assert request_of("", "", {"iss": "x", "sub": subject}).identity == ()
    assert request_of("", "", {"iss": "x"}).identity == ()
    assert request_of("p", "", {"iss": "x", "sub": subject}).identity == request_of("p").identity


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 7.0},
        {"sub": 9007199254740993.0},  # as Envoy sends 9007199254740992, too
        {"sub": True},
        {"sub": ["a"]},
        {"sub": {"id": "a"}},
        {"sub": "a", "iss": 1.0},
        {"sub": "a", "iss": ["x"]},
        {"sub": "a", "iss": {}},
    ],
)
@pytest.mark.parametrize("principal", ["", "p"])
def test_a_token_that_cannot_be_told_from_others_makes_its_bearer_nobody(
    claims: dict[str, Any], principal: str
) -> None:
    """With a certificate, too: else all users of that kind behind it would share a lease."""
    assert request_of(principal, "", claims).identity == ()
    assert request_of(principal, "", {"iss": "x", "sub": "a"}, claims).identity == ()


@pytest.mark.parametrize(
    ("request_", "caller"),
    [
        (Request("envoy"), ""),
        (Request("envoy", principal="spiffe://corp/shop"), "spiffe://corp/shop"),
        (Request("kong", consumer="shop"), "shop"),
        (Request("envoy", claims=({"sub": "ann"},)), "ann"),
        (Request("envoy", principal="shop", claims=({"sub": "ann"}, {"sub": 7})), "shop, ann"),
        (Request("envoy", claims=({"iss": "a"}, {"sub": "ann"}, {"sub": "bob"})), "ann, bob"),
    ],
)
def test_the_audit_log_names_the_certificate_and_the_user_behind_it(
    request_: Request, caller: str
) -> None:
    """Two users behind one certificate are told apart there too."""
    assert request_.caller == caller
