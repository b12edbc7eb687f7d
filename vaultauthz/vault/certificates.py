"""From when to when a certificate is good by its own word (RFC 5280, 4.1.2.5), wherever it is stored."""

from __future__ import annotations

import base64
import re
from calendar import timegm
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

_PEM: Final = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END", re.ASCII
)
_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
_TIMES: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime


@dataclass(frozen=True, slots=True)
class Validity:
    """In seconds since 1970."""

    begins: float = -inf
    ends: float = inf


def not_after(text: str) -> float | None:
    """The end of the first certificate in a PEM text, in seconds since 1970.

    That is the one which is shown; what follows is its chain. None where there is none,
    or none that can be read.
    """
    match = _PEM.search(text)
    found = None if match is None else _read(match[1])
    return None if found is None else found.ends


def validities(pem: bytes) -> list[Validity]:
    """Of the certificates in a PEM text, in their order; those that cannot be read are left out."""
    found = (_read(match[1]) for match in _PEM.finditer(pem.decode("latin-1")))
    return [one for one in found if one is not None]


def _read(base64_text: str) -> Validity | None:
    try:
        return _validity(base64.b64decode("".join(base64_text.split())))
    except (ValueError, IndexError):
        return None


def _validity(der: bytes) -> Validity:
    at = _open(der, _open(der, 0, _SEQUENCE), _SEQUENCE)
    if der[at] == _VERSION:
        at = _after(der, at)
    # Serial number, signature, issuer; then validity: two times.
    for kind in (_INTEGER, _SEQUENCE, _SEQUENCE):
        _open(der, at, kind)
        at = _after(der, at)
    begins = _open(der, at, _SEQUENCE)
    return Validity(_time(der, begins), _time(der, _after(der, begins)))


def _time(der: bytes, at: int) -> float:
    form = _TIMES.get(der[at], "")
    said = der[_open(der, at, der[at]) : _after(der, at)].decode("ascii")
    when = datetime.strptime(said, form)  # noqa: DTZ007  the Z says it
    # Two digits of a year are of 1950 to 2049; Python's are of 1969 to 2068.
    year = when.year - 100 if der[at] == min(_TIMES) and when.year >= 2050 else when.year
    return float(timegm((year, *when.timetuple()[1:])))


def _open(der: bytes, at: int, kind: int) -> int:
    """Where the content of the element at ``at`` begins, which has to be of this kind."""
    if der[at] != kind:
        raise ValueError(kind)
    return _extent(der, at)[0]


def _after(der: bytes, at: int) -> int:
    start, length = _extent(der, at)
    return start + length


def _extent(der: bytes, at: int) -> tuple[int, int]:
    length = der[at + 1]
    if length < 0x80:
        return at + 2, length
    start = at + 2 + (length & 0x7F)
    return start, int.from_bytes(der[at + 2 : start], "big")
