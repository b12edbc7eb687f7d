"""``500ms``, ``30s``, ``1h30m``, ``30d``: as Vault takes them, each number with its unit."""

from __future__ import annotations

from typing import Final

from vaultauthz.config.document import Scalar
from vaultauthz.config.reader import Value, quoted
from vaultauthz.core.duration import length_of

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0}
_FORMS: Final = "write each number with its unit: 500ms, 30s, 5m, 1h30m or 30d"


def spell(seconds: float) -> str:
    """``seconds`` in the largest unit that needs no fraction."""
    for unit, length in _UNITS.items():
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0s"


def between(value: Value, *, least: float, most: float) -> float:
    """The duration in ``value``, in seconds, within both bounds."""
    text = value.text().strip()
    seconds = length_of(text)
    if seconds is None:
        bare = isinstance(value.node, Scalar) and value.node.kind == "a number"
        what = "has no unit" if bare else "is not a duration"
        raise value.wrong(f"{quoted(text)} {what}; {_FORMS}")
    if not least <= seconds <= most:
        raise value.wrong(f"{text} is out of bounds; use {spell(least)} to {spell(most)}")
    return seconds
