"""An HTTP proxy before a real OpenBao that misbehaves as it is told, and counts what is asked.

``misbehave`` takes a fault and the kinds of calls that it is for; ``behave`` ends it. A fault is
a function from the exchange to the reply that the client gets; None resets the connection.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import ClassVar, Self

# More than vaultauthz ever has open: five workers for a stage, and those it gave up on.
MOST_CONNECTIONS = 64
OPENBAO_SECONDS = 30
# From one side to the other; the rest is each side's own.
PASSED_ON = ("x-vault-token", "x-vault-namespace", "x-correlation-id", "content-type")


class Kind(Enum):
    """What a call asks of Vault."""

    LOGIN = "login"
    TOKEN = "renew the token"
    ISSUE = "issue"
    RENEW = "renew"
    REVOKE = "revoke"
    READ = "read"
    OTHER = "other"


_KINDS = (
    ("auth/approle/login", Kind.LOGIN),
    ("auth/token/revoke-self", Kind.REVOKE),
    ("auth/token/renew-self", Kind.TOKEN),
    ("database/creds/", Kind.ISSUE),
    ("sys/leases/renew", Kind.RENEW),
    ("sys/leases/revoke", Kind.REVOKE),
    ("secret/data/", Kind.READ),
)


def kind_of(path: str) -> Kind:
    """The kind of the call to this path (`/v1/…`)."""
    name = path.removeprefix("/v1/")
    return next((kind for start, kind in _KINDS if name.startswith(start)), Kind.OTHER)


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


@dataclass(frozen=True)
class Call:
    """One call: when it came (monotonic), what OpenBao answered to it (0: nothing) and whether that got through."""

    at: float
    kind: Kind
    status: int
    good: bool


class Exchange:
    """One call on its way: what a fault may do with it."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.at = time.monotonic()
        self.kind = kind_of(path)
        self.path, self.headers, self.body = path, headers, body
        self.reply: Reply | None = None  # OpenBao's own
        self.sent = False  # whether OpenBao was asked
        self.replied_at = 0.0  # when its own reply was there
        self._request = (method, path, body, headers)

    def forward(self, port: int) -> Reply | None:
        """Ask OpenBao; None if it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=OPENBAO_SECONDS)
        self.sent = True
        try:
            connection.request(*self._request)
            response = connection.getresponse()
            kind = response.headers.get("Content-Type", "application/json")
            self.reply = Reply(response.status, response.read(), (("Content-Type", kind),))
            self.replied_at = time.monotonic()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return self.reply


Forward = Callable[[], Reply | None]
Fault = Callable[[Forward, threading.Event], Reply | None]


def late(seconds: float) -> Fault:
    """OpenBao is asked at once, and its answer takes this long."""

    def fault(forward: Forward, closing: threading.Event) -> Reply | None:
        reply = forward()
        closing.wait(seconds)
        return reply

    return fault


def reset_every(number: int) -> Fault:
    """Every ``number``-th call is read, not passed on, and its connection reset."""
    count = itertools.count(1)

    def fault(forward: Forward, closing: threading.Event) -> Reply | None:
        return None if next(count) % number == 0 else forward()

    return fault


def answers(reply: Reply, *, every: int = 1) -> Fault:
    """Every ``every``-th call gets this reply, and OpenBao is not asked."""
    count = itertools.count(1)

    def fault(forward: Forward, closing: threading.Event) -> Reply | None:
        return reply if next(count) % every == 0 else forward()

    return fault


def truncated(forward: Forward, closing: threading.Event) -> Reply | None:
    """OpenBao does what it is asked, and half of its answer gets through."""
    reply = forward()
    return reply and Reply(reply.status, reply.body[: len(reply.body) // 2], reply.headers)


def blackhole(forward: Forward, closing: threading.Event) -> Reply | None:
    """The call is taken and never answered."""
    closing.wait(OPENBAO_SECONDS)
    return None


def passed_on(forward: Forward, closing: threading.Event) -> Reply | None:
    """No fault."""
    return forward()


TOO_MANY = Reply(429, b'{"errors":["request path rate limit quota exceeded"]}')
BROKEN = Reply(500, b'{"errors":["internal error"]}')
UNAVAILABLE = Reply(503, b'{"errors":["service unavailable"]}')
FORBIDDEN = Reply(403, b'{"errors":["1 error occurred:\\n\\t* permission denied\\n\\n"]}')
REFUSED = Reply(400, b'{"errors":["lease is not renewable"]}')
HTML = Reply(200, b"<html><body>Please log in</body></html>", (("Content-Type", "text/html"),))


def retry_after(reply: Reply, seconds: int) -> Reply:
    """The same with a Retry-After."""
    return Reply(reply.status, reply.body, (*reply.headers, ("Retry-After", str(seconds))))


class VaultProxy:
    """The proxy on 127.0.0.1:`port`. `heard` is told of each of OpenBao's answers at the moment it is there."""

    def __init__(self, bao_port: int, heard: Callable[[float, Kind, Reply], None]) -> None:
        self._bao_port = bao_port
        self._heard = heard
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._last: dict[Kind, Reply] = {}
        self._fault: Fault = passed_on
        self._kinds = frozenset(Kind)
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.port = int(self._server.server_address[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def misbehave(self, fault: Fault, *kinds: Kind) -> float:
        """Have the fault for these kinds of calls (none named: for all) from now on; the time of that."""
        with self._lock:
            self._fault, self._kinds = fault, frozenset(kinds or Kind)
        return time.monotonic()

    def behave(self) -> float:
        """Pass everything on from now on; the time of that."""
        return self.misbehave(passed_on)

    def calls(
        self, kinds: Collection[Kind], since: float = 0.0, until: float = float("inf")
    ) -> list[Call]:
        """The calls of these kinds that came in this time and are over, in the order they came."""
        with self._lock:
            found = [c for c in self._calls if c.kind in kinds and since <= c.at < until]
        return sorted(found, key=lambda call: call.at)

    def last(self, kind: Kind) -> Reply:
        """What OpenBao last answered to a call of this kind."""
        with self._lock:
            return self._last[kind]

    def handle(self, exchange: Exchange) -> Reply | None:
        """The reply to one call."""
        with self._lock:
            fault = self._fault if exchange.kind in self._kinds else passed_on

        def forward() -> Reply | None:
            reply = exchange.forward(self._bao_port)
            if reply:
                self._heard(exchange.at, exchange.kind, reply)
            return reply

        reply, asked = fault(forward, self._closing), exchange.reply
        good = asked is not None and reply is asked and asked.status < 300
        with self._lock:
            self._calls.append(Call(exchange.at, exchange.kind, asked.status if asked else 0, good))
            if asked:
                self._last[exchange.kind] = asked
        return reply

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        super().__init__(address, handler)
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def process_request_thread(self, request: object, client_address: object) -> None:
        """One connection; beyond the bound it is closed unanswered."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]  # a socket, as TCPServer's
            return
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that gave up waiting has closed its end."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: ClassVar[VaultProxy]

    def answer(self) -> None:
        """Take a call, and answer or reset it as the proxy says."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        reply = self.proxy.handle(Exchange(self.command, self.path, headers, body))
        if reply is None:
            self._reset()
            return
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_LIST = answer  # noqa: N815  http.server's names

    def _reset(self) -> None:
        # With a linger of 0 s the close is a RST; the socket is let go when `rfile` is.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: the calls are in the proxy's list."""
