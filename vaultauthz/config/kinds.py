"""What stands behind keys: text, flags, words, numbers, durations, files, lists, and names.

A duration is written as Vault takes it, each number with its unit: ``500ms``, ``1h30m``, ``30d``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from vaultauthz.config import files
from vaultauthz.config.document import Scalar
from vaultauthz.config.keys import Key, Reader
from vaultauthz.config.reader import Value, quoted
from vaultauthz.core.duration import PATTERN, length_of

T = TypeVar("T")

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0}
_FORMS: Final = "write each number with its unit: 500ms, 30s, 5m, 1h30m or 30d"
# RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_LONGEST = 100
_NAME: Final = f"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{_LONGEST - 1}}}$"  # of a stage or an upstream
_NAMESPACE = re.compile(r"[^/\s?#\\]+(?:/[^/\s?#\\]+)*\Z")
_ROOT = "root"
_QUERY = re.compile(r"\?[A-Za-z_]+=")

_HOST = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9_.\-]*[a-z0-9])?)(?::[0-9]{1,5})?\Z")

# RFC 9110, 7.6.1, and what frames a message: a proxy makes these anew for each hop.
_HOP_BY_HOP: Final = frozenset(
    (
        *("connection", "content-length", "keep-alive", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    )
)


# Text of one line that is not blank; a number stands for its digits.
TEXT: Final = Reader(Value.text, {"type": ["string", "number"], "pattern": r"\S"}, show=str)
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


def spell(seconds: float) -> str:
    """``seconds`` in the largest unit that needs no fraction."""
    for unit, length in _UNITS.items():
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0s"


def _length(value: Value, *, least: float, most: float) -> float:
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


def duration(least: float, most: float) -> Reader[float]:
    """A duration, in seconds."""
    return Reader(
        partial(_length, least=least, most=most),
        {"type": "string", "pattern": f"^{PATTERN}$"},
        bounds=f"{spell(least)} to {spell(most)}",
        show=spell,
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
        "propertyNames": {"pattern": _NAME},
        "minProperties": 1,
        "additionalProperties": of,
    }
    return Reader(read, schema, stand_in=MappingProxyType({}))


def check_name(value: Value, name: str, what: str) -> None:
    """``name`` is fit to name a stage or an upstream: in paths, metrics and commands."""
    if not re.fullmatch(_NAME, name):
        raise value.wrong(
            f"{quoted(name)} cannot name {what}; use letters, digits, '_', '.' and '-', "
            f"the first a letter or digit, at most {_LONGEST}"
        )


def token(value: Value) -> str:
    """A token as HTTP defines it: the name of a cookie, a method."""
    text = value.text()
    if not _TOKEN.match(text):
        raise value.wrong("holds a character that HTTP keeps out of names; use letters and '-'")
    return text


def header(value: Value) -> str:
    """A header's name in lower case, one that may be set and removed."""
    text = value.text().lower()
    if text.startswith(":"):
        raise value.wrong(f"{quoted(text)} is a pseudo header, which cannot be set; name another")
    name = token(value).lower()
    if name == "host":
        raise value.wrong("host says where a request goes and cannot be set; name another header")
    if name in _HOP_BY_HOP:
        raise value.wrong(f"{name} belongs to one connection and cannot be set; name another")
    return name


def header_to_set(value: Value) -> str:
    """As ``header``, and one that may be replaced whole."""
    name = header(value)
    if name == "cookie":
        raise value.wrong(
            "cookie as a header would drop the client's other cookies; use the cookie form"
        )
    return name


def _upstream_host(value: Value) -> str:
    """The host that the upstream receives, perhaps with a port."""
    text = value.text().lower()
    if not _HOST.match(text):
        raise value.wrong(f"{quoted(text)} is no host; write it as the upstream gets it, name:port")
    return text


UPSTREAM_HOST: Final = Key(
    "host",
    TEXT.by(_upstream_host),
    "The host that the upstream receives.",
    "To be told where the gateway rewrites it.",
    otherwise="the client's",
)


def is_vault_path(text: str) -> bool:
    """Whether Vault could have something at ``text``: it takes what can be printed (Go's IsPrint)."""
    segments = text.split("/")
    return text.isprintable() and all(segments) and not {".", ".."} & set(segments)


def vault_path(value: Value) -> str:
    """``mount/more`` as Vault's command line takes it: each character stands for itself."""
    text = value.text()
    if text.lstrip("/").startswith("v1/"):
        raise value.wrong("begins with v1/, which is of the HTTP API; leave it out")
    if _QUERY.search(text):
        raise value.wrong("has a query, which is of the HTTP API; use version or params")
    if not text.isprintable():
        raise value.wrong("holds a character that Vault refuses, as it cannot be printed")
    if not is_vault_path(text):
        raise value.wrong("is no path in Vault; write mount/name, without / at its ends")
    return text


def mount(value: Value) -> str:
    """Where an auth method is mounted, below ``auth/``: Vault's lists say ``approle/``.

    Its API, and other tools, say ``auth/approle``.
    """
    text = value.text().strip("/")
    if not is_vault_path(text) or text.startswith("v1/"):
        raise value.wrong("is no mount of Vault's; write where it is below auth/, as in approle")
    return text.removeprefix("auth/")


def namespace(value: Value) -> str:
    """The path of a namespace, without slashes at its ends; ``root`` for the one without a name."""
    if isinstance(value.node, Scalar) and not value.node.text.strip():
        # Without the key it would be the environment's, or that of `vault`.
        raise value.wrong("is empty; write root for the one without a name, or leave the key out")
    # Vault itself writes "platform/", and takes "/" for root.
    name = value.text().strip("/") or _ROOT
    # It is sent as a header.
    if not (name.isascii() and _NAMESPACE.match(name) and is_vault_path(name)):
        raise value.wrong("is no namespace; write its path, as in platform/team, or root")
    return name
