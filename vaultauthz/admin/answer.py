"""An HTTP answer as a value."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

JSON: Final = "application/json"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"

# What a browser is told of everything but the page: nothing in it is to be run.
BARE_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` come beside those that every answer has; ``policy`` is the CSP."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    policy: str = BARE_POLICY


def as_json(status: int, value: Any, *headers: tuple[str, str]) -> Answer:
    """``value`` as JSON, non-ASCII escaped."""
    return Answer(status, json.dumps(value, allow_nan=False).encode() + b"\n", headers=headers)


def error(status: int, reason: str, *headers: tuple[str, str]) -> Answer:
    """``{"error": reason}``; the reason is a word of ours, never the client's text."""
    return as_json(status, {"error": reason}, *headers)


def seconds(value: float | None) -> float | None:
    """A duration for JSON, which has no infinity: None for a time that never comes."""
    return round(value, 1) if value is not None and math.isfinite(value) else None
