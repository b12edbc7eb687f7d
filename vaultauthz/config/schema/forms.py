"""What schemas are put together from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from vaultauthz.config import durations
from vaultauthz.core.duration import PATTERN

Schema = dict[str, Any]

_NAME = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"


def closed(
    keys: Collection[str],
    properties: Mapping[str, Schema],
    description: str,
    *,
    required: Sequence[str] = (),
    **rules: Any,
) -> Schema:
    """A mapping of exactly ``keys``, those that its reader knows.

    Raises:
        LookupError: ``properties`` are about other keys.
    """
    if set(keys) != set(properties):
        raise LookupError(f"described and known differ: {sorted(set(keys) ^ set(properties))}")
    needed = {"required": list(required)} if required else {}
    return {
        "description": description,
        "type": "object",
        "properties": dict(properties),
        **needed,
        **rules,
        "additionalProperties": False,
    }


def named(of: Schema, description: str) -> Schema:
    """A mapping from names that the user chooses, one at least."""
    return {
        "description": description,
        "type": "object",
        "propertyNames": {"pattern": _NAME},
        "minProperties": 1,
        "additionalProperties": of,
    }


def text(description: str, *, usual: str = "", pattern: str = r"\S") -> Schema:
    """Text that is not blank; a number stands for its digits."""
    return {
        "description": description,
        "type": ["string", "number"],
        "pattern": pattern,
        **({"default": usual} if usual else {}),
    }


def file(description: str) -> Schema:
    """The path of a file."""
    return text(f"{description} Relative to the folder of this file.")


def flag(description: str) -> Schema:
    """True or false; false by default."""
    return {"description": description, "type": "boolean", "default": False}


def choice(words: Collection[str], description: str, *, usual: str) -> Schema:
    """One of some words."""
    return {"description": description, "enum": list(words), "default": usual}


def duration(
    description: str, read: partial[float] | None = None, usual: float | None = None
) -> Schema:
    """A duration in the bounds of ``read``, which is ``durations.between`` with them."""
    bounds = "{least} to {most}".format(**_spelled(read.keywords)) if read else ""
    return {
        "description": f"{description} {bounds}".rstrip(),
        "type": "string",
        "pattern": f"^{PATTERN}$",
        **({"default": durations.spell(usual)} if usual is not None else {}),
    }


def _spelled(bounds: Mapping[str, float]) -> dict[str, str]:
    return {name: durations.spell(seconds) for name, seconds in bounds.items()}


def whole(description: str, read: partial[int], usual: int | None = None) -> Schema:
    """A whole number in the bounds of ``read``, which is ``Value.whole`` with them."""
    return {
        "description": description,
        "type": ["integer", "string"],
        "pattern": "^[0-9]{1,9}$",
        "minimum": read.keywords["least"],
        "maximum": read.keywords["most"],
        **({"default": usual} if usual is not None else {}),
    }


def many(of: Schema, description: str, least: int = 0) -> Schema:
    """A list."""
    return {
        "description": description,
        "type": "array",
        "items": of,
        **({"minItems": least} if least else {}),
    }


def exactly_one(keys: Sequence[str]) -> Schema:
    """A rule: one of ``keys`` is there, and no second one."""
    return {"oneOf": [{"required": [key]} for key in keys]}


def not_both(one: str, other: str) -> Schema:
    """A rule: at most one of the two is there."""
    return {"not": {"required": [one, other]}}
