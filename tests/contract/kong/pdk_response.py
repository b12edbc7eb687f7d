"""`kong.response`: what the client gets. `exit` and `error` end the plugin's coroutine."""

from __future__ import annotations

from tests.contract.kong.exchange import Exchange, Headers
from tests.contract.kong.lua import Exited, Lua, LuaError, to_json, type_of
from tests.contract.kong.pdk import method
from tests.contract.kong.pdk_request import limit_of, table_of
from tests.contract.kong.pdk_service import header_table, header_values

ACCESS, LOG = ("access",), ("log",)
UNEXPECTED = "An unexpected error occurred"


@method("kong.response.exit", phases=ACCESS)
def leave(exchange: Exchange, status: Lua, body: Lua, headers: Lua) -> Lua:
    _check_status(status, 100)
    if type_of(body) == "boolean" or type_of(body) == "number":
        raise LuaError("body must be a nil, string or table")
    raise Exited(int(status), body, header_table({} if headers is None else headers))


@method("kong.response.error", phases=ACCESS)
def error(exchange: Exchange, status: Lua, message: Lua, headers: Lua) -> Lua:
    _check_status(status, 400)
    body = {"message": message or UNEXPECTED, "request_id": exchange.request_id}
    raise Exited(int(status), body, header_table({} if headers is None else headers))


def _check_status(status: Lua, lowest: int) -> None:
    if type_of(status) != "number":
        raise LuaError("code must be a number")
    if not lowest <= status <= 599:
        raise LuaError(f"code must be a number between {lowest} and 599")


@method("kong.response.set_status", phases=ACCESS)
def set_status(exchange: Exchange, status: Lua) -> Lua:
    _check_status(status, 100)
    exchange.status = int(status)


@method("kong.response.set_header", phases=ACCESS)
def set_header(exchange: Exchange, name: Lua, value: Lua) -> Lua:
    put(exchange.response_headers, name, header_values(name, value))


@method("kong.response.set_headers", phases=ACCESS)
def set_headers(exchange: Exchange, headers: Lua) -> Lua:
    for name, values in header_table(headers).items():
        put(exchange.response_headers, name, values)


@method("kong.response.add_header", phases=ACCESS)
def add_header(exchange: Exchange, name: Lua, value: Lua) -> Lua:
    exchange.response_headers += [(name, one) for one in header_values(name, value)]


@method("kong.response.clear_header", phases=ACCESS)
def clear_header(exchange: Exchange, name: Lua) -> Lua:
    put(exchange.response_headers, name, [])


@method("kong.response.get_status", phases=LOG, timer=True)
def get_status(exchange: Exchange) -> Lua:
    return exchange.status


@method("kong.response.get_header", phases=LOG, timer=True)
def get_header(exchange: Exchange, name: Lua) -> Lua:
    value = table_of(exchange.response_headers).get(str(name).lower().replace("_", "-"))
    return value[0] if isinstance(value, list) else value


@method("kong.response.get_headers", phases=LOG, timer=True)
def get_headers(exchange: Exchange, max_headers: Lua) -> Lua:
    return table_of(exchange.response_headers, limit_of("max_headers", max_headers))


@method("kong.response.get_source", phases=LOG, timer=True)
def get_source(exchange: Exchange) -> Lua:
    return exchange.source


def put(headers: Headers, name: str, values: list[str]) -> None:
    """`ngx.header[name] = values`: underscores become dashes, other copies go."""
    name = name.replace("_", "-")
    headers[:] = [pair for pair in headers if pair[0].lower() != name.lower()]
    headers += [(name, value) for value in values]


def rendered(exited: Exited) -> tuple[bytes, Headers]:
    """The body and the headers of an exit, as `kong.response` sends them."""
    headers: Headers = []
    for name, values in exited.headers.items():
        if name.lower().replace("_", "-") != "transfer-encoding":
            put(headers, name, values if isinstance(values, list) else [values])
    names = {name.lower() for name, _ in headers}
    body = exited.body
    if isinstance(body, dict | list):
        body = to_json(body)
        if "content-type" not in names:
            headers.append(("Content-Type", "application/json; charset=utf-8"))
    data = (body or "").encode("utf-8", "surrogateescape")
    if "content-length" not in names:
        headers.append(("Content-Length", str(len(data))))
    return data, headers
