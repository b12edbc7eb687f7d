"""Durations as Vault writes and reads them: Go's (``1h30m``, ``1.5h``, ``500ms``) and days (``30d``)."""

from __future__ import annotations

import re
from typing import Final

_SECONDS: Final = {
    "d": 86400.0,  # Vault's own; Go ends at hours
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,  # U+00B5, the micro sign
    "μs": 1e-6,  # U+03BC, the letter mu
    "ns": 1e-9,
}
_UNIT: Final = "(?:d|h|ms|m|s|us|\u00b5s|\u03bcs|ns)"
# As many digits as any duration needs: a text of a megabyte is none.
_NUMBER: Final = r"(?:[0-9]{1,12}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})"
PATTERN: Final = f"(?:{_NUMBER}{_UNIT}){{1,9}}"  # for a schema, too
_WHOLE: Final = re.compile(PATTERN)
_PART: Final = re.compile(f"({_NUMBER})({_UNIT})")


def length_of(text: str) -> float | None:
    """How long ``text`` is, in seconds; None where it is no duration, or has no unit.

    Vault takes a bare number for seconds, in some places; here it is for the caller to say.
    """
    if not _WHOLE.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
