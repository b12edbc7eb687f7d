"""The discovery services: who is connected, and who is to be told of a change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from vaultauthz._pb.discovery_pb2 import DiscoveryResponse
from vaultauthz.core.events import Event
from vaultauthz.envoy.inbox import Inbox
from vaultauthz.envoy.rpc import Stream
from vaultauthz.envoy.sds.connection import Connection
from vaultauthz.envoy.sds.secrets import Secrets, Shared
from vaultauthz.envoy.sds.served import Place
from vaultauthz.envoy.sds.subscription import (
    MOST_NAMES,
    SECRET_TYPE,
    Delta,
    StateOfTheWorld,
)

_SECRETS: Final = "/envoy.service.secret.v3.SecretDiscoveryService"
_AGGREGATED: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
# An Envoy whose stream broke is back within its backoff, and until then goes on with what
# it has.
_COMES_BACK: Final = 60.0  # seconds


class Discovery:
    """Serves ``streams``; ``changed`` and ``reloaded`` have the connected Envoys told.

    ``announce`` hears of each credential that an Envoy has taken or refused; ``clock`` is
    the keeper's.
    """

    def __init__(
        self,
        shared: Shared,
        clock: Callable[[], float],
        announce: Callable[[Event], None],
    ) -> None:
        self._secrets = Secrets(shared, clock)
        self._clock = clock
        self._announce = announce
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._left: dict[Place, float] = {}  # when an Envoy that held it went
        self.streams: dict[str, Stream] = {
            f"{_SECRETS}/StreamSecrets": self._stream(StateOfTheWorld),
            f"{_SECRETS}/DeltaSecrets": self._stream(Delta),
            f"{_SECRETS}/FetchSecrets": Stream(self._fetch),
            f"{_AGGREGATED}/StreamAggregatedResources": self._stream(
                StateOfTheWorld, aggregated=True
            ),
            f"{_AGGREGATED}/DeltaAggregatedResources": self._stream(Delta, aggregated=True),
        }

    def changed(self, stage: str, upstream: str) -> None:
        """A credential came, changed or went; a Watcher of the keeper."""
        self._secrets.seen(stage, upstream)
        for connection in self._connected():
            connection.changed((stage, upstream))

    def reloaded(self) -> None:
        """The configuration is another: who may have what is looked at anew."""
        self._secrets.reloaded()
        for connection in self._connected():
            connection.reloaded()

    def in_use(self) -> frozenset[Place]:
        """The upstreams whose credential an Envoy has now, or had when it was last here."""
        held = {place for connection in self._connected() for place in connection.in_use()}
        with self._lock:
            now = time.monotonic()
            return frozenset(held | {p for p, at in self._left.items() if now - at < _COMES_BACK})

    def _connected(self) -> tuple[Connection, ...]:
        with self._lock:
            return tuple(self._connections)

    def _stream(self, form: type[StateOfTheWorld | Delta], *, aggregated: bool = False) -> Stream:
        def answers(inbox: Inbox) -> Iterator[bytes]:
            subscription = form(self._secrets.lookup)
            connection = self._connection(subscription, inbox, aggregated=aggregated)
            with self._lock:
                self._connections.add(connection)
            try:
                yield from connection.answers()
            finally:
                self._gone(connection)

        return Stream(answers)

    def _connection(
        self, subscription: StateOfTheWorld | Delta, inbox: Inbox, *, aggregated: bool = False
    ) -> Connection:
        return Connection(subscription, inbox, self._clock, self._announce, aggregated=aggregated)

    def _gone(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
            self._left.update(dict.fromkeys(connection.in_use(), time.monotonic()))

    def _fetch(self, inbox: Inbox) -> Iterator[bytes]:
        """``FetchSecrets``: all that is to be had, once."""
        subscription = StateOfTheWorld(self._secrets.lookup, MOST_NAMES)
        connection = self._connection(subscription, inbox)
        for message in inbox:
            inbox.end()
            answer = next(connection.heard(message), None)
            connection.fetched()
            yield answer or DiscoveryResponse(type_url=SECRET_TYPE).SerializeToString()
