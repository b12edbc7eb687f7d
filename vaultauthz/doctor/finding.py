"""One thing that is wrong: what, why it matters, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ERROR: Final = "error"  # requests are refused, now or after the next start
WARNING: Final = "warning"  # it works, and will hurt


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
