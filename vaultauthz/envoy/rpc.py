"""What a transport carries: methods from bytes to bytes, unary ones and streams.

Bytes, not messages, so that what does not parse is answered by the method (a denial) and
not by the gRPC library (a failed call, on which Envoy applies its failure mode).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, Self

from vaultauthz.leases.later import Later

# gRPC's status codes, https://grpc.io/docs/guides/status-codes/
INVALID_ARGUMENT: Final = 3
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

# Bytes of one request. gRPC's own default, and far above what Envoy sends, unless it sends
# bodies along (`with_request_body`), which only signatures need.
MESSAGE_LIMIT: Final = 4 * 1024 * 1024
# Calls that may wait for their turn; the next is refused at once. At some 30 µs each, the
# last of them waits about 120 ms, which is inside Envoy's 200 ms for a check: a longer
# queue would only hold calls that nobody waits for any more.
BACKLOG: Final = 4096
# HTTP/2 streams of one connection, the default of the native transport. Each of Envoy's
# workers has a connection of its own.
STREAMS: Final = 1024
# Open calls of streaming methods: each holds two threads and some 100 kB. The next is refused.
MOST_STREAMS: Final = 1024
# Bytes that may wait to be read. Then the client's own flow control holds it up.
ROOM: Final = 256 * 1024
# A gateway that vanished without closing is noticed after a minute and ten seconds.
KEEPALIVE_TIME_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 10_000


def uri(target: str) -> str:
    """``target`` as grpcio takes it: a URI, in which %41 is an A."""
    return target.replace("%", "%25")


class RpcError(Exception):
    """The call fails with gRPC status ``code``; ``message`` goes to the client."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """A unary method.

    ``answer`` must not block: a transport may run all calls on one thread. It takes the
    message and the seconds that the client waits (None: not known), and may promise its
    answer. ``refuse`` answers a call that there is no room for, and must be cheaper
    still. Either may raise RpcError. One that is ``for_all`` answers clients of any name.
    """

    answer: Callable[[bytes, float | None], bytes | Later[bytes]]
    refuse: Callable[[bytes, float | None], bytes]
    for_all: bool = False


class StreamEndedError(Exception):
    """Nothing comes any more: the client, or we, have ended the stream."""


class Inbox(Iterator[bytes]):
    """A stream's messages in order; safe for threads.

    One reads, by iterating or, to be woken for other reasons too, by ``take``. What
    came before the end is still read after it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._rung = False
        self._ended = False

    def put(self, message: bytes) -> bool:
        """Add a message, when there is room for it; False when the stream has ended."""
        with self._changed:
            while self._bytes > ROOM and not self._ended:
                self._changed.wait()
            if self._ended:
                return False
            self._messages.append(message)
            self._bytes += len(message)
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """Nothing comes after this."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def ring(self) -> None:
        """Wake ``take`` without a message, now or when it is next called."""
        with self._changed:
            self._rung = True
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> bytes | None:
        """The next message; None when it was rung for, or after ``timeout`` seconds.

        Raises:
            EndedError: there is none, and none will come.
        """
        with self._changed:
            if not (self._messages or self._rung or self._ended):
                self._changed.wait(timeout)
            self._rung = False
            if self._messages:
                message = self._messages.popleft()
                self._bytes -= len(message)
                self._changed.notify_all()
                return message
            if self._ended:
                raise StreamEndedError
            return None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            while (message := self.take()) is None:
                pass
        except StreamEndedError:
            raise StopIteration from None
        return message


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A streaming method: ``answers`` gives what is sent to the client, bit by bit.

    It runs on a thread of its own, may block on its inbox, and must return when that has
    ended. Its next answer is asked for when the one before is on its way, so a client that
    does not read holds it up. It may raise RpcError. On the wire a unary method, or one
    that streams in one direction, is the same: see ``collected``.
    """

    answers: Callable[[Inbox], Iterator[bytes]]


def collected(take: Callable[[Iterator[bytes]], bytes]) -> StreamMethod:
    """A stream that is answered once, when ``take`` has read it to its end."""

    def answers(inbox: Inbox) -> Iterator[bytes]:
        yield take(inbox)

    return StreamMethod(answers)


class GrpcTransport(Protocol):
    """A gRPC server for some methods on one address. ``start`` before ``stop``, once each."""

    @property
    def port(self) -> int:
        """The TCP port, once started; for a unix socket its value means nothing."""

    def start(self) -> None:
        """Bind and serve. Raises OSError or RuntimeError when the address is not to be had."""

    def stop(self, grace: float) -> None:
        """Take no new calls, finish those in flight within ``grace`` seconds, close."""
