"""Which upstream a request is for, when the gateway's own route does not say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

# What some servers take off the ends of a segment: control characters and spaces, of Latin-1
# too, and bytes of those that are no UTF-8 (here as surrogates, or U+FFFD where they are lost).
_BLANK: Final = "".join(map(chr, (*range(1, 0x21), *range(0x7F, 0xA1), *range(0xDC80, 0xDCA1))))
_BLANKS: Final = _BLANK + "\ufffd"
_JUNK: Final = "[\x01-\x20\x7f-\xa0\udc80-\udca0\ufffd]*"
# A path with these may mean one thing to us and another to the upstream: "/a/../b"
# is under "/a/" for us, while a server that resolves it serves "/b".
_AMBIGUOUS = re.compile(rf"(?:\A|[/\\]){_JUNK}\.\.?{_JUNK}(?:[/\\;?#]|\Z)|[\\\x00]")
# Nobody but who wants to slip past a rule encodes these (RFC 3986, 2.3), writes them in more
# bytes than UTF-8 has for them (letters, digits, "-", "." and "_") or in Microsoft's way.
_DISGUISED = re.compile(
    r"%(?:2[de]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a]|c[01]|e0%[89]|f0%8|u[0-9a-f]{4})",
    re.IGNORECASE,
)
# The same found only after decoding. UTF-8 refuses overlong bytes, so they stand here singly.
_DISGUISED_AGAIN = re.compile(
    "[\udcc0\udcc1]|\udce0[\udc80-\udc9f]|\udcf0[\udc80-\udc8f]|%u[0-9a-fA-F]{4}"
)
_ENCODED_TWICE = 2  # how often a path is decoded; what can be decoded further is ambiguous
# Fullwidth forms of ASCII (U+FF01 and on), which compatibility normalisation makes ASCII of.
# Not of the percent sign: nobody decodes after that.
_NARROW: Final = {0xFF00 + n: 0x20 + n for n in range(1, 0x5F) if n != ord("%") - 0x20}
# A path without these has one reading.
_ODD = re.compile(r"[^!-~]|[%;\\?#]|//|\.(?:/|\Z)")
_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"//+")

# CONNECT has no path, and ``OPTIONS *`` is about the whole server (RFC 9112, 3.2).
PATHLESS: Final = ("", "*")

StageUpstream = tuple[str, str]  # a stage's name, and that of an upstream in it


def path_of(target: str) -> str:
    """The path of a request target, without query string and fragment."""
    if "?" not in target and "#" not in target:
        return target
    return target.split("?", 1)[0].split("#", 1)[0]


def has_fragment(target: str) -> bool:
    """Whether ``path_of`` leaves one out: no target may have any (RFC 9112, 3.2).

    A server that knows that takes the ``#`` for a character like others, and resolves
    the ``/../`` behind it.
    """
    return "#" in target and "#" in target.split("?", 1)[0]


def ambiguous(path: str) -> bool:
    """Whether servers may read ``path`` in more than one way.

    That is so with dot segments, backslashes and NUL, also when percent-encoded
    (even twice), and with letters that are percent-encoded without need.
    """
    if "%" in path:
        if _DISGUISED.search(path):
            return True
        for _ in range(_ENCODED_TWICE):
            path = _decoded(path)
            if _DISGUISED_AGAIN.search(path):
                return True
        if _decoded(path) != path:
            return True
    elif path.isascii() and "." not in path and "\\" not in path and "\0" not in path:
        return False
    return _AMBIGUOUS.search(path.translate(_NARROW)) is not None


def _decoded(path: str) -> str:
    return unquote(path, errors="surrogateescape")


def bare_path(path: str) -> str:
    """``path`` for servers that merge slashes and know path parameters (``/a;v=1``).

    And for those that take blanks, and dots at its end, off a segment (``/a.``, ``/a%20``).
    """
    if not _ODD.search(path):
        return path
    segments = _PARAMETERS.sub("", path).split("/")
    trimmed = (segment.strip(_BLANKS).rstrip(_BLANKS + ".") for segment in segments)
    return _SLASHES.sub("/", "/".join(trimmed))


def readings(path: str) -> tuple[str, ...]:
    """What else servers may take ``path`` for: () for most paths.

    They decode it once or, behind a proxy that does so too, twice, or not at all; take
    fullwidth characters for ASCII or not; and each may then take the ``bare_path``. Of a
    ``path`` that is not ``ambiguous``.
    """
    if not _ODD.search(path):
        return ()
    found: dict[str, None] = {}
    decoded = path
    for _ in range(_ENCODED_TWICE + 1):
        for read in (decoded, decoded.translate(_NARROW)):
            found |= dict.fromkeys((read, bare_path(read)))
        decoded = _decoded(decoded)
    found.pop(path)
    return tuple(found)


def under(prefix: str, path: str) -> bool:
    """Whether ``path`` is ``prefix`` or below it; ``/v1`` is not a prefix of ``/v10``."""
    if not path.startswith(prefix):
        return False
    return prefix.endswith("/") or len(path) == len(prefix) or path[len(prefix)] == "/"


def bare_host(authority: str) -> str:
    """The host of an authority in lower case, without port and trailing dot."""
    host = authority.lower()
    if host.startswith("["):
        return host[: host.find("]") + 1] or host
    if ":" in host:
        host = host.split(":", 1)[0]
    return host.rstrip(".")


@dataclass(frozen=True, slots=True)
class Route:
    """``host`` is "" for any host; ``path_prefix`` begins with a slash."""

    upstream: str
    stage: str
    host: str = ""
    path_prefix: str = "/"

    def is_for(self, path: str) -> bool:
        """Whether the path is below; or there is none, and it goes by the host alone."""
        if under(self.path_prefix, path):
            return True
        return path in PATHLESS and self.path_prefix == "/" and bool(self.host)


@dataclass(frozen=True, slots=True)
class Routes:
    """Routes in the order they are tried: a named host first, then the longest prefix."""

    by_host: dict[str, tuple[Route, ...]] = field(default_factory=dict)
    reads_path: bool = False  # whether the path decides anything

    @classmethod
    def of(cls, routes: Iterable[Route]) -> Routes:
        """An index over ``routes``, whose order does not matter."""
        by_host: dict[str, list[Route]] = {}
        for route in sorted(routes, key=lambda r: len(r.path_prefix), reverse=True):
            by_host.setdefault(route.host, []).append(route)
        reads_path = any(len(r.path_prefix) > 1 for found in by_host.values() for r in found)
        return cls({host: tuple(found) for host, found in by_host.items()}, reads_path)

    def find(self, host: str, path: str) -> Route | None:
        """The route for a request; ``host`` as sent, ``path`` without its query."""
        # As a rule the host comes just as it is named here.
        named = self.by_host.get(host) or self.by_host.get(bare_host(host), ())
        for routes in (named, self.by_host.get("", ())):
            for route in routes:
                if route.is_for(path):
                    return route
        return None
