"""The recording services behind the stand-in: what arrived at each, and what it answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tests.contract.kong.lua import raw, text

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Received:
    """One request as the service got it. Names and values are Lua strings (see `lua.text`)."""

    method: str
    path: str
    query: str
    headers: Pairs
    body: bytes

    def values(self, name: str) -> list[str]:
        """Every copy of a header, in order; letter case does not matter."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The header's one value, or None. Several copies fail the test."""
        values = self.values(name)
        assert len(values) < 2, f"{name} arrived {len(values)} times"
        return values[0] if values else None

    def header_bytes(self, name: str) -> bytes | None:
        """As `header`, as the bytes that went over the wire."""
        value = self.header(name)
        return None if value is None else raw(value)

    @property
    def arguments(self) -> list[tuple[str, str]]:
        """The query's names and values, decoded, in order."""
        return parse_qsl(self.query, keep_blank_values=True, errors="surrogateescape")

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name, of every Cookie header."""
        pairs = [part.strip() for value in self.values("cookie") for part in value.split(";")]
        return {name: value for name, _, value in (p.partition("=") for p in pairs if p)}


@dataclass
class Service:
    """A service behind a route. Set `status`, `headers` and `body` to say what it answers."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b"served"
    received: list[Received] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def serve(self, request: Received) -> tuple[int, list[tuple[str, str]], bytes]:
        """Record the request; returns status, headers and body."""
        with self._lock:
            self.received.append(request)
        return self.status, list(self.headers), self.body

    def seen(self, header: str) -> list[str | None]:
        """This header of every request that arrived, oldest first."""
        with self._lock:
            return [request.header(header) for request in self.received]


def pairs(headers: object) -> list[tuple[str, str]]:
    """Header pairs given as text or bytes, as Lua strings."""
    listed: list[tuple[bytes | str, bytes | str]] = list(headers)  # type: ignore[call-overload] # checked by use
    return [(text(name), text(value)) for name, value in listed]
