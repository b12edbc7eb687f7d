"""The usual readers behind keys: text, flags, words, numbers, durations, files, lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from vaultauthz.config import durations, files, names
from vaultauthz.config.keys import Reader
from vaultauthz.config.reader import Value
from vaultauthz.core.duration import PATTERN

T = TypeVar("T")


def text(read: Callable[[Value], T], *, pattern: str = r"\S", stand_in: Any = "") -> Reader[T]:
    """Text of one line that is not blank; a number stands for its digits."""
    schema = {"type": ["string", "number"], "pattern": pattern}
    return Reader(read, schema, show=str, stand_in=stand_in)


TEXT: Final = text(Value.text)
FLAG: Final = Reader(Value.flag, {"type": "boolean"})


def file(read: Callable[[Value], Path]) -> Reader[Path]:
    """The path of a file; ``read`` is one of ``files``."""
    note = "Relative to the folder of this file."
    return Reader(read, TEXT.schema, note=note, show=str, stand_in=Path("?"))


READABLE: Final = file(files.readable)
PRIVATE: Final = file(files.private)


def choice(*words: str) -> Reader[str]:
    """One of some words."""
    return Reader(partial(Value.choice, allowed=words), {"enum": list(words)})


def whole(least: int, most: int) -> Reader[int]:
    """A whole number."""
    schema = {
        "type": ["integer", "string"],
        "pattern": "^[0-9]{1,9}$",
        "minimum": least,
        "maximum": most,
    }
    return Reader(partial(Value.whole, least=least, most=most), schema)


def duration(least: float, most: float) -> Reader[float]:
    """A duration, in seconds."""
    return Reader(
        partial(durations.between, least=least, most=most),
        {"type": "string", "pattern": f"^{PATTERN}$"},
        bounds=f"{durations.spell(least)} to {durations.spell(most)}",
        show=durations.spell,
    )


def many(
    of: Mapping[str, Any], read: Callable[[Value], Collection[T]], *, least: int = 0
) -> Reader[Any]:
    """A list of ``of``, at least so many; ``read`` takes all of it."""
    schema = {"type": "array", "items": of, **({"minItems": least} if least else {})}
    return Reader(read, schema, stand_in=())


def named(of: Mapping[str, Any], read: Callable[[Value], Mapping[str, T]]) -> Reader[Any]:
    """A mapping from names that the user chooses, one at least; ``read`` takes all of it."""
    schema = {
        "type": "object",
        "propertyNames": {"pattern": names.PATTERN},
        "minProperties": 1,
        "additionalProperties": of,
    }
    return Reader(read, schema, stand_in=MappingProxyType({}))
