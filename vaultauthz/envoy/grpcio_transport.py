"""gRPC by grpcio: for TLS, and where pygrpc-native has no wheel."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import grpc

from vaultauthz.envoy.refused_calls import CHECKS, Clients, Unread
from vaultauthz.envoy.rpc import (
    BACKLOG,
    INTERNAL,
    KEEPALIVE_TIME_MS,
    KEEPALIVE_TIMEOUT_MS,
    MESSAGE_LIMIT,
    STREAMS,
    RpcError,
    UnaryMethod,
    uri,
)
from vaultauthz.envoy.streams import STATUS, Streams
from vaultauthz.leases.later import Later
from vaultauthz.server_tls import FollowedTls, Identity

# Answers do not block, so more threads only fight for the GIL: 1, 4 and 8 came out alike
# within the noise, and a few keep one slow check from holding up all.
THREADS: Final = 4
# Threads besides, in which checks wait that Vault must be asked for: grpcio's synchronous
# server has no other way to answer later. One more is refused, so that THREADS stay free.
WAITING: Final = 64
_LAST: Final = 0.1  # of the grace at the end: the time to refuse those that still wait …
_LAST_AT_LEAST: Final = 1.0  # … in seconds, beyond a short grace: a busy machine needs it
_READ_LIMIT: Final = 16 * MESSAGE_LIMIT
_OPTIONS: Final = (
    # So that the next server can take over. Who does not sees that the port is free before.
    ("grpc.so_reuseport", 1),
    # Read, to be refused by us: what grpcio refuses, nobody hears of. Only THREADS at a time
    # are read, so this costs little; what is larger still counts as a call that ended.
    ("grpc.max_receive_message_length", _READ_LIMIT),
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # A gateway may ping an idle connection; by default grpcio closes it for that.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)

# Over TLS a GOAWAY cannot be written beside the library (``leaving``), but it sends one by itself to a connection
# of this age (give or take a tenth), and answers what still comes. So all of them are gone after that time,
# once new ones go to another server; and a client's certificate is looked at again.
OLDEST: Final = 60.0  # seconds
_TLS_OPTIONS: Final = (("grpc.max_connection_age_ms", int(OLDEST * 1000)),)

log = logging.getLogger(__name__)


class GrpcioTransport:
    """Serves ``methods`` (by path) and streams on ``target``: ``unix:/path`` or ``host:port``."""

    def __init__(
        self,
        target: str,
        methods: Mapping[str, UnaryMethod],
        backlog: int = BACKLOG,
        streams: Streams | None = None,
        *,
        tls: FollowedTls | None = None,
        clients: Clients | None = None,
        unread: Unread | None = None,
    ) -> None:
        self._target = uri(target)
        self._unread = unread or Unread()
        self._methods = methods
        self._streams = streams
        self._tls = tls
        self._clients = clients
        self._desk = _Desk(backlog, self._unread.ended)
        self._backlog = backlog
        self._server: grpc.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """See ``rpc.Transport``."""
        return self._port

    def start(self) -> None:
        """See ``rpc.Transport``."""
        # The hard limit behind the soft one: refusing takes its time too.
        limit = 2 * self._backlog
        server = grpc.server(
            self._desk,  # type: ignore[arg-type] # any Executor will do; the stubs ask for one kind
            options=_OPTIONS + (_TLS_OPTIONS if self._tls else ()),
            maximum_concurrent_rpcs=limit,
        )
        for path, method in self._methods.items():
            service, name = path[1:].split("/")
            handlers = {name: grpc.unary_unary_rpc_method_handler(self._handler(method))}
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, handlers),)
            )
        if self._streams:
            server.add_generic_rpc_handlers(self._streams.handlers())
        self._port = self._bind(server)
        server.start()
        self._server = server

    def stop(self, grace: float) -> None:
        """See ``rpc.Transport``."""
        if self._server is not None:
            if self._streams:
                self._streams.end()
            wait, last = grace * (1 - _LAST), max(grace * _LAST, _LAST_AT_LEAST)
            ended = self._server.stop(wait + last)
            if not ended.wait(wait):
                self._desk.give_up()
            # grpcio ends what is late by itself; the extra second is for its own threads.
            ended.wait(last + 1.0)
            if self._streams:
                self._streams.close()
        self._desk.shutdown(wait=False)

    def _bind(self, server: grpc.Server) -> int:
        if self._tls is None:
            return server.add_insecure_port(self._target)
        shown = _Shown(self._tls)
        credentials = grpc.dynamic_ssl_server_credentials(
            shown.first,
            shown.other,  # type: ignore[arg-type] # None is for no change; the stubs do not know
            require_client_authentication=shown.mutual,
        )
        return server.add_secure_port(self._target, credentials)

    def _handler(self, method: UnaryMethod) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        desk, unread = self._desk, self._unread
        clients = None if method.for_all else self._clients

        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            desk.has_read()
            try:
                if clients:
                    clients.admit(context.auth_context(), CHECKS)  # type: ignore[arg-type] # lists; the stubs are wrong
                data = unread.checked(data)
                left = context.time_remaining()
                if desk.refusing:
                    return method.refuse(data, left)
                answer = method.answer(data, left)
                if isinstance(answer, bytes):
                    return answer
                refuse = partial(method.refuse, data, left)
                return desk.wait(answer, refuse) or refuse()
            except RpcError as exc:
                code, message = exc.code, exc.message
            except Exception as exc:  # noqa: BLE001 - grpcio would log and send its text
                log.error("a call failed with %s", type(exc).__name__)  # noqa: TRY400 - its text may quote a value
                code, message = INTERNAL, "internal"
            context.set_code(STATUS[code])
            context.set_details(message)
            return b""

        return handle


class _Shown:
    """What new connections are shown, as grpcio wants it: asked for as each one begins.

    It holds a lock meanwhile, so no file is read here.
    """

    def __init__(self, tls: FollowedTls) -> None:
        self._tls = tls
        self._identity = tls.identity
        self.first = self._made(self._identity)
        self.mutual = self._identity.client_ca is not None

    def other(self) -> grpc.ServerCertificateConfiguration | None:
        """Another one than at the last call; None for the same."""
        identity = self._tls.identity
        if identity is self._identity:
            return None
        self._identity = identity
        return self._made(identity)

    def _made(self, identity: Identity) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(identity.key, identity.cert)], identity.client_ca
        )


class _Desk(Executor):
    """Runs calls on a few threads; the calls that too many wait before, on one that refuses.

    Not in place: grpcio holds a lock while it hands a call over, and the call needs it.
    """

    def __init__(self, backlog: int, ended: Callable[[], None]) -> None:
        self._room = backlog
        self._ended = ended  # told of a call whose message never came
        self._lock = threading.Lock()
        self._here = threading.local()
        self._turns = threading.Semaphore(THREADS)  # the rest of the threads wait for Vault
        self._seats = threading.Semaphore(WAITING)
        self._promised: dict[Later[bytes], Callable[[], bytes]] = {}  # what to say without one
        self._answering = ThreadPoolExecutor(THREADS + WAITING, thread_name_prefix="grpc-answer")
        self._refusing = ThreadPoolExecutor(
            1, thread_name_prefix="grpc-refuse", initializer=self._mark
        )

    def _mark(self) -> None:
        self._here.refusing = True

    @property
    def refusing(self) -> bool:
        """Whether the thread that asks is the one that refuses."""
        return getattr(self._here, "refusing", False)

    def has_read(self) -> None:
        """The message of the call that the asking thread is in has come."""
        self._here.read = True

    def wait(self, answer: Later[bytes], refuse: Callable[[], bytes]) -> bytes | None:
        """The answer when it comes; None, at once, when too many wait already."""
        if not self._seats.acquire(blocking=False):
            return None
        self._promised[answer] = refuse
        self._turns.release()
        try:
            return answer.wait()
        finally:
            self._turns.acquire()
            del self._promised[answer]
            self._seats.release()

    def give_up(self) -> None:
        """Refuse the calls that wait: a denial, since Envoy applies its failure mode to none."""
        for answer, refuse in tuple(self._promised.items()):
            answer.answer(refuse())

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call, or have it refused."""
        with self._lock:
            taken = self._room > 0
            self._room -= taken
        if not taken:
            return self._refusing.submit(fn, *args, **kwargs)
        return self._answering.submit(self._run, fn, *args, **kwargs)

    def _run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._turns:
            with self._lock:
                self._room += 1  # it waits no longer
            self._here.read = False
            result = fn(*args, **kwargs)
            if not self._here.read:
                self._ended()
            return result

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's own
        """End the threads once their queues are empty."""
        self._answering.shutdown(wait=wait, cancel_futures=cancel_futures)
        self._refusing.shutdown(wait=wait, cancel_futures=cancel_futures)
