"""`kong.log.serialize`: the table about a finished request that Kong's logging plugins write down.

Its headers and arguments are those the service got. Kong hides `authorization` and `proxy-authorization`
and nothing else: another header that a plugin injects is in it unless `set_serialize_value` covers it.
"""

from __future__ import annotations

import time
from typing import Any

from tests.contract.kong.exchange import Exchange
from tests.contract.kong.lua import Lua, LuaError
from tests.contract.kong.pdk_core import CONSUMER, CREDENTIAL, get_route, get_service
from tests.contract.kong.pdk_request import arguments_of, table_of
from tests.contract.kong.routes import WORKSPACE

HIDDEN = [
    ("request.headers.authorization", "REDACTED", "replace"),
    ("request.headers.proxy-authorization", "REDACTED", "replace"),
]
SOURCES = {"service": "upstream", "exit": "kong", "error": "kong"}


def serialized(exchange: Exchange) -> dict[str, Any]:
    """The table. Raises LuaError when `set_serialize_value` was given a key that does not fit."""
    table = {**_about_request(exchange), **_about_answer(exchange)}
    for key, value, mode in HIDDEN + exchange.serialize_values:
        _edit(table, key, value, mode)
    return table


def _about_request(exchange: Exchange) -> dict[str, Any]:
    credential = exchange.ctx.get(CREDENTIAL)
    about = {
        "request": {
            "id": exchange.request_id,
            "uri": exchange.uri,
            "url": f"http://{exchange.host}:8000{exchange.uri}",
            "querystring": arguments_of(exchange.args),
            "method": exchange.method,
            "headers": table_of(exchange.headers),
            "size": len(exchange.body),
        },
        "client_ip": "127.0.0.1",
        "started_at": int(exchange.started * 1000),
        "workspace": WORKSPACE,
        "workspace_name": "default",
        "route": get_route(exchange),
        "service": get_service(exchange),
    }
    if exchange.ctx.get(CONSUMER):
        about["consumer"] = exchange.ctx[CONSUMER]
    if credential:
        about["authenticated_entity"] = {"id": credential["id"]}
    return about


def _about_answer(exchange: Exchange) -> dict[str, Any]:
    took = int((time.time() - exchange.started) * 1000)
    about: dict[str, Any] = {
        "upstream_uri": exchange.path + ("?" + exchange.args if exchange.args else ""),
        "upstream_status": ""
        if exchange.upstream_status is None
        else str(exchange.upstream_status),
        "response": {"status": exchange.status, "headers": table_of(exchange.response_headers)},
        "latencies": {"kong": 0, "proxy": -1, "request": took, "receive": 0},
        "source": SOURCES[exchange.source],
    }
    if exchange.upstream_status is not None:
        about["tries"] = [{"ip": "127.0.0.1", "port": 80, "balancer_latency": 0}]
    return about


def _edit(table: dict[str, Any], key: str, value: Lua, mode: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if parent not in table:
            if mode == "replace":
                return
            table[parent] = {}
        table = table[parent]
        if not isinstance(table, dict):
            raise LuaError(f"The key '{key}' could not be used as a serialize value")
    if mode == "set" or (mode == "add") == (last not in table):
        if value is None:
            table.pop(last, None)
        else:
            table[last] = value
