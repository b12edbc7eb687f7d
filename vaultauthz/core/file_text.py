"""The bytes of a small file as text: UTF-8, also as editors and shells of Windows write it."""

from __future__ import annotations

import codecs
from typing import Final

BOM: Final = codecs.BOM_UTF8  # before UTF-8 it says nothing, and is no part of what is written
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's begins with the first


class NoTextError(ValueError):
    """The bytes are none; the message goes on from the file's name and shows nothing of it."""


def text_of(data: bytes) -> str:
    """What is written in a file, without a byte order mark and white space around it.

    Raises:
        NoTextError: it is not UTF-8.
    """
    check_form(data)
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:  # which quotes it
        raise NoTextError("is not text") from None


def check_form(data: bytes) -> None:
    """Whether a file that begins so may be UTF-8, or ASCII.

    Raises:
        NoTextError: it is not, as what PowerShell writes by itself: UTF-16.
    """
    if len(data) > len(_UTF_16[0]) and data.startswith(_UTF_16):
        raise NoTextError("is UTF-16; save it as UTF-8")
    if b"\0" in data:  # UTF-16 without its mark, or a certificate in DER
        raise NoTextError("holds NUL bytes; save it as text in UTF-8 (a certificate as PEM)")
