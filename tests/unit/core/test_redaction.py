"""No secret gets out by a text of others, in whatever form it is quoted."""

from __future__ import annotations

import base64
import html
import json
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaultauthz.core.redaction import HIDDEN, LONGEST, host, names, shown, where

Form = Callable[[str], str]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS: dict[str, Form] = {
    "as it is": str,
    "upper case": str.upper,
    "repr": lambda text: repr(text)[1:-1],
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, not escaped": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text))[1:-1],
    "every character escaped": lambda text: "".join(
        f"\\u{ord(c):04x}" if ord(c) < 0x10000 else json.dumps(c)[1:-1] for c in text
    ),
    "URL": lambda text: quote(text, safe=""),
    "URL, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "every byte percent-encoded": lambda text: "".join(f"%{b:02X}" for b in text.encode()),
    "HTML": html.escape,
    "HTML, numbers": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "HTML, hexadecimal": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "base64": _base64,
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 of a JSON object": lambda text: _base64(json.dumps({"a": 1, "secret": text})),
    "base64 of base64": lambda text: _base64(_base64(text)),
    "base64, percent-encoded": lambda text: quote(_base64(f"x:{text}"), safe=""),
    "base64 in lines": lambda text: base64.encodebytes(text.encode() * 3).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "URL, four times": lambda text: quote(quote(quote(quote(text, safe=""), safe=""), safe="")),
    "octal": lambda text: "".join(f"\\{b:03o}" for b in text.encode()),
    "UTF-16 in base64": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "bytes as Go shows them": lambda text: str(list(text.encode())).replace(",", ""),
    "bytes as Python shows them": lambda text: str(list(text.encode())),
    "bytes as C has them": lambda text: ", ".join(f"0x{b:02x}" for b in text.encode()),
    "a dump": lambda text: text.encode().hex(" "),
    "a fingerprint": lambda text: text.encode().hex(":").upper(),
    "another character set": lambda text: text.encode().decode("latin-1"),
}
LETTERS = st.sampled_from(string.ascii_letters + string.digits + "-_./+=!$&\"'<>\\%{}é€🔑")
SECRET = st.text(LETTERS, min_size=8, max_size=60)
AROUND = st.sampled_from(["", " ", '"', ": ", "=", "/", '{"a": "', "\n", " (", "\x00"])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(secret=SECRET, before=AROUND, after=AROUND, data=st.data())
def test_no_form_of_a_secret_is_shown(
    form: Form, secret: str, before: str, after: str, data: st.DataObject
) -> None:
    """Nor a part of it that is as long as half of it, or as eight characters."""
    quoted = form(secret)
    told = shown(f"it was{before}{quoted}{after}that failed", [secret]).replace(HIDDEN, "")
    for size in (len(quoted), min(max(8, len(quoted) // 2), len(quoted))):
        start = data.draw(st.integers(0, len(quoted) - size))
        assert quoted[start : start + size].strip() not in told
    assert secret not in told


@given(secret=SECRET, data=st.data())
def test_what_is_left_of_a_secret_that_was_cut_is_hidden(secret: str, data: st.DataObject) -> None:
    """As an answer is that quotes the first hundred bytes."""
    for form in (str, lambda text: json.dumps(text)[1:-1], lambda text: quote(text, safe="")):
        kept = form(secret[: data.draw(st.integers(8, len(secret)))])
        told = shown(f"unexpected body: {kept}", [secret]).replace(HIDDEN, "")
        assert kept not in told


@pytest.mark.parametrize(
    ("secret", "kept"),
    [
        ("abcdef\\ghijklmnop", "abcdef%5Cg"),
        ("abc&lt;efghijklmnop", "abc%26lt;e"),
        ("abc%41efghijklmnop", "abc%2541ef"),
    ],
)
def test_a_secret_with_what_looks_like_an_escape_is_hidden_when_it_is_cut(
    secret: str, kept: str
) -> None:
    """Where only one of the escapes is of the answer, and the other is the secret's own."""
    assert kept not in shown(f"unexpected body: {kept}", [secret])


@pytest.mark.parametrize("secret", ["y", "id", "sec", "R"])
def test_a_secret_of_a_syllable_is_hidden_where_it_stands_alone(secret: str) -> None:
    """And leaves the words that happen to hold its letters."""
    told = shown(f'invalid role or secret: "{secret}", Vault is sealed', [secret])
    assert told == f"invalid role or secret: {HIDDEN} Vault is sealed"


@pytest.mark.parametrize("between", ["\n", "\r\n ", " ", "-", "\0", "\u200b", '" + "'])
@given(st.text(string.ascii_letters + string.digits, min_size=6, max_size=60), st.integers(1, 16))
def test_a_secret_in_pieces_is_hidden(between: str, secret: str, size: int) -> None:
    """As in short lines, however short; in part only where less than eight characters are whole."""
    runs = {secret[at : at + 4].lower() for at in range(len(secret) - 3)}
    assume(not any(run in "unexpected body" for run in runs))  # a word that it is in goes, too
    pieces = between.join(secret[at : at + size] for at in range(0, len(secret), size))
    told = shown(f'unexpected body ("{pieces}"): #', [secret]).replace(HIDDEN, "")
    assert told == "unexpected body  #"


@given(st.text(max_size=9000), st.lists(st.text(max_size=40), max_size=3))
def test_it_is_one_short_line_whatever_it_was(text: str, secrets: list[str]) -> None:
    """No line break, no control character, nothing of another alphabet, and no error."""
    told = shown(text, secrets)
    assert len(told) <= LONGEST
    assert told.isprintable()
    assert told.isascii()


def test_a_secret_at_the_end_of_what_is_looked_at_does_not_begin_to_show() -> None:
    """Its first characters alone would not be recognized."""
    for start in range(4080, 4100):
        text = "<b>" * 300 + " " * (start - 900) + "hunter2-hunter2-hunter2"
        assert "hunt" not in shown(text, ["hunter2-hunter2-hunter2"])


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("token hvs.CAESIJ-x_y is bad", "CAESIJ"),
        ("token hvb.AAAAAQ is bad", "AAAAAQ"),
        ("s.KBnN0VHubRmAogRCJnu7HDW4", "KBnN0"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJ"),
        ("key: -----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- was", "abc"),
        ("Authorization: Bearer abcdefgh12", "abcdefgh"),
        ("postgres://root:hunter2@db/app: refused", "hunter2"),
        ("failed: password=hunter2 host=db", "hunter2"),
        ('{"secret_id": "abc-def"}', "abc-def"),
        ('{\\"password\\":\\"hunter2\\"}', "hunter2"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI", "wJalr"),
        ("for ASIAIOSFODNN7EXAMPLE", "ASIAIOS"),
        ("Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024", "fe5f80"),
        ("given 6f1b0d9c-54a1-4b31-8f43-0a2b8f6c1d11 of it", "6f1b0d9c"),
    ],
)
def test_what_looks_like_a_credential_is_hidden_whoever_has_it(text: str, hidden: str) -> None:
    """Also one that is not this call's."""
    assert hidden not in shown(text)
    assert "<hidden>" in shown(text)


@pytest.mark.parametrize(
    "text",
    [
        "1 error occurred: * permission denied",
        'no handler for route "secret/data/y". route entry not found.',
        "failed to connect to `host=db-1.cluster-c9akciq32.eu-west-1.example user=vault database=app`",
        "dial tcp 10.0.0.1:443: connect: connection refused",
        "wrapping token is not valid or does not exist",
        "Throttling: Rate exceeded, status code: 400",
        "invalid role or secret ID",
        'invalid role name "gateway"',
        "error validating token: invalid audience (aud) claim: audience claim does not match",
        "invalid token: token is expired by 1h2m3s",
        "failed to decode secret: illegal base64 data at input byte 4",
        "secret_id: missing",
        "from 10.0.0.5:34182, 12 of 30, 5 left, 7 used, on 2026-11-30 10:15:59 +00:00",
        "ip-10-0-12-155-very-long.internal-name.example: no such host",
    ],
)
def test_what_helps_is_left_as_it_was(text: str) -> None:
    """Vault's own words, hosts, paths and users are what an operator needs."""
    assert shown(text, ["6f1b0d9c-54a1-4b31-8f43-0a2b8f6c1d11", "hvs.CAESIJ"]) == text


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://standby:8200/v1/auth/x?token=hvs.abc#f", "https://standby:8200"),
        ("http://u:hunter2@[::1]:8200/x", "http://[::1]:8200"),
        ("/v1/secret/data/x", ""),
        ("//host/x", ""),
        ("javascript:alert(1)", ""),
        ("https://a\r\nb/", ""),
        ("https://host:port/", ""),
        ("https://[::1", ""),
        ("", ""),
    ],
)
def test_of_a_location_scheme_and_host_are_told(location: str, told: str) -> None:
    """Where a redirect leads to is worth a word; what it carries is not."""
    assert host(location) == told


def test_names_are_one_line_and_not_all_of_very_many() -> None:
    """Whoever writes a secret chooses its fields' names, and would write lines of a log with them."""
    assert names(["b", "a\n2026-01-01 ERROR forged", "hvs.CAESIJabcdef"]) == (
        "a 2026-01-01 ERROR forged, b, <hidden>"
    )
    told = names("x" * 900 + str(at) for at in range(5000))
    assert told.endswith(" and 4980 more")
    assert len(told) < 2000


def test_an_error_of_ours_says_where_and_what_kind_and_quotes_nothing() -> None:
    """Neither the error's text nor its cause's, both of which hold the value."""
    value = "s3cr3t-value"
    try:
        try:
            int(value)
        except ValueError as exc:
            raise LookupError(value) from exc
    except LookupError as exc:
        told = where(exc)
    assert told.startswith("LookupError\n")
    assert "test_redaction.py" in told
    assert "s3cr3t" not in told.replace('value = "s3cr3t-value"', "")
