from __future__ import annotations

import base64
import string
from urllib.parse import parse_qsl

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaultauthz.config.forms.basic import Basic
from vaultauthz.config.forms.bearer import Bearer
from vaultauthz.config.forms.cookie import Cookie
from vaultauthz.config.forms.header import Header
from vaultauthz.config.forms.query import Query
from vaultauthz.core.injection import (
    Injection,
    Mutation,
    field_names,
    header_names,
    merge_cookies,
    render,
)
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import InjectionError, MissingFieldError, Template

KEY = Template.parse("{key}")
FORMS: dict[str, Injection] = {
    "header": Header("x-key", KEY),
    "bearer": Bearer(KEY),
    "basic username": Basic(KEY, Template.parse("p")),
    "basic password": Basic(Template.parse("u"), KEY),
    "query": Query("key", KEY),
    "cookie": Cookie("sid", KEY),
}
CONTROLS = [*map(chr, range(0x09)), *map(chr, range(0x0A, 0x20)), "\x7f"]
NO_ENCODING = ["\ud800", "\udcff", "\udfff"]  # JSON can hold them, UTF-8 cannot
# What any request can carry: no control character, no lone surrogate.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")))
# … and is a credential: something in it can be seen.
CREDENTIAL = TEXT.filter(lambda text: text.isprintable() and not text.isspace() and text)


def rendered(form: Injection, value: str) -> Mutation:
    """What ``form`` makes of one value."""
    return render([form], {"key": Secret(value)})


def test_header() -> None:
    """A header gets the template's text with the field in it."""
    form = Header("x-key", Template.parse("Key {key}!"))
    assert rendered(form, "a b").headers == (("x-key", "Key a b!"),)


def test_bearer() -> None:
    """A bearer token goes into ``authorization``."""
    assert rendered(Bearer(KEY), "hvs.x").headers == (("authorization", "Bearer hvs.x"),)


@given(CREDENTIAL.filter(lambda name: ":" not in name), CREDENTIAL)
def test_basic(username: str, password: str) -> None:
    """Whatever the name (no colon) and the password hold, a server reads them back."""
    form = Basic(Template.parse("{u}"), Template.parse("{p}"))
    mutation = render([form], {"u": Secret(username), "p": Secret(password)})
    ((name, value),) = mutation.headers
    scheme, _, data = value.partition(" ")
    assert (name, scheme) == ("authorization", "Basic")
    decoded = base64.b64decode(data, validate=True).decode("utf-8")
    assert tuple(decoded.split(":", 1)) == (username, password)


def test_basic_of_rfc_7617() -> None:
    """The example of RFC 7617, section 2.1: UTF-8 before base64."""
    form = Basic(Template.parse("test"), KEY)
    assert rendered(form, "123£").headers == (("authorization", "Basic dGVzdDoxMjPCow=="),)


def test_basic_refuses_a_colon_in_the_name() -> None:
    """A colon in the username would move its rest into the password."""
    with pytest.raises(InjectionError, match="colon") as caught:
        rendered(FORMS["basic username"], "ad:min")
    assert "ad:min" not in str(caught.value)


@given(TEXT, CREDENTIAL)
def test_query_reads_back(name: str, value: str) -> None:
    """What a server parses from the query is the name and the value, whatever they hold."""
    ((key, text),) = rendered(Query(name, KEY), value).query
    assert parse_qsl(f"{key}={text}", keep_blank_values=True) == [(name, value)]
    assert not set(key + text) & set("&=?#; \t")


@given(st.text(string.ascii_letters + string.digits + "!#$%&'()*+-./:<=>?@[]^_`{|}~", min_size=1))
def test_cookie_reads_back(value: str) -> None:
    """What RFC 6265 allows in a cookie goes as it is."""
    assert rendered(FORMS["cookie"], value).cookies == (("sid", value),)


@pytest.mark.parametrize("bad", [" ", '"', ",", ";", "\\", "é", "\x85", "\u2028"])
def test_cookie_refuses(bad: str) -> None:
    """What RFC 6265 keeps out of a cookie is refused, without the value in the message."""
    with pytest.raises(InjectionError, match="cookie sid") as caught:
        rendered(FORMS["cookie"], f"hunter{bad}2")
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", CONTROLS + NO_ENCODING, ids=lambda c: f"{ord(c):02x}")
def test_control_characters_are_refused(form: str, bad: str) -> None:
    """No place takes a control character or half a character; the value is never told."""
    for value in (f"hunter{bad}2", f"hunter2{bad}", f"{bad}hunter2"):
        with pytest.raises(InjectionError) as caught:
            rendered(FORMS[form], value)
        assert "hunter" not in str(caught.value)
        assert f"0x{ord(bad):02x}" in str(caught.value)
        assert form in str(caught.value)


def test_control_character_in_the_template_is_refused() -> None:
    """A line break is refused wherever it comes from."""
    with pytest.raises(InjectionError):
        render([Header("x-key", Template.parse("a\r\nx-evil: {key}"))], {"key": Secret("v")})


def test_stray_newline_is_named() -> None:
    """The commonest mistake, a file written by ``echo``, is said in words."""
    with pytest.raises(InjectionError, match="at its very end: a stray newline"):
        rendered(FORMS["header"], "key\n")
    with pytest.raises(InjectionError) as caught:
        rendered(FORMS["header"], "k\ney")
    assert "stray" not in str(caught.value)


def test_tab_and_unicode_pass_in_a_header() -> None:
    """A tab and text beyond ASCII are allowed in a field value."""
    assert rendered(FORMS["header"], "a\tü").headers == (("x-key", "a\tü"),)


def test_missing_field() -> None:
    """A template that names a field the secret lacks gives no half mutation."""
    with pytest.raises(MissingFieldError):
        render(FORMS.values(), {"other": Secret("x")})


def test_names() -> None:
    """The slots and the fields that a configuration uses, each once."""
    forms = (*FORMS.values(), Basic(Template.parse("{user}"), Template.parse("{pass}")))
    assert header_names(forms) == ("x-key", "authorization", "cookie")
    assert field_names(forms) == ("key", "user", "pass")


NAMES = st.sampled_from(["x-key", "X-KEY", "authorization", "Authorization", "cookie", "x-debug"])


@given(st.lists(st.sampled_from(list(FORMS)), unique=True), st.lists(NAMES))
def test_strip_never_removes_what_is_set(forms: list[str], strip: list[str]) -> None:
    """A name that is set is not removed: Envoy removes after setting."""
    mutation = render([FORMS[name] for name in forms], {"key": Secret("v")}, strip)
    ours = set(header_names(FORMS[name] for name in forms))
    assert not ours & set(mutation.remove)
    assert {name.lower() for name in strip} - ours <= set(mutation.remove)
    assert len(mutation.remove) == len(set(mutation.remove))


@pytest.mark.parametrize(
    ("sent", "merged"),
    [
        ("", "sid=new"),
        ("a=1; b=2", "a=1; b=2; sid=new"),
        ("sid=old", "sid=new"),
        ("a=1;sid=old;sid=older ; b=2", "a=1; b=2; sid=new"),
        (" sid =old; a=sid=old", "a=sid=old; sid=new"),
        ("sid; ;;a", "a; sid=new"),
        ("SID=old", "SID=old; sid=new"),  # names of cookies tell cases apart
        ('x="; sid=old; "', 'x="; "; sid=new'),  # a quoted semicolon hides nothing
    ],
)
def test_merge_cookies(sent: str, merged: str) -> None:
    """Ours are added, every copy of ours that the client sent is dropped, the rest stays."""
    assert merge_cookies(sent, [("sid", "new")]) == merged


@given(st.lists(st.tuples(st.sampled_from(["sid", "a", "b", ""]), st.sampled_from(["", "1"]))))
def test_merge_cookies_leaves_one_of_ours(sent: list[tuple[str, str]]) -> None:
    """However the client mixes its cookies, exactly one of each of ours arrives: ours."""
    line = merge_cookies("; ".join(f"{n}={v}" for n, v in sent), [("sid", "new"), ("k", "v")])
    pairs = [pair.partition("=") for pair in line.split("; ")]
    assert [value for name, _, value in pairs if name == "sid"] == ["new"]
    assert pairs[-1] == ("k", "=", "v")
    others = [(n, v) for n, _, v in pairs[:-2]]
    assert others == [(n, v) for n, v in sent if n != "sid"]


@given(TEXT)
def test_error_never_holds_the_value(value: str) -> None:
    """Whatever is refused, no piece of it is in the message."""
    assume(len(value) > 3)
    with pytest.raises(InjectionError) as caught:
        rendered(FORMS["header"], f"\x00x{value}")  # x: whatever follows, it is not blank
    plain = "the value for header x-key (field key) holds the control character 0x00, "
    assert str(caught.value) == plain + "which a request cannot carry"
