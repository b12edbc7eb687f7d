"""The rest of the PDK: client, context, nginx, router, node and the log."""

from __future__ import annotations

from tests.contract.kong.exchange import Exchange
from tests.contract.kong.lua import Lua, LuaError, to_json, tostring, type_of
from tests.contract.kong.pdk import method
from tests.contract.kong.routes import CREATED_AT, entity_id

CONSUMER, CREDENTIAL = "authenticated_consumer", "authenticated_credential"


@method("kong.client.get_consumer", timer=True)
def get_consumer(exchange: Exchange) -> Lua:
    return exchange.ctx.get(CONSUMER)


@method("kong.client.get_credential", timer=True)
def get_credential(exchange: Exchange) -> Lua:
    return exchange.ctx.get(CREDENTIAL)


@method("kong.client.authenticate", phases=("access",))
def authenticate(exchange: Exchange, consumer: Lua, credential: Lua) -> Lua:
    if consumer is None and credential is None:
        raise LuaError("either credential or consumer must be provided")
    if {type_of(consumer), type_of(credential)} - {"table", "nil"}:
        raise LuaError("consumer and credential must be a table or nil")
    exchange.ctx |= {CONSUMER: consumer, CREDENTIAL: credential}


@method("kong.client.get_ip")
@method("kong.client.get_forwarded_ip")
def get_ip(exchange: Exchange) -> Lua:
    return "127.0.0.1"


@method("kong.client.get_port")
@method("kong.client.get_forwarded_port")
def get_port(exchange: Exchange) -> Lua:
    return 40000


@method("kong.client.get_protocol", timer=True)
def get_protocol(exchange: Exchange) -> Lua:
    return "http"


@method("kong.ctx.shared.get", timer=True)
def get_shared(exchange: Exchange, name: Lua) -> Lua:
    return exchange.shared.get(name)


@method("kong.ctx.shared.set", timer=True)
def set_shared(exchange: Exchange, name: Lua, value: Lua) -> Lua:
    exchange.shared[name] = value


@method("kong.nginx.get_ctx", timer=True)
def get_ctx(exchange: Exchange, name: Lua) -> Lua:
    return exchange.ctx.get(name)


@method("kong.nginx.set_ctx", timer=True)
def set_ctx(exchange: Exchange, name: Lua, value: Lua) -> Lua:
    exchange.ctx[name] = value


@method("kong.nginx.get_var")
def get_var(exchange: Exchange, name: Lua) -> Lua:
    known = {"request_uri": exchange.uri, "args": exchange.args, "host": exchange.host}
    known |= {"request_method": exchange.method, "kong_request_id": exchange.request_id}
    known |= {
        "request": f"{exchange.method} {exchange.uri} HTTP/1.1",
        "upstream_uri": exchange.path,  # the router's; Kong adds the query after the plugins
    }
    return known.get(name)


@method("kong.nginx.get_subsystem", timer=True)
def get_subsystem(exchange: Exchange) -> Lua:
    return "http"


@method("kong.nginx.get_tls1_version_str")
def get_tls_version(exchange: Exchange) -> Lua:
    return None


@method("kong.nginx.req_start_time", timer=True)
def req_start_time(exchange: Exchange) -> Lua:
    return exchange.started


@method("kong.node.get_id", timer=True)
def get_node_id(exchange: Exchange) -> Lua:
    return entity_id("nodes", "stand-in")


@method("kong.node.get_hostname", timer=True)
def get_hostname(exchange: Exchange) -> Lua:
    return "stand-in"


@method("kong.ip.is_trusted", timer=True)
def is_trusted(exchange: Exchange, address: Lua) -> Lua:
    return False


@method("kong.plugin.get_id", timer=True)
def get_plugin_id(exchange: Exchange) -> Lua:
    return exchange.route.plugin_id


@method("kong.router.get_route", timer=True)
def get_route(exchange: Exchange) -> Lua:
    route = exchange.route
    names = {"id": route.id, "name": route.name, "paths": [route.path], "protocols": ["http"]}
    return {**names, "created_at": CREATED_AT, "service": {"id": entity_id("services", route.name)}}


@method("kong.router.get_service", timer=True)
def get_service(exchange: Exchange) -> Lua:
    name = exchange.route.name
    return {"id": entity_id("services", name), "name": name, "protocol": "http", "port": 80}


def _register_log(level: str, name: str) -> None:
    @method(name, timer=True)
    def log(exchange: Exchange, *parts: Lua) -> Lua:
        exchange.log(level, "".join(tostring(part) for part in parts))


for _level in ("alert", "crit", "err", "warn", "notice", "info", "debug"):
    _register_log(_level, f"kong.log.{_level}")
_register_log("notice", "kong.log")
_register_log("debug", "kong.log.inspect")


@method("kong.log.set_serialize_value", timer=True)
def set_serialize_value(exchange: Exchange, key: Lua, value: Lua, options: Lua) -> Lua:
    mode = options.get("mode", "set") if isinstance(options, dict) else "set"
    if type_of(key) != "string":
        raise LuaError("key must be a string")
    if mode not in {"set", "add", "replace"}:
        raise LuaError("mode must be 'set', 'add' or 'replace'")
    exchange.serialize_values.append((key, value, mode))


@method("kong.log.serialize", phases=("log",), timer=True)
def serialize(exchange: Exchange) -> Lua:
    """JSON text. What the service got is in it, so injected headers and arguments are, too."""
    assert exchange.saved is not None
    return to_json(exchange.saved.serialized)
