"""The client certificate for mutual TLS, as it is made from a secret's fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config.forms.header import Header
from vaultauthz.config.forms.tls import ClientCertificate
from vaultauthz.core.injection import Mutation, field_names, header_names, render
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import InjectionError, MissingFieldError, Template

T = Template.parse
CERT = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
ROOT = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----"
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----"


def made(tls: ClientCertificate | None = None, **fields: str) -> Mutation:
    """The mutation for these fields, by default those of the PKI engine."""
    given_fields = {"certificate": CERT, "private_key": KEY} | fields
    return render(
        [tls or ClientCertificate()], {name: Secret(value) for name, value in given_fields.items()}
    )


def test_the_pki_engines_fields() -> None:
    """The certificate comes first, its chain after it, each on lines of its own."""
    assert made().tls == (f"{CERT}\n", f"{KEY}\n")
    assert made(ca_chain=ROOT).tls == (f"{CERT}\n{ROOT}\n", f"{KEY}\n")
    assert made(ca_chain="").tls == (f"{CERT}\n", f"{KEY}\n")
    assert made(certificate=f"\n{CERT}\r\n\n", private_key=f"{KEY}\n\n").tls == made().tls


def test_other_fields() -> None:
    """As they are named; a chain that is named must be there."""
    tls = ClientCertificate(T("{crt}"), T("{key}"), T("{chain}"))
    assert made(tls, crt=CERT, key=KEY, chain=ROOT).tls == (f"{CERT}\n{ROOT}\n", f"{KEY}\n")
    assert field_names([tls]) == ("crt", "key", "chain")
    with pytest.raises(MissingFieldError, match="'chain'"):
        made(tls, crt=CERT, key=KEY)


def test_it_changes_no_request() -> None:
    """No header, nothing removed; and beside a header, that one is set."""
    assert header_names([ClientCertificate()]) == ()
    mutation = made()
    assert (mutation.headers, mutation.remove, mutation.query, mutation.cookies) == ((), (), (), ())
    fields = {"certificate": Secret(CERT), "private_key": Secret(KEY), "key": Secret("k")}
    both = render([ClientCertificate(), Header("x-key", T("{key}"))], fields)
    assert both.headers == (("x-key", "k"),)
    assert both.tls


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"certificate": KEY}, "tls certificate does not begin"),
        ({"certificate": "hush-hush"}, "tls certificate does not begin"),
        ({"private_key": CERT}, "tls private_key does not begin"),
        ({"private_key": "hush-hush\x00"}, "tls private_key holds a character"),
        ({"certificate": ""}, "field 'certificate' is empty"),
        ({"private_key": " \n"}, "field 'private_key' is blank"),
        ({"ca_chain": "hush-hush ü"}, "tls chain holds a character"),
    ],
)
def test_what_is_no_pem(fields: dict[str, str], wanted: str) -> None:
    """Refused when it is fetched, with its place and without its value."""
    with pytest.raises(InjectionError, match=wanted) as raised:
        made(None, **fields)
    assert "hush" not in str(raised.value)


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
def test_any_fields_are_a_certificate_or_an_error(cert: str, key: str, chain: str) -> None:
    """Whatever the secret holds, what Envoy gets is ASCII text that begins as PEM."""
    try:
        tls = made(certificate=CERT + cert, private_key=KEY + key, ca_chain=chain).tls
    except InjectionError:
        return
    assert tls
    assert all(text.isascii() and text.startswith("-----BEGIN ") for text in tls)


def test_its_repr_shows_nothing() -> None:
    """Neither the key nor the certificate."""
    assert "BEGIN" not in repr(made())
