"""``500ms``, ``30s``, ``5m``, ``1h``."""

from __future__ import annotations

import re

from vaultauthz.config.document import Scalar
from vaultauthz.config.reader import Value, quoted

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)\Z")
_FORMS = "write a whole number and its unit: 500ms, 30s, 5m or 1h"


def parse(text: str) -> float:
    """A duration in seconds.

    Raises:
        ValueError: not of one of the four forms.
    """
    match = _DURATION.match(text)
    if not match:
        raise ValueError(text)
    return int(match[1]) * _SECONDS[match[2]]


def spell(seconds: float) -> str:
    """``seconds`` in the largest unit that needs no fraction."""
    for unit in ("h", "m", "s"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms"


def between(value: Value, *, least: float, most: float) -> float:
    """The duration in ``value``, in seconds, within both bounds."""
    text = value.text()
    try:
        seconds = parse(text)
    except ValueError:
        bare = isinstance(value.node, Scalar) and value.node.kind == "a number"
        what = "has no unit" if bare else "is not a duration"
        raise value.wrong(f"{quoted(text)} {what}; {_FORMS}") from None
    if not least <= seconds <= most:
        raise value.wrong(f"{text} is out of bounds; use {spell(least)} to {spell(most)}")
    return seconds
