"""One connection to one node of Vault, kept alive between calls, each wait of which ends at a deadline.

The standard library's HTTP: with it we know for certain whether a request was sent. A socket's
own timeout bounds one wait; here every wait, also that for each byte of a header that drips in,
gets what is left.
"""

from __future__ import annotations

import contextlib
import http.client
import queue
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

UNIX = "unix://"
LIMIT = 1 << 20  # bytes of one answer
_IDLE = 60.0  # seconds; what stands between may have forgotten an older connection
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, repr=False)
class Ask:
    """A request; its headers and body may hold secrets."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """A whole answer; ``body`` may be one byte longer than LIMIT, and is cut there."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Line:
    """A connection to ``address``, for one thread; opened when it is needed."""

    def __init__(self, address: str, server_name: str = "") -> None:
        """``server_name`` is asked for and checked instead of the address's host."""
        self._unix = address.removeprefix(UNIX) if address.startswith(UNIX) else ""
        url = urlsplit("http://localhost" if self._unix else address)
        self._host, self._netloc = url.hostname or "", url.netloc
        self._port = url.port or _PORTS[url.scheme]
        self.secured = url.scheme == "https"
        self._server_name = server_name or self._host
        self._connection: Any = None  # whose socket is one of ours, a _Bounded
        self._context: ssl.SSLContext | None = None
        self._used_at = 0.0

    def open(self, context: ssl.SSLContext | None, deadline: Deadline) -> None:
        """Connect, unless a connection with this context is there and good.

        Raises:
            OSError: there is none; nothing of a request was sent.
        """
        if self._connection and not self._stale(context, deadline.clock()):
            return
        self.close()
        sock: Any = self._connected(deadline)
        if context:
            sock = secure(sock, context, self._server_name, deadline)
        # Without auto_open it never connects by itself, past the deadline and TLS.
        self._connection = http.client.HTTPConnection(self._host, self._port)
        self._connection.auto_open = 0
        self._connection.sock, self._context = sock, context

    def exchange(self, ask: Ask, deadline: Deadline) -> Reply:
        """Send it and read the answer.

        Raises:
            OSError, http.client.HTTPException, ValueError: Vault may have done it.
        """
        connection = self._connection
        if connection is None:
            raise ConnectionError
        try:
            connection.sock.deadline = deadline
            headers = {"Host": self._netloc, **ask.headers}
            # Who closes while we send has often said why: an alert of TLS, or 413.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                connection.request(ask.method, ask.target, ask.body, headers)
            reply = _read(connection.getresponse())
        except BaseException:
            self.close()
            raise
        if connection.sock is None or len(reply.body) > LIMIT:
            self.close()
        self._used_at = deadline.clock()
        return reply

    def close(self) -> None:
        """Close the connection; the next ``open`` makes another."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def _stale(self, context: ssl.SSLContext | None, now: float) -> bool:
        sock = self._connection.sock if self._connection else None
        if sock is None or context is not self._context or now - self._used_at > _IDLE:
            return True
        # What can be read before we have asked is the end, or an alert.
        waiting = select.poll()
        waiting.register(sock, select.POLLIN)
        return bool(waiting.poll(0))

    def _connected(self, deadline: Deadline) -> Plain:
        if self._unix:
            return connect_unix(self._unix, deadline)
        return connect(self._host, self._port, deadline)


def _read(response: http.client.HTTPResponse) -> Reply:
    with response:
        body = response.read(LIMIT + 1)
        if len(body) <= LIMIT and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return Reply(response.status, response.headers, body)


# --- sockets ---

Found = list[tuple[Any, Any, Any, Any, Any]]  # as socket.getaddrinfo gives it


class Deadline:
    """The end of a call, on ``clock``."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self.clock = clock
        self._at = clock() + seconds

    def passed(self) -> bool:
        """Whether no time is left."""
        return self.clock() >= self._at

    def left(self) -> float:
        """Seconds, always more than 0. Raises TimeoutError when it has passed."""
        left = self._at - self.clock()
        if left <= 0:
            raise TimeoutError
        return left

    def share(self, parts: int) -> Deadline:
        """An earlier one, after a part of what is left."""
        return Deadline(self.clock, self.left() / parts)


class _BoundedSocket:
    """For a socket: each wait lasts as long as the deadline lets it."""

    deadline: Deadline

    def recv_into(self, *args: Any) -> int:
        self.settimeout(self.deadline.left())  # type: ignore[attr-defined]
        return super().recv_into(*args)  # type: ignore[misc,no-any-return]

    def send(self, *args: Any) -> int:
        self.settimeout(self.deadline.left())  # type: ignore[attr-defined]
        return super().send(*args)  # type: ignore[misc,no-any-return]

    def sendall(self, *args: Any) -> None:
        self.settimeout(self.deadline.left())  # type: ignore[attr-defined]
        super().sendall(*args)  # type: ignore[misc]


class Plain(_BoundedSocket, socket.socket):
    pass


class _Secured(_BoundedSocket, ssl.SSLSocket):
    pass


def connect(host: str, port: int, deadline: Deadline) -> Plain:
    """A connection to one of the host's addresses; each gets a share of the time.

    Raises:
        OSError: there is none.
    """
    places = _resolved(host, port, deadline)
    while True:
        family, _, _, _, place = places.pop(0)
        try:
            sock = _to(family, place, deadline.share(1 + len(places)))
        except OSError:
            if not places:
                raise
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock


def connect_unix(path: str, deadline: Deadline) -> Plain:
    """A connection to the unix socket at ``path``. Raises OSError."""
    return _to(socket.AF_UNIX, path, deadline)


def secure(sock: Plain, context: ssl.SSLContext, name: str, deadline: Deadline) -> ssl.SSLSocket:
    """TLS over ``sock``, with a server that is called ``name``.

    Raises:
        OSError: the handshake failed (ssl.SSLError is one); ``sock`` is closed.
    """
    context.sslsocket_class = _Secured
    try:
        sock.settimeout(deadline.left())  # of the whole handshake
        return context.wrap_socket(sock, server_hostname=name)
    except BaseException:
        sock.close()
        raise


def _to(family: int, place: Any, deadline: Deadline) -> Plain:
    sock = Plain(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.left())
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolved(host: str, port: int, deadline: Deadline) -> Found:
    """The host's addresses. The system's resolver has no deadline, so a thread waits for it."""
    with contextlib.suppress(OSError, UnicodeError):
        return _look_up(host, port, socket.AI_NUMERICHOST)
    answers: queue.SimpleQueue[Found | OSError] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            answers.put(_look_up(host, port))
        except OSError as exc:
            answers.put(exc)
        except UnicodeError:  # a label that is too long
            answers.put(socket.gaierror(socket.EAI_NONAME, "no name of a host"))

    threading.Thread(target=resolve, name="vault-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _look_up(host: str, port: int, flags: int = 0) -> Found:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
