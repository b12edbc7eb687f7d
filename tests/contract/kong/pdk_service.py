"""`kong.service`: what plugins change of the request to the service, and what the service answered."""

from __future__ import annotations

from urllib.parse import quote

from tests.contract.kong.exchange import Exchange
from tests.contract.kong.lua import Lua, LuaError, raw, tostring, type_of
from tests.contract.kong.pdk import method

ACCESS = ("access",)


def header_values(name: Lua, value: Lua) -> list[str]:
    """What one header is set to; an empty value becomes a space.

    Raises:
        LuaError: a name that is no string, or a value that is no string, number, boolean or list of strings.
    """
    if type_of(name) != "string":
        raise LuaError(f"invalid header name {name!r}: got {type_of(name)}, expected string")
    values = value if isinstance(value, list) else [value]
    allowed = {"string"} if isinstance(value, list) else {"string", "number", "boolean"}
    for one in values:
        if type_of(one) not in allowed:
            raise LuaError(f"invalid header value for {name!r}: got {type_of(one)}")
    return [tostring(one) or " " for one in values]


def header_table(headers: Lua) -> dict[str, list[str]]:
    """Headers by name, each a list of values. Raises LuaError."""
    if headers == []:  # an empty Lua table is both
        return {}
    if not isinstance(headers, dict):
        raise LuaError("headers must be a table")
    return {name: header_values(name, value) for name, value in headers.items()}


@method("kong.service.request.set_header", phases=ACCESS)
def set_header(exchange: Exchange, name: Lua, value: Lua) -> Lua:
    values = header_values(name, value)
    if name.lower() == "host":
        exchange.upstream_host = values[0]
    exchange.set_header(name, values)


@method("kong.service.request.set_headers", phases=ACCESS)
def set_headers(exchange: Exchange, headers: Lua) -> Lua:
    for name, values in sorted(header_table(headers).items()):
        set_header(exchange, name, values)


@method("kong.service.request.add_header", phases=ACCESS)
def add_header(exchange: Exchange, name: Lua, value: Lua) -> Lua:
    values = header_values(name, value)
    exchange.set_header(name, exchange.named(name) + values)


@method("kong.service.request.clear_header", phases=ACCESS)
def clear_header(exchange: Exchange, name: Lua) -> Lua:
    if type_of(name) != "string":
        raise LuaError("header must be a string")
    exchange.set_header(name, [])


@method("kong.service.request.set_raw_query", phases=ACCESS)
def set_raw_query(exchange: Exchange, query: Lua) -> Lua:
    if type_of(query) != "string":
        raise LuaError("query must be a string")
    exchange.args = query


@method("kong.service.request.set_query", phases=ACCESS)
def set_query(exchange: Exchange, args: Lua) -> Lua:
    if type_of(args) != "table":
        raise LuaError("args must be a table")
    parts = [_encoded(name, value) for name, value in dict(args).items()]
    exchange.args = "&".join(sorted(parts))


def _encoded(name: Lua, value: Lua) -> str:
    if type_of(name) != "string":
        raise LuaError("arg keys must be strings")
    parts = []
    for one in value if isinstance(value, list) else [value]:
        if type_of(one) not in {"string", "number", "boolean"}:
            raise LuaError(f"argument {name!r} has a value that is a {type_of(one)}")
        if one is not False:
            parts.append(_quoted(name) + ("" if one is True else "=" + _quoted(tostring(one))))
    return "&".join(parts)


def _quoted(part: str) -> str:
    return quote(raw(part), safe="-._~")


@method("kong.service.request.clear_query_arg", phases=ACCESS)
def clear_query_arg(exchange: Exchange, name: Lua) -> Lua:
    if type_of(name) != "string":
        raise LuaError("query argument name must be a string")
    parts = [p for p in exchange.args.split("&") if p.partition("=")[0] != name]
    exchange.args = "&".join(parts)


@method("kong.service.request.set_path", phases=ACCESS)
def set_path(exchange: Exchange, path: Lua) -> Lua:
    if type_of(path) != "string" or not path.startswith("/"):
        raise LuaError("path must be a string and start with /")
    exchange.path = path


@method("kong.service.request.set_method", phases=ACCESS)
def set_method(exchange: Exchange, name: Lua) -> Lua:
    if name not in {"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"}:
        raise LuaError(f"invalid method: {name}")
    exchange.method = name


@method("kong.service.request.set_scheme", phases=ACCESS)
def set_scheme(exchange: Exchange, scheme: Lua) -> Lua:
    if scheme not in {"http", "https"}:
        raise LuaError(f"invalid scheme: {scheme}")


@method("kong.service.request.set_raw_body", phases=ACCESS)
def set_raw_body(exchange: Exchange, body: Lua) -> Lua:
    if type_of(body) != "string":
        raise LuaError("body must be a string")
    exchange.body = raw(body)


# In the log phase these read nginx's variables, which are gone: `kong.log.serialize` has the status.
@method("kong.service.response.get_status", phases=("log",))
@method("kong.service.response.get_header", phases=("log",))
@method("kong.service.response.get_headers", phases=("log",))
def of_the_service(exchange: Exchange) -> Lua:
    raise LuaError("API disabled in the current context")
