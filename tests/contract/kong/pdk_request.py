"""`kong.request`: what the client sent, and what plugins made of it since."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from tests.contract.kong.exchange import Exchange
from tests.contract.kong.lua import Lua, LuaError, text, type_of
from tests.contract.kong.pdk import method

RESERVED = set(b"!#$%&'()*+,/:;=?@[]")


@method("kong.request.get_scheme")
@method("kong.request.get_forwarded_scheme")
def get_scheme(exchange: Exchange) -> Lua:
    return "http"


@method("kong.request.get_host")
@method("kong.request.get_forwarded_host")
def get_host(exchange: Exchange) -> Lua:
    return exchange.host.lower()


@method("kong.request.get_port")
@method("kong.request.get_forwarded_port")
def get_port(exchange: Exchange) -> Lua:
    return 8000


@method("kong.request.get_http_version")
def get_http_version(exchange: Exchange) -> Lua:
    return 1.1


@method("kong.request.get_method")
def get_method(exchange: Exchange) -> Lua:
    return exchange.method


@method("kong.request.get_path")
@method("kong.request.get_forwarded_path")
def get_path(exchange: Exchange) -> Lua:
    """Decoded and without dots, so `%ff` in the URL is a byte that is not UTF-8 here."""
    return normalized(get_raw_path(exchange))


@method("kong.request.get_raw_path")
def get_raw_path(exchange: Exchange) -> str:
    return exchange.uri.partition("?")[0]


@method("kong.request.get_path_with_query")
def get_path_with_query(exchange: Exchange) -> Lua:
    return exchange.uri


@method("kong.request.get_raw_query")
def get_raw_query(exchange: Exchange) -> Lua:
    """As it is now: with what plugins have put into it."""
    return exchange.args


@method("kong.request.get_query_arg")
def get_query_arg(exchange: Exchange, name: Lua) -> Lua:
    if type_of(name) != "string":
        raise LuaError("query argument name must be a string")
    value = arguments_of(exchange.args).get(name)
    return value[0] if isinstance(value, list) else value


@method("kong.request.get_query")
def get_query(exchange: Exchange, max_args: Lua) -> Lua:
    return arguments_of(exchange.args, limit_of("max_args", max_args))


@method("kong.request.get_header", timer=True)
def get_header(exchange: Exchange, name: Lua) -> Lua:
    """What is in `$http_name`: copies are joined, and `X_Name` counts as `X-Name`."""
    if type_of(name) != "string":
        raise LuaError("header name must be a string")
    wanted = name.lower().replace("-", "_")
    values = [v for k, v in exchange.headers if k.lower().replace("-", "_") == wanted]
    if exchange.phase == "log":
        return values[0] if values else None
    return ("; " if wanted == "cookie" else ", ").join(values) if values else None


@method("kong.request.get_headers", timer=True)
def get_headers(exchange: Exchange, max_headers: Lua) -> Lua:
    return table_of(exchange.headers, limit_of("max_headers", max_headers))


@method("kong.request.get_raw_body", phases=("access",))
def get_raw_body(exchange: Exchange) -> Lua:
    """The body, or nil for one that nginx has put into a file (the reason, Lua's second value, never arrives)."""
    return text(exchange.body) if len(exchange.body) <= exchange.body_buffer else None


@method("kong.request.get_start_time", timer=True)
def get_start_time(exchange: Exchange) -> Lua:
    return int(exchange.started * 1000)


def limit_of(name: str, value: Lua) -> int:
    """A limit as the PDK takes it. 0, which a ProtoBuf server sends by leaving it out, is an error."""
    if value is None:
        return 100
    if type_of(value) != "number":
        raise LuaError(f"{name} must be a number")
    if not 1 <= value <= 1000:
        raise LuaError(f"{name} must be >= 1 and <= 1000")
    return int(value)


def table_of(headers: list[tuple[str, str]], limit: int = 100) -> dict[str, Lua]:
    """Headers as a Lua table: lower-case names, a list where one came several times."""
    table: dict[str, Lua] = {}
    for name, value in headers[:limit]:
        _add(table, name.lower(), value)
    return table


def arguments_of(query: str, limit: int = 100) -> dict[str, Lua]:
    """A query as a Lua table, decoded: `true` for an argument without "="."""
    table: dict[str, Lua] = {}
    for part in [p for p in query.split("&") if p][:limit]:
        name, equals, value = part.partition("=")
        _add(table, _decoded(name), _decoded(value) if equals else True)
    return table


def _add(table: dict[str, Lua], name: str, value: Lua) -> None:
    held = table.get(name)
    if held is None:
        table[name] = value
    else:
        table[name] = [*held, value] if isinstance(held, list) else [held, value]


def _decoded(part: str) -> str:
    return text(unquote_to_bytes(part.replace("+", " ").encode("utf-8", "surrogateescape")))


def normalized(path: str) -> str:
    """Kong's `normalize`: all but reserved characters decoded, dots and double slashes resolved."""

    def decode(found: re.Match[bytes]) -> bytes:
        byte = int(found[1], 16)
        return found[0].upper() if byte in RESERVED else bytes([byte])

    encoded = path.encode("utf-8", "surrogateescape")
    decoded = text(re.sub(rb"%([0-9A-Fa-f]{2})", decode, encoded))
    parts: list[str] = []
    for part in decoded.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    ends = decoded.endswith(("/", "/.", "/.."))
    return "/" + "/".join(parts) + ("/" if parts and ends else "")
