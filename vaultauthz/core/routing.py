"""Which upstream a request is for, when the gateway's own route does not say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

# A path with these may mean one thing to us and another to the upstream: "/a/../b"
# is under "/a/" for us, while a server that resolves it serves "/b".
_AMBIGUOUS = re.compile(r"(?:\A|[/\\])\.\.?(?:[/\\;?#]|\Z)|[\\\x00]")
# Nobody but who wants to slip past a rule encodes these (RFC 3986, 2.3) or writes
# them in more bytes than UTF-8 has for them: letters, digits, "-", "." and "_".
_DISGUISED = re.compile(
    r"%(?:2[de]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a]|c[01]|e0%[89]|f0%8)", re.IGNORECASE
)
_ENCODED_TWICE = 2  # how often a path is decoded; what can be decoded further is ambiguous


_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"//+")


def path_of(target: str) -> str:
    """The path of a request target, without query string and fragment."""
    if "?" not in target and "#" not in target:
        return target
    return target.split("?", 1)[0].split("#", 1)[0]


def ambiguous(path: str) -> bool:
    """Whether servers may read ``path`` in more than one way.

    That is so with dot segments, backslashes and NUL, also when percent-encoded
    (even twice), and with letters that are percent-encoded without need.
    """
    if "%" in path:
        if _DISGUISED.search(path):
            return True
        for _ in range(_ENCODED_TWICE):
            path = unquote(path)
        if unquote(path) != path:
            return True
    elif "." not in path and "\\" not in path and "\0" not in path:
        return False
    return _AMBIGUOUS.search(path) is not None


def bare_path(path: str) -> str:
    """``path`` for servers that merge slashes and know path parameters (``/a;v=1``)."""
    if ";" not in path and "//" not in path:
        return path
    return _SLASHES.sub("/", _PARAMETERS.sub("", path))


def other_reading(path: str) -> str:
    """The path as a server may read it that decodes it and then takes ``bare_path``."""
    if "%" not in path and "//" not in path and ";" not in path:
        return path
    return bare_path(unquote(path))


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
                if under(route.path_prefix, path):
                    return route
        return None
