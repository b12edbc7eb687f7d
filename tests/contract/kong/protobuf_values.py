"""ProtoBuf:1's messages and Lua's values: which methods there are, what they take and give.

The quirks are those of Kong's `rpc/pb_rpc.lua` with lua-protobuf: a field that is not sent has its default
(so an `Int` that is left out is 0), `false` inside a Value is nil, and null is the text "NULL_VALUE".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from tests.contract.kong.lua import Lua, LuaError, NotEmulated, raw, text, tostring
from vaultauthz._pb import kong_pb2 as pb

# name: what it takes and what it gives, as in the service of Kong's pluginsocket.proto.
_SIGNATURES = """
client.get_ip Empty String|client.get_forwarded_ip Empty String|client.get_port Empty Int
client.get_forwarded_port Empty Int|client.get_credential Empty AuthenticatedCredential
client.load_consumer ConsumerSpec Consumer|client.get_consumer Empty Consumer
client.authenticate AuthenticateArgs Empty|client.get_protocol Bool String
ctx.shared.set KV Empty|ctx.shared.get String Value|ip.is_trusted String Bool
log.alert ListValue Empty|log.crit ListValue Empty|log.err ListValue Empty|log.warn ListValue Empty
log.notice ListValue Empty|log.info ListValue Empty|log.debug ListValue Empty
log.set_serialize_value KV Empty|log.serialize Empty String
nginx.get_var String String|nginx.get_tls1_version_str Empty String|nginx.set_ctx KV String
nginx.get_ctx String Value|nginx.req_start_time Empty Number|nginx.get_subsystem Empty String
node.get_id Empty String|node.get_memory_stats Empty MemoryStats
request.get_scheme Empty String|request.get_host Empty String|request.get_port Empty Int
request.get_forwarded_scheme Empty String|request.get_forwarded_host Empty String
request.get_forwarded_port Empty Int|request.get_http_version Empty Number
request.get_method Empty String|request.get_path Empty String
request.get_path_with_query Empty String|request.get_raw_query Empty String
request.get_query_arg String String|request.get_query Int Struct|request.get_header String String
request.get_headers Int Struct|request.get_raw_body Empty RawBodyResult
request.get_uri_captures Empty UriCapturesResult
response.get_status Empty Int|response.get_header String String|response.get_headers Int Struct
response.get_source Empty String|response.set_status Int Empty|response.set_header KV Empty
response.add_header KV Empty|response.clear_header String Empty|response.set_headers Struct Empty
response.exit ExitArgs Empty|router.get_route Empty Route|router.get_service Empty Service
service.set_upstream String Empty|service.set_target Target Empty
service.request.set_scheme String Empty|service.request.set_path String Empty
service.request.set_raw_query String Empty|service.request.set_method String Empty
service.request.set_query Struct Empty|service.request.set_header KV Empty
service.request.add_header KV Empty|service.request.clear_header String Empty
service.request.set_headers Struct Empty|service.request.set_raw_body ByteString Empty
service.response.get_status Empty Int|service.response.get_header String String
service.response.get_headers Int Struct|service.response.get_raw_body Empty ByteString
"""
SIGNATURES: dict[str, tuple[str, str]] = {
    f"kong.{name}": (taken, given)
    for line in _SIGNATURES.strip().splitlines()
    for name, taken, given in (entry.split() for entry in line.split("|"))
}


def to_lua(value: pb.Value) -> Lua:
    """A Value as Kong unwraps it."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return text(value.string_value)
    if kind == "number_value":
        return value.number_value
    if kind == "bool_value":
        return value.bool_value or None
    if kind == "null_value":
        return "NULL_VALUE"
    if kind == "list_value":
        return [to_lua(one) for one in value.list_value.values]
    return table_to_lua(value.struct_value) if kind == "struct_value" else None


def table_to_lua(struct: pb.Struct) -> dict[str, Lua]:
    """A Struct as Kong unwraps it: what is nil is not there."""
    table = {text(entry.key): to_lua(entry.value) for entry in struct.fields}
    return {key: value for key, value in table.items() if value is not None}


def from_lua(value: Lua) -> pb.Value:
    """A Value as Kong wraps it; nil is a null_value of 1, an empty table a Struct."""
    if value is None:
        return pb.Value(null_value=1)
    if isinstance(value, bool):
        return pb.Value(bool_value=value)
    if isinstance(value, int | float):
        return pb.Value(number_value=value)
    if isinstance(value, str):
        return pb.Value(string_value=raw(value))
    if isinstance(value, list) and value:
        return pb.Value(list_value=pb.ListValue(values=[from_lua(one) for one in value]))
    return pb.Value(struct_value=table_from_lua(value or {}))


def table_from_lua(table: dict[str, Lua]) -> pb.Struct:
    """A Struct as Kong wraps it."""
    entries = [pb.Struct.Entry(key=raw(k), value=from_lua(v)) for k, v in table.items()]
    return pb.Struct(fields=entries)


def _exit(message: pb.ExitArgs) -> list[Lua]:
    headers = table_to_lua(message.headers) if message.HasField("headers") else None
    return [message.status, text(message.body), headers]


TAKEN: dict[str, tuple[type[Message], Callable[[Any], list[Lua]]]] = {
    "Bool": (pb.Bool, lambda m: [m.v]),
    "Int": (pb.Int, lambda m: [m.v]),
    "String": (pb.String, lambda m: [text(m.v)]),
    "ByteString": (pb.ByteString, lambda m: [text(m.v)]),
    "KV": (pb.KV, lambda m: [text(m.k), to_lua(m.v)]),
    "ListValue": (pb.ListValue, lambda m: [to_lua(one) for one in m.values]),
    "Struct": (pb.Struct, lambda m: [table_to_lua(m)]),
    "ExitArgs": (pb.ExitArgs, _exit),
}


def decoded(name: str, argument: bytes) -> list[Lua]:
    """The arguments of a PDK call. Raises LuaError for bytes that are no such message."""
    kind = SIGNATURES[name][0]
    if kind == "Empty":
        return []
    if kind not in TAKEN:
        raise NotEmulated(f"{name} takes a {kind}")
    message, unwrap = TAKEN[kind]
    try:
        return unwrap(message.FromString(argument))
    except DecodeError as error:
        raise LuaError(f"pb.decode: {error}") from error


def encoded(name: str, result: Lua) -> bytes:
    """The result of a PDK call; nil is no bytes at all, as is an empty string.

    Raises:
        LuaError: a result that does not fit, such as `true` for `get_query_arg`.
    """
    kind = SIGNATURES[name][1]
    if kind == "RawBodyResult":
        return _body(result).SerializeToString()
    if kind in {"Value", "Struct"}:
        return (from_lua(result) if kind == "Value" else table_from_lua(result)).SerializeToString()
    if result is None:
        return b""
    return _message(name, kind, result).SerializeToString()


def _message(name: str, kind: str, result: Lua) -> Message:
    if kind in {"String", "ByteString"}:
        if isinstance(result, bool) or not isinstance(result, str | int | float):
            raise LuaError(f"pb.encode: string expected for {name}, got {result!r}")
        return pb.String(v=raw(tostring(result)))
    if kind == "Int":
        return pb.Int(v=int(result))
    if kind == "Number":
        return pb.Number(v=result)
    if kind == "Bool":
        return pb.Bool(v=bool(result))
    if kind == "Consumer":
        return pb.Consumer(**{k: v for k, v in result.items() if k in _FIELDS})
    if kind == "AuthenticatedCredential":
        return pb.AuthenticatedCredential(
            id=result.get("id"), consumer_id=result.get("consumer_id")
        )
    raise NotEmulated(f"{name} gives a {kind}")


_FIELDS = {field.name for field in pb.Consumer.DESCRIPTOR.fields}


def _body(result: Lua) -> pb.RawBodyResult:
    if isinstance(result, str):
        return pb.RawBodyResult(content=raw(result))
    return pb.RawBodyResult(body_filepath="/client_body_temp/0000000001")
