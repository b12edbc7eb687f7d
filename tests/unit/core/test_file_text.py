"""The bytes of a small file as text."""

from __future__ import annotations

import pytest

from vaultauthz.core.file_text import NoTextError, check_form, text_of


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a b\n", "a b"),
        (b"\r\n\ta\xc3\xa9 ", "a\u00e9"),
        (b"\xef\xbb\xbfabc\n", "abc"),
        (b"", ""),
        (b"\xef\xbb\xbf", ""),
    ],
)
def test_what_is_written_in_it(data: bytes, text: str) -> None:
    """Without a byte order mark and white space around it."""
    assert text_of(data) == text
    check_form(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("a".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"\xfe\xff\x00a", "is UTF-16; save it as UTF-8"),
        ("a".encode("utf-32"), "is UTF-16; save it as UTF-8"),
        (
            "ab".encode("utf-16-le"),
            "holds NUL bytes; save it as text in UTF-8 (a certificate as PEM)",
        ),
        (b"a\x00", "holds NUL bytes; save it as text in UTF-8 (a certificate as PEM)"),
        (b"a\xff", "is not text"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_what_is_no_text(data: bytes, why: str) -> None:
    """How to mend it, and nothing of what is in it."""
    with pytest.raises(NoTextError) as refused:
        text_of(data)
    assert str(refused.value) == why
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
