"""What of a secret can go on a request, and how the rest is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.secret import Fields, shown_names
from vaultauthz.core.template import MissingFieldError, Template

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def shown(data: dict[str, Any]) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in Fields.of(data).items()}


def test_nested_objects() -> None:
    """A dot for each level."""
    data = {"db": {"password": "deep", "ports": {"tls": 5432}}, "note": "x"}
    assert shown(data) == {"note": "x", "db.password": "deep", "db.ports.tls": "5432"}


def test_its_own_name_goes_first() -> None:
    """A field that is called `db.password` is that one, wherever it stands."""
    assert shown({"db": {"password": "deep"}, "db.password": "flat"}) == {"db.password": "flat"}
    assert shown({"a": {"b": {"c": "3"}}, "a.b": {"c": "2"}}) == {"a.b.c": "2"}


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "null"),
        ({}, "an empty object"),
        ([], "a list, not of texts"),
        ([{"a": 1}], "a list, not of texts"),
        ("\ud800", "text with half a character"),
        (float("nan"), "no number"),
    ],
)
def test_what_is_there_and_of_no_use(value: Any, what: str) -> None:
    """The message does not say that it is not there, and never shows it."""
    with pytest.raises(MissingFieldError) as caught:
        Template.parse("{a}").fill(Fields.of({"a": value, "b": "s3cr3t"}))
    assert str(caught.value) == f"the secret has no field 'a'; it has: a ({what}), b"


def test_an_object_where_a_field_is_wanted() -> None:
    """Its own fields are named."""
    with pytest.raises(MissingFieldError, match=r"no field 'db'; it has: db\.password"):
        Template.parse("{db}").fill(Fields.of({"db": {"password": "s3cr3t"}}))


def test_a_bound_on_depth() -> None:
    """What is nested deeper is told."""
    data: dict[str, Any] = {"x": "1"}
    for _ in range(9):
        data = {"a": data}
    assert Fields.of(data) == {}
    assert shown_names(Fields.of(data)) == (".".join("a" * 9) + " (nested too deep)",)


@given(st.dictionaries(st.text(), JSON))
def test_nothing_is_lost(data: dict[str, Any]) -> None:
    """Each name at the top is told, by itself or by what is in it; each value is text for HTTP."""
    fields = Fields.of(data)
    names = shown_names(fields)
    for name in data:
        assert any(each == name or each.startswith((f"{name}.", f"{name} (")) for each in names)
    for secret in fields.values():
        secret.reveal().encode()
