"""Envoy's server: ext_authz, health and streams on one address.

``grpc.health.v1.Health/Check``: tells Envoy's active health check whether to ask us
(https://github.com/grpc/grpc/blob/master/doc/health-checking.md). ``Watch`` is not served and
answers UNIMPLEMENTED, which the protocol lets a client take as "no watching here": each watcher
would hold a thread for as long as it is connected, and Envoy asks by ``Check``.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from vaultauthz import listening
from vaultauthz._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from vaultauthz.config.values import Listen
from vaultauthz.core.decision import Decision
from vaultauthz.core.request import Request
from vaultauthz.envoy import ext_authz
from vaultauthz.envoy.activation import WaitingGateways
from vaultauthz.envoy.connected import connections_to
from vaultauthz.envoy.leaving import Leaving, send_away
from vaultauthz.envoy.refused_calls import Announce, Clients, Unread
from vaultauthz.envoy.rpc import (
    BACKLOG,
    INVALID_ARGUMENT,
    MOST_STREAMS,
    NOT_FOUND,
    GrpcTransport,
    RpcError,
    StreamMethod,
    UnaryMethod,
)
from vaultauthz.leases.later import Later
from vaultauthz.listening import Address, ListenError, SocketName, steer
from vaultauthz.server_tls import FollowedTls, UnusableError

if TYPE_CHECKING:
    from vaultauthz.envoy.streams import Streams

# Envoy usually runs as a user of its own: it gets in by the group.
_SOCKET_MODE: Final = 0o660
_GRACE: Final = 1.0  # seconds for what is in flight when gateways have been sent away


class GrpcServer:
    """Answers Envoy with what ``check`` decides, from ``start`` to ``stop``.

    ``check`` must be safe for threads and must not block: what takes time it promises.
    ``refused`` hears of what is denied without it. ``started`` is asked by each health check.
    ``deadlines``: read how long Envoy waits for each check, which costs a little, for those that
    must wait for Vault. ``streams``, by path, are served beside them, ``most_streams`` calls of
    them at a time. ``client_refused`` hears now and then of clients that may not ask: their names,
    and why. ``takes_over``: another server has the address, and gives it to this one. ``given``: systemd
    listens there, on a unix socket.
    """

    def __init__(
        self,
        listen: Listen,
        check: Callable[[Request], Decision | Later[Decision]],
        started: Callable[[], bool],
        *,
        refused: ext_authz.Refused = lambda _request, _denied: None,
        backlog: int = BACKLOG,
        deadlines: bool = False,
        streams: Mapping[str, StreamMethod] = MappingProxyType({}),
        most_streams: int = MOST_STREAMS,
        client_refused: Announce = lambda _names, _reason: None,
        takes_over: bool = False,
        given: socket.socket | None = None,
    ) -> None:
        self._place = _GrpcAddress(listen.grpc, served=takes_over or given is not None)
        self._waiting = self._place.waiting(given) if given else None
        self._bound = self._ended = False
        authz = ext_authz.Check(check, refused)
        self._health = HealthService(started)
        methods = {
            ext_authz.METHOD: UnaryMethod(authz.answer, authz.refuse),
            # Never refused: a busy server is not a sick one.
            # And for all: a load balancer that asks whether there is somebody is no gateway.
            HEALTH_METHOD: UnaryMethod(self._health.check, self._health.check, for_all=True),
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

    @property
    def port(self) -> int:
        """The TCP port that it listens on, 0 for a unix socket; known after ``start``."""
        return 0 if self._place.name else self._transport.port

    @property
    def connections(self) -> int | None:
        """How many are open; None where the system does not tell."""
        return connections_to(self._places)

    @property
    def _places(self) -> set[str | int]:
        """Where connections to us lead, for ``connected_to``."""
        name = self._place.name
        return {str(name.passing), str(name.path)} if name else {self.port}

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

    def prepare(self) -> None:
        """Do what ``start`` does before anybody can connect. Raises ListenError."""
        if self._place.name:
            self._bind()

    def start(self) -> None:
        """Listen and answer.

        Raises:
            ListenError: the address is in use or not to be had; says which and why.
        """
        if not self._bound:
            self._bind()
        if self._place.name:
            try:
                if self._waiting:
                    self._place.name.borrow()
                self._place.name.publish(_SOCKET_MODE)
            except OSError as exc:
                self._transport.stop(0)
                raise self._place.error(exc.strerror or exc) from exc
        elif self._place.served:
            steer(self.port)
        if self._waiting:
            self._waiting.start()
        if self.tls:
            self.tls.start()

    def _bind(self) -> None:
        self._place.see_that_it_is_free()
        try:
            self._transport.start()
        except ListenError:
            raise  # says by itself what is wrong, and it is not this address
        except (OSError, RuntimeError) as exc:
            raise self._place.error(exc) from exc
        self._bound = True

    def let_go(self) -> None:
        """Another server is about to have the address; ``take_back`` or ``leave`` comes next."""
        if self._place.name:
            self._place.name.keep()

    def take_back(self) -> None:
        """It has not lasted: the address is ours again."""
        if self._place.name:
            self._place.name.restore()

    def leave(self, seconds: float, over: Callable[[], bool] = lambda: False) -> None:
        """Another server has the address: send gateways there, and wait until they have gone, or it is ``over``."""
        if self._place.name:
            self._place.name.let_go()
        self._send_away(seconds, over)
        self._end(_GRACE)

    def _send_away(self, seconds: float, over: Callable[[], bool] = lambda: False) -> None:
        end_streams = self._streams.end if self._streams else lambda: None
        send_away(Leaving(self._places, mute=bool(self.tls)), seconds, end_streams, over)

    def drain(self) -> None:
        """Say NOT_SERVING to health checks and go on answering, so that gateways turn away."""
        self._health.drain()

    def stop(self, grace: float = 1.0) -> None:
        """Take no new checks, finish those in flight within ``grace`` seconds, close."""
        self.drain()
        if self.tls:
            self.tls.stop()
        if self._waiting:
            self._waiting.stop()
        if self._place.name and self._place.name.borrowed:
            self._place.name.release()  # first: who comes now waits in the socket that was there
            self._send_away(grace)
        self._end(grace)
        if self._place.name:
            self._place.name.release()

    def _end(self, grace: float) -> None:
        if not self._ended:
            self._ended = True
            self._transport.stop(grace)


class _GrpcAddress:
    """``listen.grpc``: whether it can be had, and how gRPC's libraries are told of it."""

    def __init__(self, text: str, *, served: bool = False) -> None:
        self.served = served
        self._address = Address.parse(text)
        self.name = SocketName(self._address.path) if self._address.path else None

    @property
    def target(self) -> str:
        """The address to bind, as both libraries take it.

        Both delete the name that they bound when they close, even when it is another server's by
        then. They get the passing one, which is gone by that time.
        """
        return f"unix:{self.name.passing}" if self.name else str(self._address)

    def waiting(self, given: socket.socket) -> WaitingGateways:
        """Those that wait at the socket that systemd has opened. Raises ListenError: it is none for us."""
        if self.name is None or given.getsockname() != str(self.name.path):
            raise self.error(
                f"systemd has opened {given.getsockname()} under the name grpc; let ListenStream= and "
                "listen.grpc be the same unix socket. A port needs no socket unit: --take-over shares it"
            )
        return WaitingGateways(given, self.name.path)

    def error(self, why: object) -> ListenError:
        """An error about this address."""
        return ListenError(f"listen.grpc: {self._address}: {why}")

    def see_that_it_is_free(self) -> None:
        """See that nobody serves there. Raises ListenError: somebody does, or the system refuses."""
        try:
            if self.name:
                self._see_that_nobody_answers(self.name)
            elif not self.served:
                self._try_to_bind()
        except ListenError:
            raise
        except OSError as exc:
            raise self.error(exc.strerror or exc) from exc

    def _see_that_nobody_answers(self, name: SocketName) -> None:
        folder = name.path.parent
        if not folder.is_dir():
            raise self.error(f"the folder {folder} does not exist; create it")
        if not os.access(folder, os.W_OK):
            raise self.error(f"no permission to create a socket in {folder}")
        match name.in_the_way():
            case listening.NO_SOCKET:
                raise self.error("there is a file of that name, and it is not a socket")
            case listening.SERVED if not self.served:
                raise self.error("another server answers on it; stop it first, or listen elsewhere")

    def _try_to_bind(self) -> None:
        """Bind once for the system's own words: grpcio only says that it failed."""
        found = socket.getaddrinfo(
            self._address.host,
            self._address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the servers do it: a port in TIME_WAIT is free, one that is served is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)


def _followed(place: _GrpcAddress, listen: Listen) -> FollowedTls | None:
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


def _streams(
    methods: Mapping[str, StreamMethod], most: int, clients: Clients | None
) -> Streams | None:
    if not methods:
        return None
    from vaultauthz.envoy.streams import Streams  # noqa: PLC0415 - loads grpcio

    return Streams(methods, most, clients)


def _transport(
    place: _GrpcAddress,
    listen: Listen,
    methods: dict[str, UnaryMethod],
    backlog: int,
    *,
    deadlines: bool,
    streams: Streams | None,
    unread: Unread,
    tls: FollowedTls | None,
    clients: Clients | None,
) -> GrpcTransport:
    wheel = importlib.util.find_spec("pygrpc_native") is not None
    if listen.transport == "native" and not wheel:
        raise place.error(
            "transport native needs the package pygrpc-native; install it or use auto"
        )
    # Imported here, because either library may be absent and each costs time to load.
    if listen.transport != "grpcio" and tls is None and wheel:
        from vaultauthz.envoy.native_transport import NativeTransport  # noqa: PLC0415

        return NativeTransport(
            place.target, methods, backlog, deadlines=deadlines, streams=streams, unread=unread
        )
    from vaultauthz.envoy.grpcio_transport import GrpcioTransport  # noqa: PLC0415

    return GrpcioTransport(
        place.target, methods, backlog, streams, tls=tls, clients=clients, unread=unread
    )


HEALTH_SERVICE: Final = "grpc.health.v1.Health"
HEALTH_METHOD: Final = f"/{HEALTH_SERVICE}/Check"
# The empty name stands for the server as a whole.
_KNOWN: Final = frozenset(("", ext_authz.SERVICE))

_SERVING: Final = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
_NOT_SERVING: Final = HealthCheckResponse(
    status=HealthCheckResponse.NOT_SERVING
).SerializeToString()


class HealthService:
    """SERVING while ``started()`` says so and ``drain`` has not been called.

    An upstream that loses its credential later does not end it: Envoy would turn all the others away.
    """

    def __init__(self, started: Callable[[], bool]) -> None:
        self._started = started
        self._draining = False

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether ``drain`` has been called."""
        return self._draining

    def check(self, data: bytes, left: float | None = None) -> bytes:
        """The HealthCheckResponse for the HealthCheckRequest in ``data``.

        Raises:
            RpcError: NOT_FOUND for a service that is not here, INVALID_ARGUMENT for bytes
                that are no HealthCheckRequest.
        """
        try:
            service = HealthCheckRequest.FromString(data).service
        except DecodeError:
            raise RpcError(INVALID_ARGUMENT, "not a HealthCheckRequest") from None
        if service not in _KNOWN:
            raise RpcError(NOT_FOUND, "no such service")
        return _SERVING if self._started() and not self._draining else _NOT_SERVING
