"""A blank value is no credential, and a header has no blank at its edges: for every form."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config.forms.basic import Basic
from vaultauthz.config.forms.bearer import Bearer
from vaultauthz.config.forms.cookie import Cookie
from vaultauthz.config.forms.header import Header
from vaultauthz.config.forms.hmac import Hmac
from vaultauthz.config.forms.query import Query
from vaultauthz.config.forms.sigv4 import SigV4
from vaultauthz.config.forms.tls import ClientCertificate
from vaultauthz.core.grant import EndedSecretError, Grant
from vaultauthz.core.injection import Injection, render, used_fields
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import BlankError, InjectionError, Template

T = Template.parse
FORMS: dict[str, Injection] = {
    "header": Header("x-key", T("{key}")),
    "header with words": Header("x-key", T("Key {key} v1")),
    "bearer": Bearer(T("{key}")),
    "basic password": Basic(T("gateway"), T("{key}")),
    "basic username": Basic(T("{key}"), T("")),
    "query": Query("key", T("{key}")),
    "cookie": Cookie("sid", T("{key}")),
    "sigv4 access": SigV4("eu", "s3", T("{key}"), T("s")),
    "sigv4 secret": SigV4("eu", "s3", T("a"), T("{key}")),
    "sigv4 token": SigV4("eu", "s3", T("a"), T("s"), T("{key}")),
    "hmac key": Hmac(T("{key}"), (T("{method}"),), (("x-sig", T("{signature}")),)),
    "hmac header": Hmac(T("k"), (T("{method}"),), (("x-sig", T("{key} {signature}")),)),
    "hmac part": Hmac(T("k"), (T("{key}"),), (("x-sig", T("{signature}")),)),
    "tls": ClientCertificate(T("{key}"), T("{key}")),
}
# Where the value itself begins or ends what a header carries.
AT_AN_EDGE = ("header", "bearer", "sigv4 access", "sigv4 secret", "sigv4 token", "cookie")
BLANKS = ["", " ", "\t", " \t ", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u3164", "\u2800\u115f"]


def rendered(form: Injection, value: str) -> object:
    return render([form], {"key": Secret(value)})


def code_points(text: str) -> str:
    """A test's name for what cannot be seen. Without a backslash, which pytest doubles each time it collects."""
    return " ".join(f"U+{ord(letter):04X}" for letter in text)


@pytest.mark.parametrize("value", BLANKS, ids=code_points)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_blank_value_is_no_credential(form: Injection, value: str) -> None:
    """Empty, or with nothing in it that can be seen; the message names the field."""
    with pytest.raises(BlankError, match=r"field 'key' is (empty|blank)") as caught:
        rendered(form, value)
    assert caught.value.mend


@given(st.text(st.characters(categories=("Zs", "Zl", "Zp", "Cc", "Cf"))))
def test_nothing_to_be_seen_is_nothing(value: str) -> None:
    """Whatever kinds of blanks there are."""
    with pytest.raises(InjectionError):
        rendered(FORMS["header"], value)


@pytest.mark.parametrize("edge", [" ", "\t", "\u00a0", "\u2003"], ids=code_points)
@pytest.mark.parametrize("form", AT_AN_EDGE)
def test_a_blank_at_an_edge_is_refused(form: str, edge: str) -> None:
    """It would arrive as another value (RFC 9110, 5.5); the value is not in the message."""
    for value in (f"{edge}hush", f"hush{edge}"):
        with pytest.raises(InjectionError) as caught:
            rendered(FORMS[form], value)
        assert "hush" not in str(caught.value)


def test_the_message_names_place_field_and_way_out() -> None:
    """For the operator, who reads it in the log and in doctor."""
    with pytest.raises(InjectionError) as caught:
        rendered(FORMS["header"], " key")
    assert str(caught.value) == (
        "the value for header x-key (field key) begins with a blank (0x20), "
        "which a header cannot carry there"
    )
    assert "printf" in caught.value.mend


@pytest.mark.parametrize(
    "form",
    [
        Header("x-key", T("Key {key}")),
        Hmac(T("k"), (T("{method}"),), (("x-sig", T("{signature} {key}")),)),
    ],
)
def test_an_edge_is_one_of_the_whole_value(form: Injection) -> None:
    """`Key {api_key}` ends with what the field ends with."""
    with pytest.raises(InjectionError, match="ends with a blank"):
        rendered(form, "hush ")


def test_what_stands_inside_may_have_blanks() -> None:
    """Between other words they are carried."""
    assert rendered(FORMS["header with words"], " a b ").headers == (("x-key", "Key  a b  v1"),)  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [" p w ", "\tpw", "pw\t"])
def test_base64_and_url_encoding_carry_blanks(value: str) -> None:
    """A password in basic and a value in a query arrive as they are."""
    ((_, basic),) = rendered(FORMS["basic password"], value).headers  # type: ignore[attr-defined]
    assert base64.b64decode(basic.removeprefix("Basic ")).decode() == f"gateway:{value}"
    assert rendered(FORMS["query"], value).query  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        (Basic(T("{key}"), T("")), "hush:"),  # as Stripe wants it
        (Basic(T(""), T("{key}")), ":hush"),
    ],
)
def test_what_is_empty_by_configuration_is_on_purpose(form: Injection, sent: str) -> None:
    """It is no field of the secret."""
    ((_, basic),) = rendered(form, "hush").headers  # type: ignore[attr-defined]
    assert base64.b64decode(basic.removeprefix("Basic ")).decode() == sent


@pytest.mark.parametrize("value", ["schlüssel", "ключ", "a b", "🔑", "\u00e0"])
def test_text_of_any_language_is_carried(value: str) -> None:
    """As UTF-8, which RFC 9110 allows in a header's value (obs-text)."""
    assert rendered(FORMS["header"], value).headers == (("x-key", value),)  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", ["\x00", "\x01", "\r", "\n", "\x1f", "\x7f"], ids=code_points)
@pytest.mark.parametrize("form", [*AT_AN_EDGE, "basic password", "query", "hmac header"])
def test_control_characters_are_refused(form: str, bad: str) -> None:
    """Also in the middle, in every form that puts the value on the request."""
    with pytest.raises(InjectionError):
        rendered(FORMS[form], f"hu{bad}sh")


# --- what has ended ---


def test_a_field_that_has_ended_is_refused_when_it_is_used() -> None:
    """The message names it; another field may have ended."""
    grant = Grant({}, 600.0, field_ends={"key": -1.0, "old": -1.0, "next": 60.0})
    with pytest.raises(EndedSecretError, match=r"field key .* exp has passed") as caught:
        grant.fitting(used_fields([FORMS["header"]]))
    assert caught.value.mend
    assert grant.fitting(used_fields([Header("x", T("{next}"))])).life == 60.0


@pytest.mark.parametrize("grant", [Grant({}, 600.0, ends_in=0.0), Grant({}, 0.0)])
def test_a_secret_that_says_that_it_has_ended(grant: Grant) -> None:
    """Refused when it is fetched."""
    with pytest.raises(EndedSecretError):
        grant.fitting(used_fields([FORMS["header"]]))


def test_fields_that_are_used_where_they_are() -> None:
    """AWS's session token and a certificate's chain need not be named."""
    assert "security_token" in used_fields([SigV4("eu", "s3", T("{a}"), T("{s}"))])
    assert set(used_fields([ClientCertificate()])) == {
        "certificate",
        "private_key",
    }  # a chain has other ends
