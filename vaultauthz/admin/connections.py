"""The admin server's connections: who has one, and what is read from it and written to it.

Who must go when there is no seat left is never the newcomer: a health probe is one, and is answered
in a moment. So a connection that has no whole request yet, or does not take its answer, has its
seat until somebody else needs it: the one that has had it for longest gives it up, of the address
that has taken the most. However many are slow, the next one is let in.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from math import inf
from socketserver import TCPServer
from threading import Lock
from typing import Any, Final

from vaultauthz.admin.access import Peer
from vaultauthz.admin.routes import MARK, AdminCall, AdminRoutes, Answer, error


@dataclass(slots=True)
class _Seat:
    address: str
    since: float
    ends_at: float
    ours: bool = False  # the answer is being made: whoever is slow, it is not the client


class Seats:
    """At most ``most`` connections; times are in seconds on any clock. Safe for threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._taken: dict[socket.socket, _Seat] = {}
        self.slow = 0  # so many were hung up on, since the start

    def take(self, connection: socket.socket, address: str, now: float, whole: float) -> bool:
        """A seat for a connection from ``address`` ("" for a unix socket's).

        False when everybody who sits is being worked for.
        """
        with self._lock:
            if len(self._taken) >= self._most and not self._free_one():
                return False
            self._taken[connection] = _Seat(address, now, now + whole)
            return True

    def _free_one(self) -> bool:
        slow = [(c, seat) for c, seat in self._taken.items() if not seat.ours]
        if not slow:
            return False
        crowd = Counter(seat.address for _, seat in slow)
        first = min(slow, key=lambda each: (-crowd[each[1].address], each[1].since))
        self._hang_up_on_slow(first[0])
        return True

    def wrapped(self, connection: socket.socket, tls: socket.socket) -> None:
        """The same connection under another name.

        Raises:
            ConnectionAbortedError: it has been hung up on meanwhile.
        """
        with self._lock:
            seat = self._taken.pop(connection, None)
            if seat is None:
                raise ConnectionAbortedError
            self._taken[tls] = seat

    def begin(self, connection: socket.socket, now: float, whole: float) -> None:
        """It waits for its next request, which has ``whole`` seconds until it is answered."""
        self._enter(connection, now, ends_at=now + whole)

    def work(self, connection: socket.socket, now: float) -> None:
        """Its request is there."""
        self._enter(connection, now, ours=True)

    def send(self, connection: socket.socket, now: float) -> None:
        """It is to take its answer."""
        self._enter(connection, now)

    def _enter(
        self,
        connection: socket.socket,
        now: float,
        *,
        ours: bool = False,
        ends_at: float | None = None,
    ) -> None:
        with self._lock:
            seat = self._taken.get(connection)
            if seat is not None:  # else it has been hung up on
                seat.ours, seat.since = ours, now
                seat.ends_at = seat.ends_at if ends_at is None else ends_at

    def leave(self, connection: socket.socket) -> None:
        """It has ended."""
        with self._lock:
            self._taken.pop(connection, None)

    def end_late(self, now: float = inf) -> None:
        """Hang up on those whose time is over: by default, on everybody."""
        with self._lock:
            for connection in [c for c, seat in self._taken.items() if seat.ends_at <= now]:
                (self._hang_up_on_slow if now < inf else self._hang_up)(connection)

    def _hang_up_on_slow(self, connection: socket.socket) -> None:
        self.slow += 1
        self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        del self._taken[connection]
        with contextlib.suppress(OSError):
            # Not close(): its thread still holds it, and wakes from this.
            # Not SSLSocket.shutdown() either: it drops the encryption first, and an
            # answer that goes out just then would go in clear.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


_MAX_LINE: Final = 8192
_LONGEST_NAME: Final = 200  # characters of a client certificate's
_MAX_BODY: Final = (
    4096  # a reason fits, with room for its escapes; where none is read, it is skipped
)


class Patient(TCPServer):
    """A server that keeps the time of its connections."""

    routes: AdminRoutes

    def begin(self, connection: socket.socket) -> None:
        """A connection waits for its next request: its time runs from now."""
        raise NotImplementedError

    def work(self, connection: socket.socket) -> None:
        """A connection's request is there, and will be answered."""
        raise NotImplementedError

    def send(self, connection: socket.socket) -> None:
        """A connection is sent its answer."""
        raise NotImplementedError

    def refuse(self, word: str) -> None:
        """A request was refused, for this reason."""
        raise NotImplementedError


class Handler(BaseHTTPRequestHandler):
    """Reads requests off one connection, in turn, and answers them: no decision beyond syntax."""

    server: Patient
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one piece

    def handle_one_request(self) -> None:
        """Read one request and answer it, whatever it is."""
        self.server.begin(self.connection)
        self.command = ""
        line = self.rfile.readline(_MAX_LINE + 1)
        if not line:
            self.close_connection = True
            return
        self.raw_requestline = line
        if len(line) > _MAX_LINE:
            self.send_error(414)
        elif self.parse_request():
            self._send(self._answer())
        self.wfile.flush()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the parser refuses, without echoing any of it, and hang up."""
        del message, explain
        self.close_connection = True
        self._send(error(code, HTTPStatus(code).name.lower()))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: what was asked is in the audit log where it matters."""

    def _answer(self) -> Answer:
        refusal, body = self._malformed(), b""
        if refusal is None:
            refusal, body = self._read_body()
        if refusal:
            self.close_connection = True
            return refusal
        self.server.work(self.connection)
        path, _, query = self.path.partition("?")
        return self.server.routes.answer(
            AdminCall(
                method=self.command,
                path=path,
                query=query,
                host=self.headers.get("Host", ""),
                authorization=self.headers.get("Authorization", ""),
                mark=self.headers.get(MARK, ""),
                body=body,
                peer=_peer(self.connection, self.client_address),
                site=self.headers.get("Sec-Fetch-Site", ""),
                known=self.headers.get("If-None-Match", ""),
            )
        )

    def _malformed(self) -> Answer | None:
        hosts = self.headers.get_all("Host", ())
        if (
            self.request_version not in ("HTTP/1.0", "HTTP/1.1")
            or self.headers.defects
            or not self.path.startswith("/")
            or len(hosts) > 1
            or (not hosts and self.request_version == "HTTP/1.1")
        ):
            return error(400, "bad_request")
        return None

    def _read_body(self) -> tuple[Answer | None, bytes]:
        """The refusal of it, or what it is."""
        lengths = self.headers.get_all("Content-Length", ())
        if "Transfer-Encoding" in self.headers:
            return error(411, "length_required"), b""
        if not lengths:
            return None, b""
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            return error(400, "bad_request"), b""
        if len(lengths[0]) > len(str(_MAX_BODY)) or int(lengths[0]) > _MAX_BODY:
            return error(413, "too_large"), b""
        return None, self.rfile.read(int(lengths[0]))

    def _send(self, answer: Answer) -> None:
        head = [
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
            f"Date: {self.date_time_string()}",
            *_of_body(answer),
            f"Content-Security-Policy: {answer.policy}",
            "Cache-Control: no-store",
            "Cross-Origin-Resource-Policy: same-origin",
            "Referrer-Policy: no-referrer",
            "X-Content-Type-Options: nosniff",
            "X-Frame-Options: DENY",
            f"Connection: {'close' if self.close_connection else 'keep-alive'}",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        if answer.refused:
            self.server.refuse(answer.refused)
        self.server.send(self.connection)
        self.wfile.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n")
        if self.command != "HEAD":
            self.wfile.write(answer.body)


_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid


def _peer(connection: socket.socket, address: Any) -> Peer:
    """By the kernel's word, the handshake's, or the connection's."""
    if connection.family == socket.AF_UNIX:
        if not hasattr(socket, "SO_PEERCRED"):  # which only Linux has
            return Peer(address="a unix socket")
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return Peer(uid=_CREDENTIALS.unpack(found)[1])
    shown = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    return Peer(address=str(address[0]), certificate=_name(shown or {}))


def _name(certificate: Mapping[str, Any]) -> str:
    """The first URI of it, else the first DNS name, else its common name; "" where it has none."""
    names = certificate.get("subjectAltName", ())
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    for kind, found in (("URI", names), ("DNS", names), ("commonName", subject)):
        for what, name in found:
            if what == kind:
                return str(name)[:_LONGEST_NAME]
    return ""


def _of_body(answer: Answer) -> tuple[str, ...]:
    """What is said of a body; what has not changed has none (RFC 9110, 15.4.5)."""
    if answer.status == HTTPStatus.NOT_MODIFIED:
        return ()
    return (f"Content-Type: {answer.content_type}", f"Content-Length: {len(answer.body)}")
