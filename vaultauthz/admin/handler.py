"""One connection: HTTP/1.1 ↔ ``AdminCall`` and ``Answer``, no decision beyond syntax."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socket import socket
from socketserver import TCPServer
from typing import Any, Final

from vaultauthz.admin.guard import MARK
from vaultauthz.admin.routes import AdminCall, AdminRoutes, Answer, error

_MAX_LINE: Final = 8192
_MAX_BODY: Final = 4096  # nothing here reads a body; a small one is skipped


class Patient(TCPServer):
    """A server that keeps the time of its connections."""

    routes: AdminRoutes

    def begin(self, connection: socket) -> None:
        """A connection waits for its next request: its time runs from now."""
        raise NotImplementedError

    def work(self, connection: socket) -> None:
        """A connection's request is there, and will be answered."""
        raise NotImplementedError

    def send(self, connection: socket) -> None:
        """A connection is sent its answer."""
        raise NotImplementedError


class Handler(BaseHTTPRequestHandler):
    """Reads requests off one connection, in turn, and answers them."""

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
        refusal = self._malformed() or self._skip_body()
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

    def _skip_body(self) -> Answer | None:
        lengths = self.headers.get_all("Content-Length", ())
        if "Transfer-Encoding" in self.headers:
            return error(411, "length_required")
        if not lengths:
            return None
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            return error(400, "bad_request")
        if len(lengths[0]) > len(str(_MAX_BODY)) or int(lengths[0]) > _MAX_BODY:
            return error(413, "too_large")
        self.rfile.read(int(lengths[0]))
        return None

    def _send(self, answer: Answer) -> None:
        head = [
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
            f"Date: {self.date_time_string()}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            f"Content-Security-Policy: {answer.policy}",
            "Cache-Control: no-store",
            "Cross-Origin-Resource-Policy: same-origin",
            "Referrer-Policy: no-referrer",
            "X-Content-Type-Options: nosniff",
            "X-Frame-Options: DENY",
            f"Connection: {'close' if self.close_connection else 'keep-alive'}",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        self.server.send(self.connection)
        self.wfile.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n")
        if self.command != "HEAD":
            self.wfile.write(answer.body)
