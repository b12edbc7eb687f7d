"""Which upstream a request is for, when the gateway's own route does not say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

# A path with these may mean one thing to us and another to the upstream: "/a/../b"
# is under "/a/" for us, while a server that resolves it serves "/b".
_AMBIGUOUS = re.compile(r"(?:\A|[/\\])\.\.?(?:[/\\;]|\Z)|[\\\x00]")


def path_of(target: str) -> str:
    """The path of a request target, without query string and fragment."""
    return target.split("?", 1)[0].split("#", 1)[0]


def ambiguous(path: str) -> bool:
    """Whether ``path`` has dot segments or backslashes, also percent-encoded ones."""
    if "." not in path and "%" not in path and "\\" not in path and "\0" not in path:
        return False
    return _AMBIGUOUS.search(unquote(path)) is not None


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
    return host.split(":", 1)[0].rstrip(".")


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
        for name in (bare_host(host), ""):
            for route in self.by_host.get(name, ()):
                if under(route.path_prefix, path):
                    return route
        return None
