"""Services to put behind a gateway. They write down what they received, so that one can see what reached them."""

import base64
import binascii
import json
import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self

import psycopg

from vaultauthz.demo.parts.postgres import Postgres

REMEMBERED = 10_000
SHOWN_CHARACTERS = 4
OK, UNAUTHORIZED = 200, 401
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Seen:
    """One request as it reached an upstream: every header in order, also those sent twice."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """The values of this header, in any letter case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def basic(self) -> tuple[str, str] | None:
        """User and password of the one Authorization header; None if there is no such header, or not exactly one."""
        values = self.all("authorization")
        scheme, _, coded = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        if scheme.lower() != "basic":
            return None
        try:
            user, colon, password = base64.b64decode(coded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return (user, password) if colon else None


Answer = tuple[int, dict[str, Any]]
Service = Callable[[Seen], Answer]


def reports(postgres: Postgres) -> Service:
    """Opens a PostgreSQL session with exactly the Basic login it is given: rows and `current_user`, or 401."""

    def answer(seen: Seen) -> Answer:
        login = seen.basic()
        if login is None:
            return UNAUTHORIZED, {"error": "this service wants HTTP Basic"}
        try:
            with postgres.connect(*login) as session:
                rows = session.execute(
                    "SELECT id, title, total, current_user FROM reports ORDER BY id"
                ).fetchall()
        except psycopg.Error:
            return UNAUTHORIZED, {"error": "PostgreSQL refuses this login"}
        return OK, {"rows": [list(row[:3]) for row in rows], "current_user": rows[0][3]}

    return answer


def geocoder(valid_keys: Callable[[], Collection[str]]) -> Service:
    """Wants exactly one X-Api-Key, out of those that `valid_keys` names at this moment, or answers 401."""

    def answer(seen: Seen) -> Answer:
        keys = seen.all("x-api-key")
        if len(keys) != 1 or keys[0] not in valid_keys():
            return UNAUTHORIZED, {"error": "this service wants one valid X-Api-Key"}
        return OK, {"place": "Prague", "lat": 50.0755, "lon": 14.4378}

    return answer


def echo() -> Service:
    """Answers 200 with what it received, as JSON."""

    def answer(seen: Seen) -> Answer:
        return OK, {
            "method": seen.method,
            "path": seen.path,
            "headers": [list(pair) for pair in seen.headers],
        }

    return answer


def shorten(credential: str) -> str:
    """A credential fit for printing: its first four characters, never more than half of it."""
    return credential[: min(SHOWN_CHARACTERS, len(credential) // 2)] + "…"


class Upstream:
    """A service on 127.0.0.1:`port`, one thread per connection. `seen` holds the last 10,000 requests, oldest first."""

    def __init__(self, service: Service) -> None:
        self.seen: deque[Seen] = deque(maxlen=REMEMBERED)
        self._server = _Server(("127.0.0.1", 0), _handler(service, self.seen))
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def last(self) -> Seen:
        """The latest request; an empty one if nothing came."""
        return self.seen[-1] if self.seen else Seen("", "", ())

    def start(self) -> None:
        """Serve; the port is taken since the object was made."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections and free the port."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Envoy keeps idle connections open: do not wait for their threads.
    block_on_close = False
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    service: ClassVar[Service]
    seen: ClassVar[deque[Seen]]

    def answer(self) -> None:
        """Write the request down, ask the service, send what it says."""
        self.rfile.read(int(self.headers.get("content-length") or 0))
        seen = Seen(self.command, self.path, tuple(self.headers.items()))
        self.seen.append(seen)
        status, document = type(self).service(seen)
        body = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        # A chunked body is not read here, so what follows on this connection would be taken for a request.
        if "transfer-encoding" in self.headers:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what was received is in `seen`."""


def _handler(service: Service, seen: deque[Seen]) -> type[_Handler]:
    verbs = {f"do_{method}": _Handler.answer for method in METHODS}
    return type("Handler", (_Handler,), {**verbs, "service": staticmethod(service), "seen": seen})
