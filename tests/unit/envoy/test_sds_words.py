"""Envoy's words about a secret in our log."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.envoy.sds.discovery import printable


def test_plain_words_stay() -> None:
    """What Envoy 1.40 says about a key that does not fit."""
    text = b"Failed to load private key from <inline>, Cause: error:0b000074:X.509 certificate"
    key = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----\n"
    assert printable(text, key) == text.decode()


def test_one_line_of_ascii_that_ends() -> None:
    """No line break, no terminal's escape, no megabyte."""
    assert printable(b"a\nb\x1b[31m\xff\x00c") == "a b [31m c"
    assert len(printable(b"x" * 10_000)) == 300


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), st.text())
def test_a_secret_is_never_in_them(secret: str, around: str) -> None:
    """Neither the value, nor a piece of six characters, whatever stands around it."""
    value = f"Bearer {secret}".encode()
    told = printable(around.encode() + secret.encode() + around.encode(), value)
    assert secret[:6] not in told or told.startswith("(its words are left out")


def test_a_basic_login_and_a_key_are_found() -> None:
    """Also a line out of the middle of a key."""
    login = base64.b64encode(b"user:password")
    assert "left out" in printable(b"bad value " + login, b"Basic " + login)
    key = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\nByqGSM49AgEG\n-----END PRIVATE KEY-----"
    assert "left out" in printable(b"near ByqGSM49AgEG", key)
