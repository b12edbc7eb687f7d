"""Envoy's server: ext_authz, health and streams on one address."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from vaultauthz.config.values import Listen
from vaultauthz.core.decision import Decision
from vaultauthz.core.request import Request
from vaultauthz.envoy import ext_authz, health
from vaultauthz.envoy.clients import Announce, Clients
from vaultauthz.envoy.place import ListenError, Place
from vaultauthz.envoy.rpc import BACKLOG, MOST_STREAMS, Method, Stream, Transport
from vaultauthz.envoy.unread import Unread
from vaultauthz.leases.later import Later
from vaultauthz.server_tls import FollowedTls, UnusableError

if TYPE_CHECKING:
    from vaultauthz.envoy.transport.streams import Streams

__all__ = ["ListenError", "Server"]


class Server:
    """Answers Envoy with what ``check`` decides, from ``start`` to ``stop``.

    ``check`` must be safe for threads and must not block: what takes time it promises.
    ``ready`` is asked by each health check. ``deadlines``: read how long Envoy waits for
    each check, which costs a little, for those that must wait for Vault. ``streams``,
    by path, are served beside them, ``most_streams`` calls of them at a time. ``client_refused``
    hears now and then of clients that may not ask: their names, and why.
    """

    def __init__(
        self,
        listen: Listen,
        check: Callable[[Request], Decision | Later[Decision]],
        ready: Callable[[], bool],
        *,
        backlog: int = BACKLOG,
        deadlines: bool = False,
        streams: Mapping[str, Stream] = MappingProxyType({}),
        most_streams: int = MOST_STREAMS,
        client_refused: Announce = lambda _names, _reason: None,
    ) -> None:
        self._place = Place(listen.grpc)
        authz = ext_authz.Check(check)
        self._health = health.Health(ready)
        methods = {
            ext_authz.METHOD: Method(authz.answer, authz.refuse),
            # Never refused: a busy server is not a sick one.
            # And for all: a load balancer that asks whether there is somebody is no gateway.
            health.METHOD: Method(self._health.check, self._health.check, for_all=True),
        }
        self.tls = _followed(self._place, listen)
        self._clients = _clients(listen, client_refused)
        self._streams = _streams(streams, most_streams, self._clients)
        self._unread = Unread()
        self._transport = _transport(
            self._place,
            listen,
            methods,
            backlog,
            deadlines=deadlines,
            streams=self._streams,
            unread=self._unread,
            tls=self.tls,
            clients=self._clients,
        )
        self._socket: tuple[int, int] | None = None

    @property
    def port(self) -> int:
        """The TCP port that it listens on, 0 for a unix socket; known after ``start``."""
        return 0 if self._place.path is not None else self._transport.port

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self._streams.open if self._streams else 0

    @property
    def refused_streams(self) -> int:
        """How many were one too many, since the start."""
        return self._streams.refused if self._streams else 0

    @property
    def unread(self) -> dict[str, int]:
        """How many calls there were whose message was not read, by reason, since the start."""
        return self._unread.counts

    @property
    def clients_refused(self) -> dict[str, int]:
        """How many calls were refused to clients of other names, by service, since the start."""
        return self._clients.refused if self._clients else {}

    @property
    def draining(self) -> bool:
        """Whether health checks turn gateways away, since it is about to stop."""
        return self._health.draining

    def start(self) -> None:
        """Listen and answer.

        Raises:
            ListenError: the address is in use or not to be had; says which and why.
        """
        self._place.claim()
        try:
            self._transport.start()
        except ListenError:
            raise  # says by itself what is wrong, and it is not this address
        except (OSError, RuntimeError) as exc:
            raise self._place.error(exc) from exc
        try:
            self._socket = self._place.publish()
        except ListenError:
            self._transport.stop(0)
            raise
        if self.tls:
            self.tls.start()

    def drain(self) -> None:
        """Say NOT_SERVING to health checks and go on answering, so that gateways turn away."""
        self._health.drain()

    def stop(self, grace: float = 1.0) -> None:
        """Take no new checks, finish those in flight within ``grace`` seconds, close."""
        self.drain()
        if self.tls:
            self.tls.stop()
        self._transport.stop(grace)
        self._place.release(self._socket)


def _followed(place: Place, listen: Listen) -> FollowedTls | None:
    if listen.grpc_tls is None:
        return None
    if listen.transport == "native":
        raise place.error("transport native serves plaintext only; use auto, or remove grpc_tls")
    try:
        return FollowedTls("listen.grpc_tls", listen.grpc_tls, by_grpc=True)
    except UnusableError as exc:
        raise place.error(exc) from exc


def _clients(listen: Listen, announce: Announce) -> Clients | None:
    tls = listen.grpc_tls
    return Clients(tls.client_names, announce) if tls and tls.client_names else None


def _streams(methods: Mapping[str, Stream], most: int, clients: Clients | None) -> Streams | None:
    if not methods:
        return None
    from vaultauthz.envoy.transport.streams import Streams  # noqa: PLC0415 - loads grpcio

    return Streams(methods, most, clients)


def _transport(
    place: Place,
    listen: Listen,
    methods: dict[str, Method],
    backlog: int,
    *,
    deadlines: bool,
    streams: Streams | None,
    unread: Unread,
    tls: FollowedTls | None,
    clients: Clients | None,
) -> Transport:
    wheel = importlib.util.find_spec("pygrpc_native") is not None
    if listen.transport == "native" and not wheel:
        raise place.error(
            "transport native needs the package pygrpc-native; install it or use auto"
        )
    # Imported here, because either library may be absent and each costs time to load.
    if listen.transport != "grpcio" and tls is None and wheel:
        from vaultauthz.envoy.transport.native import NativeTransport  # noqa: PLC0415

        return NativeTransport(
            place.target, methods, backlog, deadlines=deadlines, streams=streams, unread=unread
        )
    from vaultauthz.envoy.transport.grpcio import GrpcioTransport  # noqa: PLC0415

    return GrpcioTransport(
        place.target, methods, backlog, streams, tls=tls, clients=clients, unread=unread
    )
