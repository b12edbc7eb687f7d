"""ProtoBuf:1, as Kong's `rpc/pb_rpc.lua` speaks it. What goes wrong is a 500 for the client.

Unless the server closes the connection during an event: then Kong forgets its instances and runs the
event again with a new one, without end. That is right for an id that the server does not know, and
wrong for everything else.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

from google.protobuf.message import DecodeError

from tests.contract.kong import pdk
from tests.contract.kong import protobuf_values as values
from tests.contract.kong.exchange import Exchange
from tests.contract.kong.instances import Conf, Instances, Result, Unclaimed
from tests.contract.kong.instances import encoded as encoded_conf
from tests.contract.kong.lua import Endless, Exited, LuaError, text
from tests.contract.kong.pool import Connection, Lost, Pool
from tests.contract.kong.routes import Settings
from vaultauthz._pb import kong_pb2 as pb

LENGTH = struct.Struct("<I")
Returned = tuple[pb.RpcReturn | None, str | None]


class ProtoBufRpc:
    """The calls of one worker."""

    def __init__(
        self, plugin: str, pool: Pool, settings: Settings, log: Callable[[str, str], None]
    ) -> None:
        self.instances: Instances  # set by the worker
        self._plugin = plugin
        self._pool = pool
        self._settings = settings
        self._log = log
        self._ids = itertools.count(2)  # Kong adds one twice

    def start_instance(self, conf: Conf) -> Result:
        """See `instances.Rpc`."""
        command = pb.CmdStartInstance(name=self._plugin, config=encoded_conf(conf))
        message, error = self.call(pb.RpcCall(cmd_start_instance=command))
        if message is None:
            return None, error
        if not message.HasField("instance_status"):
            raise LuaError("attempt to index field 'instance_status' (a nil value)")
        return message.instance_status.instance_id, None

    def close_instance(self, number: int) -> None:
        """See `instances.Rpc`."""
        self.call(pb.RpcCall(cmd_close_instance=pb.CmdCloseInstance(instance_id=number)))

    def handle_event(self, exchange: Exchange, conf: Conf) -> str | None:
        """Run one event; None, since nothing is passed over in silence here.

        Raises:
            LuaError: something raised in Lua. Exited: the plugin answered, or Kong with 500. Endless: see there.
        """
        for _ in range(self._settings.max_retries):
            error = self._attempt(exchange, conf)
            if error is None:
                return None
            if not any(words in error.lower() for words in ("no plugin instance", "closed")):
                exchange.log("error", f"pluginserver error: {error}")
                raise _unavailable(exchange)
            self.instances.reset()
            exchange.log("warn", error)
            exchange.retries += 1
        raise Endless(error)

    def _attempt(self, exchange: Exchange, conf: Conf) -> str | None:
        try:
            number = self.instances.number(conf)
        except Unclaimed as unclaimed:
            return str(unclaimed)
        event = pb.CmdHandleEvent(instance_id=number, event_name=exchange.phase)
        return self.call(pb.RpcCall(cmd_handle_event=event), exchange)[1]

    def call(self, message: pb.RpcCall, exchange: Exchange | None = None) -> Returned:
        """One call, with an `exchange` one event: the answer, or None and the error's text.

        Raises:
            LuaError, Exited: the connection is closed, no more is read from it.
        """
        try:
            connection = self._pool.take()
        except Lost as lost:
            self._log("error", f"trying to connect: {lost}")
            return None, str(lost)
        kept = False
        try:
            _write(connection, message, next(self._ids))
            self._events(connection, exchange)
            frame = _read(connection)
            self._pool.put(connection)  # before it is looked at
            kept = True
            return _checked(frame, message.sequence), None
        except (Lost, _UnknownMethodError) as error:
            return None, str(error)
        finally:
            if not kept:
                connection.close()

    def _events(self, connection: Connection, exchange: Exchange | None) -> None:
        """The PDK calls of an event, up to the empty frame."""
        if exchange is None:
            return
        exchange.round_trips += 1
        while (name := text(_read(connection))) != "":
            argument = _read(connection)
            if name not in values.SIGNATURES or not pdk.exists(name):
                raise _UnknownMethodError(f'method "{name}" not found')
            result = pdk.call(exchange, name, values.decoded(name, argument))
            _send(connection, values.encoded(name, result))
            exchange.round_trips += 1


class _UnknownMethodError(Exception):
    """The server asked for a method that Kong does not offer in this protocol."""


def _unavailable(exchange: Exchange) -> Exception:
    """What Kong's own `kong.response.error(500)` does: in the log phase it may not be called."""
    if exchange.phase == "log":
        return LuaError("function cannot be called in log phase: kong.response.error")
    body = {"message": "An unexpected error occurred", "request_id": exchange.request_id}
    return Exited(500, body, failed=True)


def _write(connection: Connection, message: pb.RpcCall, sequence: int) -> None:
    message.sequence = sequence
    _send(connection, message.SerializeToString())


def _send(connection: Connection, frame: bytes) -> None:
    """The length and the frame go in two pieces, as from Kong. Failing to send raises in Lua."""
    try:
        connection.send(LENGTH.pack(len(frame)))
        connection.send(frame)
    except Lost as lost:
        raise LuaError(str(lost)) from lost


def _read(connection: Connection) -> bytes:
    (length,) = LENGTH.unpack(connection.receive(LENGTH.size))
    return connection.receive(length)


def _checked(frame: bytes, sequence: int) -> pb.RpcReturn:
    try:
        answer = pb.RpcReturn.FromString(frame)
    except DecodeError as error:
        raise LuaError(f"pb.decode: {error}") from error
    if answer.sequence != sequence:
        raise LuaError("assertion failed!")
    return answer
