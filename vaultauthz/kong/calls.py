"""PDK calls as values, ready for both of Kong's protocols.

ProtoBuf:1 wants a frame with the method's name and one with its argument, MsgPack:1 wants a
list of arguments. What comes back is made the same here, so that the plugin sees no protocol.
Text may hold any bytes, as a client may have sent them: as ``os.fsdecode`` has it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from vaultauthz._pb import kong_pb2 as pb

LENGTH: Final = struct.Struct("<I")


def frame(message: bytes) -> bytes:
    """A whole frame of ProtoBuf:1."""
    return LENGTH.pack(len(message)) + message


def as_bytes(text: str) -> bytes:
    """The bytes that a text of Kong's stands for."""
    return text.encode("utf-8", "surrogateescape")


def as_text(data: bytes) -> str:
    """The text that stands for bytes of Kong's."""
    return data.decode("utf-8", "surrogateescape")


class TooLongError(ValueError):
    """Kong's answer is longer than what is read."""


class Result(NamedTuple):
    """What a method gives: read from ProtoBuf:1's bytes, or taken from MsgPack:1's value.

    A message that was too long to be read is None to ``read``.
    """

    read: Callable[[bytes | None], Any]
    take: Callable[[Any], Any]


class PdkCall:
    """One call: ``frames`` for ProtoBuf:1, ``args`` for MsgPack:1. May hold a credential."""

    __slots__ = ("args", "frames", "name", "result")

    def __init__(
        self,
        name: str,
        args: tuple[Any, ...] = (),
        argument: Message | None = None,
        result: Result | None = None,
    ) -> None:
        self.name = name
        self.args = args
        self.result = result or _NOTHING
        data = b"" if argument is None else argument.SerializeToString()
        self.frames = frame(name.encode()) + frame(data)

    def __repr__(self) -> str:
        return f"<Call {self.name}>"


class Batch:
    """Calls that are made one after the other; none of them hangs on another's result."""

    __slots__ = ("calls", "frames")

    def __init__(self, calls: Iterable[PdkCall] = ()) -> None:
        self.calls = tuple(calls)
        self.frames = b"".join(call.frames for call in self.calls)

    def __add__(self, other: Batch) -> Batch:
        return Batch((*self.calls, *other.calls))


# --- results -----------------------------------------------------------------


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _consumer(username: str, number: str) -> str:
    # Not `custom_id`: what one consumer has there may be another's username.
    return username or number


def _whole(data: bytes | None) -> bytes:
    if data is None:
        raise TooLongError
    return data


def _read_text(data: bytes | None) -> str:
    return as_text(pb.String.FromString(_whole(data)).v)


def _read_consumer(data: bytes | None) -> str:
    consumer = pb.Consumer.FromString(_whole(data))
    return _consumer(consumer.username, consumer.id)


def _take_consumer(value: Any) -> str:
    table = value if isinstance(value, Mapping) else {}
    return _consumer(_text(table.get("username")), _text(table.get("id")))


def _read_names(data: bytes | None) -> tuple[str, ...]:
    value = pb.Value.FromString(_whole(data))
    return tuple(as_text(one.string_value) for one in value.list_value.values)


def _take_names(value: Any) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _read_headers(data: bytes | None) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for entry in pb.Struct.FromString(_whole(data)).fields:
        values = entry.value.list_value.values or (entry.value,)
        found += [(as_text(entry.key), as_text(one.string_value)) for one in values]
    return tuple(found)


def _take_headers(value: Any) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for name, values in (value if isinstance(value, Mapping) else {}).items():
        each = values if isinstance(values, list) else [values]
        found += [(name, one) for one in each if isinstance(one, str)]
    return tuple(found)


def _read_body(data: bytes | None) -> bytes | None:
    if data is None:
        return None  # as one that Kong has put into a file
    body = pb.RawBodyResult.FromString(data)
    return body.content if body.WhichOneof("kind") == "content" else None


def _take_body(value: Any) -> bytes | None:
    return as_bytes(value) if isinstance(value, str) else value


_NOTHING: Final = Result(lambda _: None, lambda _: None)
_TEXT: Final = Result(_read_text, _text)
_CONSUMER: Final = Result(_read_consumer, _take_consumer)
_NAMES: Final = Result(_read_names, _take_names)
_HEADERS: Final = Result(_read_headers, _take_headers)
_BODY: Final = Result(_read_body, _take_body)
# nil is no bytes. A credential without an id cannot be told from none here.
_THERE: Final = Result(bool, bool)

# --- questions ---------------------------------------------------------------


def _variable(name: str) -> PdkCall:
    return PdkCall("kong.nginx.get_var", (name,), pb.String(v=name.encode()), _TEXT)


# nginx's own: the request's id that Kong logs, and "GET /path?query HTTP/1.1" as it was sent.
REQUEST_ID: Final = _variable("kong_request_id")
REQUEST_LINE: Final = _variable("request")
# The path that goes to the upstream, which a route may have changed (`strip_path`).
UPSTREAM_PATH: Final = _variable("upstream_uri")
HOST: Final = PdkCall("kong.request.get_host", result=_TEXT)
# As it was sent, with the query. What decides goes by this, not by the request line.
PATH: Final = PdkCall("kong.request.get_path_with_query", result=_TEXT)
RAW_QUERY: Final = PdkCall("kong.request.get_raw_query", result=_TEXT)
COOKIE: Final = PdkCall("kong.request.get_header", ("cookie",), pb.String(v=b"cookie"), _TEXT)
MOST_HEADERS: Final = 1000  # the most that Kong gives
HEADERS: Final = PdkCall(
    "kong.request.get_headers", (MOST_HEADERS,), pb.Int(v=MOST_HEADERS), _HEADERS
)
BODY: Final = PdkCall("kong.request.get_raw_body", result=_BODY)
CONSUMER: Final = PdkCall("kong.client.get_consumer", result=_CONSUMER)
CREDENTIAL: Final = PdkCall("kong.client.get_credential", result=_THERE)
# Two places, since Kong's own plugins write to the one or the other; acl reads this one first.
_GROUPS: Final = "authenticated_groups"
SHARED_GROUPS: Final = PdkCall(
    "kong.ctx.shared.get", (_GROUPS,), pb.String(v=_GROUPS.encode()), _NAMES
)
CTX_GROUPS: Final = PdkCall("kong.nginx.get_ctx", (_GROUPS,), pb.String(v=_GROUPS.encode()), _NAMES)
SERIALIZE: Final = PdkCall("kong.log.serialize", result=_TEXT)

# --- what is done ------------------------------------------------------------


def set_headers(headers: Iterable[tuple[str, str]]) -> PdkCall:
    """Set these, in place of every copy that the client sent."""
    table = dict(headers)
    return PdkCall("kong.service.request.set_headers", (table,), _struct(table))


def clear_header(name: str) -> PdkCall:
    """Drop every copy of a header."""
    return PdkCall("kong.service.request.clear_header", (name,), pb.String(v=name.encode()))


def set_raw_query(query: str) -> PdkCall:
    """Replace the query, which is URL-encoded already."""
    return PdkCall("kong.service.request.set_raw_query", (query,), pb.String(v=as_bytes(query)))


def hide(key: str) -> PdkCall:
    """Have Kong's log plugins see "REDACTED" at this place of what they log."""
    argument = pb.KV(k=as_bytes(key), v=pb.Value(string_value=b"REDACTED"))
    return PdkCall("kong.log.set_serialize_value", (key, "REDACTED"), argument)


def leave(status: int, body: str, headers: Mapping[str, str]) -> PdkCall:
    """Answer the client; Kong makes no further call in this event.

    The body is never empty: without one MsgPack:1 loses the headers.
    """
    argument = pb.ExitArgs(status=status, body=as_bytes(body), headers=_struct(headers))
    return PdkCall("kong.response.exit", (status, body, dict(headers)), argument)


def _struct(table: Mapping[str, str]) -> pb.Struct:
    entries = [
        pb.Struct.Entry(key=as_bytes(name), value=pb.Value(string_value=as_bytes(value)))
        for name, value in table.items()
    ]
    return pb.Struct(fields=entries)
