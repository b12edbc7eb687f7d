"""Headers, parameters and cookies of a client that an upstream may read as ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config.forms.header import Header
from vaultauthz.core.injection import merge_cookies, render, unwanted
from vaultauthz.core.readings import (
    among,
    folded_header,
    folded_parameter,
    header_spellings,
    is_parameter,
    long_names,
    other_methods,
)
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template

NAMES = st.lists(st.sampled_from(("x", "Api", "key")), min_size=1, max_size=9).flatmap(
    lambda parts: st.lists(st.sampled_from("-_"), min_size=len(parts), max_size=len(parts)).map(
        lambda joints: "".join(a + b for a, b in zip(parts, (*joints[1:], ""), strict=True))
    )
)


@given(NAMES, st.data())
def test_every_alias_is_listed_or_looked_for(name: str, data: st.DataObject) -> None:
    """Whatever hyphens are underscores: it is in the list, or found among the request's headers."""
    slot = folded_header(name)
    alias = "".join(data.draw(st.sampled_from("-_")) if c == "-" else c for c in slot)
    sent = among([(alias, "mine"), ("other", "x")], long_names([slot])) or ()
    assert alias in header_spellings(slot) or sent == ((alias, "mine"),)
    assert len(header_spellings(slot)) <= 4


@given(NAMES)
def test_a_header_stripped_under_a_name_with_underscores_is_not_the_other(name: str) -> None:
    """`strip: [X_Forwarded_For]` leaves X-Forwarded-For alone."""
    wanted = f"{name}_end"
    hyphened = folded_header(wanted)
    assert hyphened not in header_spellings(wanted)
    assert among([(hyphened, "x")], long_names([wanted])) == ()


def test_what_is_dropped() -> None:
    """Of slots and of `strip`, in each spelling."""
    assert unwanted(["x-api-key"], ["X-Debug"]) == (
        *("x-api-key", "x_api-key", "x-api_key", "x_api_key"),
        *("x-debug", "x_debug"),
    )
    assert set(unwanted(["x_api_key"], [])) == {"x_api_key", "x-api-key", "x_api-key", "x-api_key"}


def test_a_mutation_never_removes_what_it_sets() -> None:
    """Two slots may be aliases of each other."""
    slots = [Header(name, Template.parse("{k}")) for name in ("x-key", "x_key")]
    assert render(slots, {"k": Secret("v")}).remove == ()


@pytest.mark.parametrize(
    "name",
    [
        "key",
        "k%65y",
        "%6bey",
        "key[]",
        "key[0]",
        "key[0][1]",
        "+key",
        "key+",
        "key%5b%5d",
        "key%00x",
        "key%00[x",
    ],
)
def test_parameters_that_may_be_ours(name: str) -> None:
    """In each encoding, and in PHP's forms."""
    folds = {folded_parameter("key")}
    assert is_parameter(f"{name}=x", folds)
    assert is_parameter(f"a=b;{name}=x", folds)
    assert is_parameter(name, folds)


@pytest.mark.parametrize(
    "pair", ["keys=x", "KEY=x", "a=key", "a=key=x", "my.key=x", "ke=y", "", "=key"]
)
def test_parameters_that_are_not(pair: str) -> None:
    """The rest of the query stays as it is."""
    assert not is_parameter(pair, {folded_parameter("key")})


@pytest.mark.parametrize(
    "name",
    ["my_key", "my.key", "my%20key", "my[key", "my%5Bkey", "my+key", "my.key[a]", "my_key%00a"],
)
def test_php_makes_underscores(name: str) -> None:
    """Of what may not stand in a variable's name: of a bracket that is not closed, too."""
    assert is_parameter(f"{name}=x", {folded_parameter("my_key")})
    assert not is_parameter("my[key]=x", {folded_parameter("my_key")})


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("session=a; session=b; theme=dark", "theme=dark"),
        ("s%65ssion=a; b=c", "b=c"),
        ("b=c,session=x; d=e", "d=e"),
        ("session[a]=x; d=e", "d=e"),
        ('a="x; session=evil"; d=e', 'a="x; d=e'),
        ("sessions=1; my-session=2", "sessions=1; my-session=2"),
    ],
)
def test_cookies_that_may_be_ours(sent: str, kept: str) -> None:
    """They go, whatever form a server would read them in."""
    assert merge_cookies(sent, [("session", "ours")]) == f"{kept}; session=ours"


def test_a_name_with_underscores_is_found_with_them_only() -> None:
    """Hyphens are found in either form, underscores are themselves."""
    headers = [("x_a-b", "1"), ("x_a_b", "2"), ("x-a-b", "3")]
    assert among(headers, ["x_a-b"]) == (("x_a-b", "1"), ("x_a_b", "2"))


@pytest.mark.parametrize(
    ("values", "others"),
    [
        ((), ()),
        (("",), ()),
        (("get",), ()),
        (("put",), ("PUT",)),
        ((" \tput\t ",), ("PUT",)),
        (("XLOCK",), ("XLOCK",)),
        (("", "PUT"), ("PUT",)),
        (("PUT", "\t", "delete"), ("DELETE", "PUT")),
        (("\x0bput",), None),
        (("p t",), None),
    ],
)
def test_methods_that_headers_may_put_in_its_place(
    values: tuple[str, ...], others: tuple[str, ...] | None
) -> None:
    """Each that says one counts, in capitals; what is no method means that nobody can say."""
    names = ("x-http-method", "x-http-method-override", "x-method-override")
    found = other_methods("GET", "/", tuple(zip(names, values, strict=False)))
    assert (found and tuple(sorted(found))) == others


@pytest.mark.parametrize(
    "name", ["_method", "_METHOD", "_%4dethod", "_%6dETHO%44", "+.method", "[method"]
)
def test_a_parameter_may_take_the_methods_place(name: str) -> None:
    """Then nobody can say which it is; one that is called otherwise may not."""
    assert other_methods("POST", f"/a?b=c&{name}=PUT", ()) is None
    assert other_methods("POST", f"/a?b=c&{name}s=PUT", ()) == ()


def test_a_method_in_small_letters_may_be_the_other() -> None:
    """Many servers take it so."""
    assert other_methods("delete", "/", ()) == ("DELETE",)
    assert other_methods("get it", "/", ()) is None
