"""MsgPack:1, as Kong's `rpc/mp_rpc.lua` speaks it. What goes wrong is logged, and the request goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tests.contract.kong import pdk
from tests.contract.kong.exchange import Exchange
from tests.contract.kong.instances import Conf, Instances, Result, Unclaimed, encoded
from tests.contract.kong.lua import Endless, Lua, LuaError, raw, text, unpack
from tests.contract.kong.msgpack_values import MultiMap, Objects, packed
from tests.contract.kong.pool import Connection, Lost, Pool
from tests.contract.kong.routes import Settings

STEPS = {
    "kong.client.get_credential": "plugin.StepCredential",
    "kong.client.load_consumer": "plugin.StepConsumer",
    "kong.client.get_consumer": "plugin.StepConsumer",
    "kong.client.authenticate": "plugin.StepCredential",
    "kong.node.get_memory_stats": "plugin.StepMemoryStats",
    "kong.router.get_route": "plugin.StepRoute",
    "kong.router.get_service": "plugin.StepService",
}
MULTI_MAPS = {
    "kong.request.get_query",
    "kong.request.get_headers",
    "kong.response.get_headers",
    "kong.service.response.get_headers",
}
RAW_BODIES = {"kong.request.get_raw_body"}
Log = Callable[[str, str], None]


class MsgPackRpc:
    """The calls of one worker."""

    def __init__(self, plugin: str, pool: Pool, settings: Settings, log: Log) -> None:
        self.instances: Instances  # set by the worker
        self._plugin = plugin
        self._pool = pool
        self._settings = settings
        self._log = log
        self._ids = itertools.count(1)
        self._server_pid: int | None = None

    def start_instance(self, conf: Conf) -> Result:
        """See `instances.Rpc`."""
        arguments = {"Name": self._plugin, "Config": text(encoded(conf))}
        status, error = self.call("plugin.StartInstance", arguments)
        if status is not None and not isinstance(status, dict):
            raise LuaError(f"attempt to index {status!r}")
        return (None, error or "nil") if status is None else (status.get("Id"), None)

    def close_instance(self, number: int) -> None:
        """See `instances.Rpc`."""
        self.call("plugin.CloseInstance", number)

    def handle_event(self, exchange: Exchange, conf: Conf) -> str | None:
        """Run one event; returns the error that Kong logged before it went on without the plugin.

        Raises:
            LuaError: something raised in Lua. Exited: the plugin answered. Endless: see there.
        """
        for _ in range(self._settings.max_retries):
            error = self._attempt(exchange, conf)
            if error is None or "no plugin instance" not in error.lower():
                if error is not None:
                    exchange.log("error", error)
                return error
            self.instances.reset()
            exchange.log("warn", error)
            exchange.retries += 1
        raise Endless(error)

    def _attempt(self, exchange: Exchange, conf: Conf) -> str | None:
        try:
            number = self.instances.number(conf)
        except Unclaimed as unclaimed:
            return str(unclaimed)
        event = {"InstanceId": number, "EventName": exchange.phase}
        step, error = self.call("plugin.HandleEvent", event, exchange=exchange)
        event_id = step.get("EventId") if isinstance(step, dict) else None
        while step is not None:
            data = step.get("Data") if isinstance(step, dict) else None
            if data == "ret":
                return None
            if not isinstance(data, dict):
                raise LuaError(f"attempt to index {data!r}")
            method, result = _pdk(exchange, data.get("Method"), data.get("Args"))
            answer = {"EventId": event_id, "Data": result}
            answer = {key: value for key, value in answer.items() if value is not None}
            step, error = self.call(method, answer, exchange=exchange)
        return error

    def call(
        self, method: str, *arguments: Lua, exchange: Exchange | None = None
    ) -> tuple[Lua, str | None]:
        """One call: the result, or None and the error's text. Raises LuaError."""
        if exchange is not None:
            exchange.round_trips += 1
        number = next(self._ids)
        try:
            connection = self._pool.take()
        except Lost as lost:
            self._log("error", f"trying to connect: {lost}")
            return None, str(lost)
        try:
            connection.send(packed([0, number, method, list(arguments)]))
        except Lost as lost:
            self._pool.put(connection)
            return None, str(lost)
        try:
            answer = self._answer(connection, number)
        except LuaError:
            connection.close()
            raise
        self._pool.put(connection)  # also after a timeout
        return answer

    def _answer(self, connection: Connection, number: int) -> tuple[Lua, str | None]:
        objects = Objects(connection)
        while True:
            try:
                data = objects.next()
            except Lost:
                return None, "no data"
            kind, got, error, result = (*data, None, None, None, None)[:4]
            if kind == 2:
                self._notified(got, error)
                continue
            if kind != 1:
                raise LuaError("RPC response expected from Go plugin server")
            if got != number:
                raise LuaError("unexpected RPC response ID from Go plugin server")
            if error is not None and not isinstance(error, str):
                raise LuaError("attempt to call method 'lower'")
            return (None, error) if error is not None else (result, None)

    def _notified(self, label: Lua, value: Lua) -> None:
        if label == "serverPid":
            if self._server_pid not in {None, value}:
                self.instances.forget()
            self._server_pid = value


def _pdk(exchange: Exchange, name: Lua, arguments: Lua) -> tuple[str, Lua]:
    """Answer a PDK call; returns the step's name and its data (None is left out)."""
    if not isinstance(name, str):
        raise LuaError(f"bad PDK method {name!r}")
    if not pdk.exists(name):
        exchange.log("error", f"could not find pdk method: {name}")
        return "plugin.Step", None
    result = pdk.call(exchange, name, unpack(arguments))
    if name in MULTI_MAPS:
        return "plugin.StepMultiMap", MultiMap(result)
    if name in RAW_BODIES:
        if result is None:  # the body is in a file
            raise LuaError("attempt to get length of local 'str' (a nil value)")
        return "plugin.Step", raw(result)  # bytes are packed as binary
    return STEPS.get(name, "plugin.Step"), result
