"""A client of the gateway that sends exactly what it is told: a header twice, in any letter case."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultauthz.demo.parts import Certificate

TIMEOUT_SECONDS = 10
OK = 200


@dataclass(frozen=True)
class Reply:
    """Status and JSON document of an answer (an empty document if the body is not a JSON object)."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> str:
        """The reason that vaultauthz gives when it refuses, or an empty word."""
        return str(self.body.get("error", ""))


class Client:
    """Talks HTTPS to one host name behind the gateway, on a connection that it keeps. Not to be shared by threads."""

    def __init__(
        self, host: str, port: int, ca: Path, certificate: Certificate | None = None
    ) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        if certificate:
            context.load_cert_chain(certificate.cert, certificate.key)
        self._connection = _Loopback(host, port, context)

    def get(self, path: str = "/", headers: list[tuple[str, str]] | None = None) -> Reply:
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


def get_unix(path: Path, url: str) -> Reply:
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


def _reply(response: http.client.HTTPResponse) -> Reply:
    text = response.read()
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    return Reply(response.status, document if isinstance(document, dict) else {})
