"""Durations as Vault writes and reads them: Go's (``1h30m``, ``1.5h``, ``500ms``) and days (``30d``)."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_SECONDS: Final = {
    "d": Decimal(86400),  # Vault's own; Go ends at hours
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),  # U+00B5, the micro sign
    "μs": Decimal("1e-6"),  # U+03BC, the letter mu
    "ns": Decimal("1e-9"),
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
    # Exactly: as doubles 2.3 hours are a second less, once the fraction is cut off for Vault.
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
