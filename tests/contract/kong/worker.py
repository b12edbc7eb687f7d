"""One worker process of Kong: its instances, its connections, and how it runs a phase of a request."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

from tests.contract.kong.exchange import Exchange
from tests.contract.kong.instances import Instances
from tests.contract.kong.pool import Pool
from tests.contract.kong.process import Plugin
from tests.contract.kong.routes import Settings
from tests.contract.kong.wire_msgpack import MsgPackRpc
from tests.contract.kong.wire_protobuf import ProtoBufRpc

PROTOCOLS: dict[str, type[MsgPackRpc | ProtoBufRpc]] = {
    "MsgPack:1": MsgPackRpc,
    "ProtoBuf:1": ProtoBufRpc,
}
_numbers = itertools.count()


class Worker:
    """A worker. `announce` tells all workers of its Kong that the plugin's instances are to be forgotten."""

    def __init__(
        self,
        plugin: Plugin,
        socket: Path,
        settings: Settings,
        log: Callable[[str, str], None],
        announce: Callable[[], None],
    ) -> None:
        self.number = next(_numbers)
        self.pool = Pool(socket, settings)
        self._plugin = plugin
        self._rpc = PROTOCOLS[plugin.protocol](plugin.name, self.pool, settings, log)
        self.instances = self._rpc.instances = Instances(self._rpc, settings, log, announce)
        self._busy = 0
        self._changed = threading.Condition()

    def run(self, exchange: Exchange) -> str | None:
        """Run the exchange's phase in the plugin server; returns the error after which Kong went on without it.

        Raises:
            LuaError, Exited, Endless: see `lua`.
        """
        if exchange.route.config is None or exchange.phase not in self._plugin.phases:
            return None
        return self._rpc.handle_event(exchange, exchange.route.conf(self._plugin.name))

    def begin(self) -> None:
        """A request, or its log phase, is under way."""
        with self._changed:
            self._busy += 1

    def end(self) -> None:
        """It is done."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def drained(self, timeout: float) -> bool:
        """Wait until nothing is under way."""
        with self._changed:
            return self._changed.wait_for(lambda: self._busy == 0, timeout)
