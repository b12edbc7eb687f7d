"""Streams on grpcio's synchronous server, on threads of their own.

Two threads each: one reads what the client sends, one answers. Checks never wait for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from vaultauthz.envoy.refused_calls import Clients
from vaultauthz.envoy.rpc import (
    INTERNAL,
    MOST_STREAMS,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    Inbox,
    RpcError,
    StreamMethod,
)
from vaultauthz.terminal import Telling

_REFUSING: Final = 2  # threads besides, to refuse those that are too many
_STOPS: Final = "the server stops"
STATUS: Final = {code.value[0]: code for code in grpc.StatusCode}

log = logging.getLogger(__name__)


class Streams:
    """Runs ``methods`` (by path), at most ``most`` calls of them at a time."""

    def __init__(
        self,
        methods: Mapping[str, StreamMethod],
        most: int = MOST_STREAMS,
        clients: Clients | None = None,
    ) -> None:
        self._methods = methods
        self._most = most
        self._clients = clients
        self._lock = threading.Lock()
        self._inboxes: set[Inbox] = set()
        self._ending = False
        self._telling = Telling()
        self._pool = ThreadPoolExecutor(2 * most + _REFUSING, thread_name_prefix="grpc-stream")
        self.refused = 0  # calls, since the start

    @property
    def most(self) -> int:
        """How many may be open."""
        return self._most

    @property
    def open(self) -> int:
        """How many calls are open."""
        return len(self._inboxes)

    def handlers(self) -> list[grpc.GenericRpcHandler[bytes, bytes]]:
        """What a grpcio server must be given to serve them."""
        made: list[grpc.GenericRpcHandler[bytes, bytes]] = []
        for path, stream in self._methods.items():
            service, name = path[1:].split("/")
            behavior = _Behavior(self, service, stream, self._pool)
            handler = grpc.stream_stream_rpc_method_handler(behavior)
            made.append(grpc.method_handlers_generic_handler(service, {name: handler}))
        return made

    def end(self) -> None:
        """Take no new ones and have those that are open come to their end."""
        with self._lock:
            self._ending = True
            open_ones = tuple(self._inboxes)
        for inbox in open_ones:
            inbox.end()

    def close(self) -> None:
        """Give the threads back as they become free; call it after the server has stopped."""
        self._pool.shutdown(wait=False)

    def run(
        self,
        service: str,
        stream: StreamMethod,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
    ) -> Iterator[bytes]:
        """One call, from its first message to its end."""
        inbox = Inbox()
        try:
            if self._clients:
                self._clients.admit(context.auth_context(), service)  # type: ignore[arg-type] # lists; the stubs are wrong
            self._enter(inbox)
            self._pool.submit(_read, messages, inbox)
            yield from stream.answers(inbox)
            if self._ending:
                _fail(context, UNAVAILABLE, _STOPS)
        except RpcError as exc:
            _fail(context, exc.code, exc.message)
        except Exception as exc:  # noqa: BLE001 - grpcio would log and send its text
            log.error("a stream failed with %s", type(exc).__name__)  # noqa: TRY400 - its text may quote a value
            _fail(context, INTERNAL, "internal")
        finally:
            inbox.end()
            with self._lock:
                self._inboxes.discard(inbox)

    def _enter(self, inbox: Inbox) -> None:
        with self._lock:
            if self._ending:
                raise RpcError(UNAVAILABLE, _STOPS)
            if len(self._inboxes) < self._most:
                self._inboxes.add(inbox)
                return
            self.refused += 1
            tell = self._telling.due()
        if tell:
            log.warning(
                "%d streams are open, which is the limit, and another was refused; an Envoy opens "
                "one for each secret unless its secrets come by ads",
                self._most,
            )
        raise RpcError(RESOURCE_EXHAUSTED, "too many streams")


class _Behavior:
    """What grpcio calls for each call of a method; it finds the pool in the attribute."""

    def __init__(
        self, streams: Streams, service: str, stream: StreamMethod, pool: ThreadPoolExecutor
    ) -> None:
        self._streams = streams
        self._service = service
        self._stream = stream
        self.experimental_thread_pool = pool

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        return self._streams.run(self._service, self._stream, messages, context)


def _read(messages: Iterator[bytes], inbox: Inbox) -> None:
    try:
        for message in messages:
            if not inbox.put(message):
                return
    except Exception:  # noqa: BLE001, S110 - grpcio's way to say that the client is gone
        pass
    finally:
        inbox.end()


def _fail(context: grpc.ServicerContext, code: int, message: str) -> None:
    context.set_code(STATUS[code])
    context.set_details(message)
