"""The sockets of the fake Vault: it hears requests over TCP, TLS or a unix socket, and keeps them.

What it answers is the business of ``fake_vault.py``; what goes wrong, of ``faults.py``.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Heard:
    """One request as it came in. Header names are in lower case."""

    method: str
    path: str  # without /v1/ in front, percent-decoded
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    at: float  # time.monotonic()
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """The login token that came along, or ""."""
        return self.headers.get("x-vault-token", "")

    @property
    def key(self) -> str:
        """What only one call at a time may be about: a lease, or a path."""
        lease_id = self.body.get("lease_id")
        return str(lease_id) if lease_id else self.path


@dataclass(frozen=True)
class Reply:
    """A whole HTTP answer; None as the body is none at all (204)."""

    status: int
    body: bytes | Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, bytes]:
        """The head and the body, as they go over the wire."""
        if isinstance(self.body, Mapping):
            body, kind = json.dumps(self.body).encode(), "application/json"
        else:
            body, kind = self.body or b"", "text/html"
        lines = {"Content-Type": kind, "Content-Length": str(len(body)), **self.headers}
        reason = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "?"
        head = f"HTTP/1.1 {self.status} {reason}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return head.encode() + b"\r\n", body


class Wire:
    """The connection that a request came on, for answers that are not whole."""

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self._connection = connection
        self.closing = closing
        self.ended = False

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self._connection.sendall(data)

    def end(self) -> None:
        """Close it in order, whether or not the answer is complete."""
        self.ended = True

    def reset(self) -> None:
        """Close it with a TCP reset (RST)."""
        self.ended = True
        with contextlib.suppress(OSError):
            self._connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )


Respond = Callable[[Heard, Wire], None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _any(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        headers = {name.lower(): value for name, value in self.headers.items()}
        url = urlsplit(self.path)
        path, query = unquote(url.path).removeprefix("/v1/"), dict(parse_qsl(url.query))
        heard = Heard(self.command, path, headers, body, time.monotonic(), query)
        wire = Wire(self.connection, self.server.closing)
        self.server.respond(heard, wire)
        self.close_connection = self.close_connection or wire.ended

    do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Nothing: tests read what they want from ``heard``."""


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: Any, respond: Respond, tls: ssl.SSLContext | None) -> None:
        if isinstance(address, str):
            self.address_family = socket.AF_UNIX
        self.respond = respond
        self.closing = threading.Event()
        self._tls = tls
        self._open: set[socket.socket] = set()
        self.connections = 0
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = super().get_request()
        self.connections += 1
        if self.address_family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:  # the handshake is made in the connection's own thread
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._open.add(connection)
        return connection, ("client", 0)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or a failed handshake, is none of the test's errors."""

    def stop(self) -> None:
        """Close the door and every connection."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class FakeServer:
    """Listens on a free port of 127.0.0.1, or on ``unix``; ``tls`` makes it HTTPS.

    ``stop`` and ``start`` again: the same address, as after a restart.
    """

    def __init__(
        self, respond: Respond, *, tls: ssl.SSLContext | None = None, unix: Path | None = None
    ) -> None:
        self._respond = respond
        self._tls = tls
        self._unix = unix
        self._server: _Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """What goes into ``vault.address``."""
        if self._unix:
            return f"unix://{self._unix}"
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many have been made since the start."""
        return self._server.connections if self._server else 0

    def start(self) -> None:
        """Listen."""
        if self._unix:
            self._unix.unlink(missing_ok=True)
        where: Any = str(self._unix) if self._unix else ("127.0.0.1", self._port)
        self._server = _Server(where, self._respond, self._tls)
        if not self._unix:
            self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="fake-vault", daemon=True
        ).start()

    def stop(self) -> None:
        """Close the door and every connection; connecting is refused from now on."""
        if self._server:
            self._server.stop()
            self._server = None
