"""A secret's fields: values that must not be seen, which only the injection code reveals."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Final, NoReturn

HIDDEN: Final = "<secret>"
_DEEPEST: Final = 8  # names within each other, ``a.b.c``
# What JSON can say as an escape and no HTTP message can carry.
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Secret:
    """One field of a credential.

    ``repr``, ``str`` and ``format`` show ``<secret>``, and it refuses to be
    pickled or copied, so that a log line, an error, a crash dump or a cache
    cannot hold the value by accident. ``reveal()`` is the one way to it, and
    easy to grep for.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Only what puts it on a request should call this."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # JSON can hold lone surrogates, which plain UTF-8 refuses.
        mine = self._value.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(mine, other._value.encode("utf-8", "surrogatepass"))

    # Unhashable: a dict or set keyed by it would compare in variable time.
    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied")


def is_token(value: object) -> bool:
    """Whether this can be a token that somebody is known by: it must travel in a header."""
    return isinstance(value, str) and re.fullmatch(r"[\x21-\x7e]+", value) is not None


class Fields(dict[str, Secret]):
    """The fields by name. ``unfit``: what the others are, by name (``a list``, ``null``)."""

    def __init__(self) -> None:
        super().__init__()
        self.unfit: dict[str, str] = {}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Fields:
        """Text and numbers as they are, a list of texts as lines.

        What is in an object has a name with a dot for each level; a field whose own name has
        that dot goes first.
        """
        fields = cls()
        for name, value in _inner(data):
            text = _text(value)
            if text is None:
                fields.unfit.setdefault(name, _kind(value))
            elif name not in fields:
                fields[name] = Secret(text)
        return fields

    @property
    def shown_names(self) -> tuple[str, ...]:
        """Every name, for people: those of no use with what they are."""
        unfit = (f"{name} ({what})" for name, what in self.unfit.items() if name not in self)
        return (*self, *unfit)


def shown_names(fields: Mapping[str, Secret]) -> tuple[str, ...]:
    """The names in ``fields``, for people, in order."""
    return tuple(sorted(fields.shown_names if isinstance(fields, Fields) else fields))


def _inner(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values, level by level, so that a name with dots comes before a nested one."""
    level = list(data.items())
    for _ in range(_DEEPEST):
        objects = [(name, value) for name, value in level if isinstance(value, dict) and value]
        yield from (pair for pair in level if not (isinstance(pair[1], dict) and pair[1]))
        level = [(f"{name}.{key}", item) for name, value in objects for key, item in value.items()]
    yield from level


def _text(value: object) -> str | None:
    """What goes on a request; None for what does not."""
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        value = "\n".join(value)  # a certificate's chain
    if isinstance(value, str):
        return None if _LONE_SURROGATE.search(value) else value
    if isinstance(value, (bool, int)) or (isinstance(value, float) and isfinite(value)):
        return json.dumps(value)
    return None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "nested too deep" if value else "an empty object"
    if isinstance(value, list):
        return "a list, not of texts"
    return "text with half a character" if isinstance(value, str) else "no number"
