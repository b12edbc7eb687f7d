"""One thing that is wrong: what, why it matters, what mends it; durations and lists in its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

ERROR: Final = "error"  # requests are refused, now or after the next start
WARNING: Final = "warning"  # it works, and will hurt
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Finding:
    """``mend`` is a sentence; ``lines`` are what to type or to paste, as they are."""

    severity: str
    what: str
    why: str
    mend: str
    lines: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()


def error(what: str, why: str, mend: str, *lines: str, upstream: str = "") -> Finding:
    """A finding that keeps requests from their credential."""
    return Finding(ERROR, what, why, mend, lines, upstreams=_one(upstream))


def warning(what: str, why: str, mend: str, *lines: str, upstream: str = "") -> Finding:
    """A finding that leaves things working for now."""
    return Finding(WARNING, what, why, mend, lines, upstreams=_one(upstream))


def _one(upstream: str) -> tuple[str, ...]:
    return (upstream,) if upstream else ()


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
