"""One connection to one node of Vault, kept alive between calls.

The standard library's HTTP: with it we know for certain whether a request was sent.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vaultauthz.vault import sockets
from vaultauthz.vault.sockets import Deadline

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
        sock: Any = self._connect(deadline)
        if context:
            sock = sockets.secure(sock, context, self._server_name, deadline)
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

    def _connect(self, deadline: Deadline) -> sockets.Plain:
        if self._unix:
            return sockets.connect_unix(self._unix, deadline)
        return sockets.connect(self._host, self._port, deadline)


def _read(response: http.client.HTTPResponse) -> Reply:
    with response:
        body = response.read(LIMIT + 1)
        if len(body) <= LIMIT and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return Reply(response.status, response.headers, body)
