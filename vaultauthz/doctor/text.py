"""Durations and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def span(seconds: float) -> str:
    """``1h30m``: the two largest units that there are; ``no end`` for infinity."""
    if seconds == inf:
        return "no end"
    left, parts = max(0, round(seconds)), []
    for size, name in _UNITS:
        if left >= size:
            parts.append(f"{left // size}{name}")
            left %= size
    return "".join(parts[:2]) or "0s"


def some(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
