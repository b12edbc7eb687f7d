"""Envoy's server: ext_authz, health and streams on one address."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from vaultauthz.config.values import Listen
from vaultauthz.core.decision import Decision
from vaultauthz.core.file_text import BOM
from vaultauthz.core.request import Request
from vaultauthz.envoy import ext_authz, health
from vaultauthz.envoy.place import ListenError, Place
from vaultauthz.envoy.rpc import BACKLOG, MOST_STREAMS, Method, Stream, Transport
from vaultauthz.envoy.unread import Unread
from vaultauthz.leases.later import Later

if TYPE_CHECKING:
    from vaultauthz.envoy.transport.streams import Streams

__all__ = ["ListenError", "Server"]


class Server:
    """Answers Envoy with what ``check`` decides, from ``start`` to ``stop``.

    ``check`` must be safe for threads and must not block: what takes time it promises.
    ``ready`` is asked by each health check. ``deadlines``: read how long Envoy waits for
    each check, which costs a little, for those that must wait for Vault. ``streams``,
    by path, are served beside them, ``most_streams`` calls of them at a time.
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
    ) -> None:
        self._place = Place(listen.grpc)
        authz = ext_authz.Check(check)
        self._health = health.Health(ready)
        methods = {
            ext_authz.METHOD: Method(authz.answer, authz.refuse),
            # Never refused: a busy server is not a sick one.
            health.METHOD: Method(self._health.check, self._health.check),
        }
        self._streams = _streams(streams, most_streams)
        self._unread = Unread()
        self._transport = _transport(
            self._place,
            listen,
            methods,
            backlog,
            deadlines=deadlines,
            streams=self._streams,
            unread=self._unread,
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

    def drain(self) -> None:
        """Say NOT_SERVING to health checks and go on answering, so that gateways turn away."""
        self._health.drain()

    def stop(self, grace: float = 1.0) -> None:
        """Take no new checks, finish those in flight within ``grace`` seconds, close."""
        self.drain()
        self._transport.stop(grace)
        self._place.release(self._socket)


def _streams(methods: Mapping[str, Stream], most: int) -> Streams | None:
    if not methods:
        return None
    from vaultauthz.envoy.transport.streams import Streams  # noqa: PLC0415 - loads grpcio

    return Streams(methods, most)


def _transport(
    place: Place,
    listen: Listen,
    methods: dict[str, Method],
    backlog: int,
    *,
    deadlines: bool,
    streams: Streams | None,
    unread: Unread,
) -> Transport:
    tls = listen.grpc_tls
    wheel = importlib.util.find_spec("pygrpc_native") is not None
    if listen.transport == "native" and tls is not None:
        raise place.error("transport native serves plaintext only; use auto, or remove grpc_tls")
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
    from vaultauthz.envoy.transport.grpcio import GrpcioTransport, Identity  # noqa: PLC0415

    identity = None
    if tls is not None:
        client_ca = None if tls.client_ca is None else _pem(place, tls.client_ca)
        identity = Identity(_pem(place, tls.key), _pem(place, tls.cert), client_ca)
    return GrpcioTransport(place.target, methods, identity, backlog, streams, unread=unread)


def _pem(place: Place, path: Path) -> bytes:
    try:
        return path.read_bytes().removeprefix(BOM)  # which gRPC does not read past
    except OSError as exc:
        raise place.error(f"cannot read {path}: {exc.strerror}") from exc
