"""What a certificate says of itself: from when to when it is good, and its names.

RFC 5280, 4.1.2.5 and 4.2.1.6.
"""

from __future__ import annotations

import base64
import re
from calendar import timegm
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

_PEM: Final = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END", re.ASCII
)
_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
_EXTENSIONS, _OCTETS = 0xA3, 0x04
_SAN: Final = bytes.fromhex("0603551d11")  # subjectAltName, 2.5.29.17
_DNS, _URI = 0x82, 0x86
_TIMES: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime


@dataclass(frozen=True, slots=True)
class Validity:
    """In seconds since 1970."""

    begins: float = -inf
    ends: float = inf


@dataclass(frozen=True, slots=True)
class Names:
    """Subject alternative names of two types, each whole: with a NUL in it, if there is one."""

    dns: tuple[bytes, ...] = ()
    uri: tuple[bytes, ...] = ()


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


def alternative_names(pem: bytes) -> Names:
    """Of the first certificate in a PEM text; none where it cannot be read."""
    match = _PEM.search(pem.decode("latin-1"))
    try:
        return Names() if match is None else _names(_der(match[1]))
    except (ValueError, IndexError):
        return Names()


def key_kind(pem: bytes) -> bytes:
    """Of the first certificate's key: its algorithm and parameters as DER; empty where it cannot be read.

    That is the content of an AlgorithmIdentifier (RFC 5280, 4.1.1.2; for a curve RFC 5480, 2.1).
    """
    match = _PEM.search(pem.decode("latin-1"))
    try:
        return b"" if match is None else _key_kind(_der(match[1]))
    except (ValueError, IndexError):
        return b""


def _read(base64_text: str) -> Validity | None:
    try:
        return _validity(_der(base64_text))
    except (ValueError, IndexError):
        return None


def _der(base64_text: str) -> bytes:
    return base64.b64decode("".join(base64_text.split()))


def _names(der: bytes) -> Names:
    signed = _open(der, 0, _SEQUENCE)
    for at in _within(der, signed, _SEQUENCE):
        if der[at] == _EXTENSIONS:
            for extension in _within(der, _open(der, at, _EXTENSIONS), _SEQUENCE):
                found = _open(der, extension, _SEQUENCE)
                if der[found:].startswith(_SAN):
                    return _alternative(der, list(_within(der, extension, _SEQUENCE))[-1])
    return Names()


def _key_kind(der: bytes) -> bytes:
    signed = _open(der, 0, _SEQUENCE)
    fields = [at for at in _within(der, signed, _SEQUENCE) if der[at] != _VERSION]
    # Behind serial number, signature, issuer, validity and subject.
    algorithm = _open(der, fields[5], _SEQUENCE)
    return der[_open(der, algorithm, _SEQUENCE) : _after(der, algorithm)]


def _alternative(der: bytes, value: int) -> Names:
    found: dict[int, list[bytes]] = {_DNS: [], _URI: []}
    for at in _within(der, _open(der, value, _OCTETS), _SEQUENCE):
        if der[at] in found:
            found[der[at]].append(der[_open(der, at, der[at]) : _after(der, at)])
    return Names(tuple(found[_DNS]), tuple(found[_URI]))


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


def _within(der: bytes, at: int, kind: int) -> Iterator[int]:
    """Where each element begins of the one at ``at``, which has to be of this kind."""
    end = _after(der, at)
    at = _open(der, at, kind)
    while at < end:
        yield at
        at = _after(der, at)


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
