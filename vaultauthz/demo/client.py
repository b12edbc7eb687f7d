"""Clients of the gateway: one that sends exactly what it is told (a header twice, in any letter case), and traffic."""

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vaultauthz.demo.parts import Certificate

TIMEOUT_SECONDS = 10
OK = 200
WORKERS = 3
PAUSE_SECONDS = 0.03
# It stops by itself, whatever happens to the one who started it.
MOST_REQUESTS = 6000
MOST_SECONDS = 60


@dataclass(frozen=True)
class GatewayReply:
    """Status and JSON document of an answer (an empty document if the body is not a JSON object)."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> str:
        """The reason that vaultauthz gives when it refuses, or an empty word."""
        return str(self.body.get("error", ""))


class GatewayClient:
    """Talks HTTPS to one host name behind the gateway, on a connection that it keeps. Not to be shared by threads."""

    def __init__(
        self, host: str, port: int, ca: Path, certificate: Certificate | None = None
    ) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        if certificate:
            context.load_cert_chain(certificate.cert, certificate.key)
        self._connection = _Loopback(host, port, context)

    def get(self, path: str = "/", headers: list[tuple[str, str]] | None = None) -> GatewayReply:
        """Send a GET with these headers, as many times and in the letter case given. Raises OSError, HTTPException."""
        try:
            self._connection.putrequest("GET", path)
            for name, value in headers or []:
                self._connection.putheader(name, value)
            self._connection.endheaders()
            return _reply(self._connection.getresponse())
        except (OSError, http.client.HTTPException):
            # A connection in the middle of an answer is of no more use; the next request opens another.
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def get_unix(path: Path, url: str) -> GatewayReply:
    """GET over a unix socket. Raises OSError, HTTPException."""
    connection = _Unix(path)
    try:
        connection.request("GET", url)
        return _reply(connection.getresponse())
    finally:
        connection.close()


class _Loopback(http.client.HTTPSConnection):
    """Looks for the name in the certificate, and for the server on this machine: the demo's names are in no DNS."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS, context=context)
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


def _reply(response: http.client.HTTPResponse) -> GatewayReply:
    text = response.read()
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    return GatewayReply(response.status, document if isinstance(document, dict) else {})


class Traffic:
    """GET / from three threads, about a hundred requests a second, until it is left, or after 6000 requests or 60 s.

    `users` holds the database users that answered, in the order of their first answer; `failures` says what went wrong.
    """

    def __init__(self, client: Callable[[], GatewayClient]) -> None:
        self.users: list[str] = []
        self.failures: list[str] = []
        self.answered = 0
        self._client = client
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._end = time.monotonic() + MOST_SECONDS
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(WORKERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        client = self._client()
        while (
            not self._stopped.wait(PAUSE_SECONDS)
            and time.monotonic() < self._end
            and self.answered < MOST_REQUESTS
        ):
            try:
                reply = client.get()
            except (OSError, http.client.HTTPException) as error:
                self._note("", f"{type(error).__name__}: {error}")
            else:
                failure = "" if reply.status == OK else f"{reply.status} {reply.error}".rstrip()
                self._note(str(reply.body.get("current_user", "")), failure)
        client.close()

    def _note(self, user: str, failure: str) -> None:
        with self._lock:
            self.answered += 1
            if failure:
                self.failures.append(failure)
            elif user not in self.users:
                self.users.append(user)
