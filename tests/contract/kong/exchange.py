"""One request on its way through Kong: everything the PDK reads of it and writes to it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

from tests.contract.kong.lua import Lua
from tests.contract.kong.routes import Route

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Line:
    """One line of Kong's error log. Plugin servers' own output is at level "server"."""

    level: str
    message: str


@dataclass
class Saved:
    """What Kong keeps for the log phase, which runs in a timer after the request is gone."""

    serialized: dict[str, Any]
    status: int


@dataclass
class Exchange:
    """A request, what became of it so far, and what the plugin server did meanwhile."""

    route: Route
    method: str
    uri: str  # as the client sent it: path and query
    headers: Headers  # as they would go to the service now
    body: bytes
    host: str
    phase: str = "access"
    args: str = ""  # the query as it would go to the service now
    path: str = ""  # the path as it would go to the service now
    upstream_host: str = ""
    body_buffer: int = 8192
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.time)
    ctx: dict[str, Lua] = field(default_factory=dict)  # ngx.ctx
    shared: dict[str, Lua] = field(default_factory=dict)  # kong.ctx.shared
    serialize_values: list[tuple[str, Lua, str]] = field(default_factory=list)
    response_headers: Headers = field(default_factory=list)
    status: int = 200
    upstream_status: int | None = None
    source: str = "error"  # "service", "exit" or "error": kong.response.get_source
    saved: Saved | None = None
    pdk_calls: list[str] = field(default_factory=list)
    round_trips: int = 0  # calls to the plugin server during the event
    retries: int = 0  # times that Kong reset the instance and ran the event anew
    lines: list[Line] = field(default_factory=list)

    def log(self, level: str, message: str) -> None:
        """Write a line of Kong's error log."""
        self.lines.append(Line(level, message))

    def for_log(self, saved: Saved) -> Exchange:
        """The log phase's view: ngx.ctx is a copy, kong.ctx.shared is not."""
        return replace(
            self,
            phase="log",
            ctx=dict(self.ctx),
            saved=saved,
            pdk_calls=[],
            round_trips=0,
            retries=0,
            lines=[],
        )

    def named(self, name: str) -> list[str]:
        """The values of a request header, whatever its letter case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def set_header(self, name: str, values: list[str]) -> None:
        """`ngx.req.set_header`: every other copy goes, `X_Name` is not a copy of `X-Name`."""
        kept = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        self.headers = kept + [(escaped(name), escaped(value)) for value in values]


def escaped(value: str) -> str:
    """The value as nginx sends it when Lua set it: control characters are percent-encoded."""
    if value.isprintable():
        return value
    return "".join(f"%{ord(c):02X}" if (c < " " and c != "\t") or c == "\x7f" else c for c in value)
