"""The other end of the admin server: asks a running vaultauthz, for the command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from typing import Any, Final
from urllib.parse import quote, urlencode

from vaultauthz.admin.door import ClientError, Door, why
from vaultauthz.admin.guard import MARK

TIMEOUT: Final = 10.0  # seconds without a byte


class UnknownUpstreamError(Exception):
    """There is no such upstream, or not in this stage."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, door: Door) -> None:
        place = door.place
        host = f"[{place.host}]" if ":" in place.host else place.host
        super().__init__(host or "localhost", place.port or None, timeout=TIMEOUT)
        self._door = door

    def connect(self) -> None:
        place, tls = self._door.place, self._door.tls
        if place.path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(TIMEOUT)
            self.sock.connect(str(place.path))
        else:
            self.sock = socket.create_connection((place.host, place.port), TIMEOUT)
        if tls:
            wrapped = tls.wrap_socket(self.sock, server_hostname=place.host)
            self.sock = wrapped
            if self._door.only and wrapped.getpeercert(binary_form=True) != self._door.only:
                raise ClientError(
                    f"{self._door}: shows another certificate than listen.admin_tls names; "
                    "another server listens there, or the certificate was just renewed: try again"
                )


class Client:
    """Asks the server behind a door, each time on a connection of its own."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def leases(self) -> list[dict[str, Any]]:
        """What the server answers to ``/leases``, one object for each login and lease.

        Raises:
            ClientError: there is no such answer.
        """
        status, found = self._asked("GET", "/leases")
        if status == 200 and isinstance(found, list) and all(isinstance(r, dict) for r in found):
            return found
        raise self._unexpected(status)

    def ask(self, action: str, upstream: str, stage: str | None) -> dict[str, Any]:
        """``rotate`` or ``revoke`` an upstream's credential, in every stage when None is named.

        Raises:
            UnknownUpstreamError: there is none such.
            ClientError: the server did not take it.
        """
        query = f"?{urlencode({'stage': stage})}" if stage is not None else ""
        target = f"/upstreams/{quote(upstream, safe='')}/{action}{query}"
        status, answer = self._asked("POST", target)
        if status == 202 and isinstance(answer, dict):
            return answer
        if status == 404 and answer == {"error": "unknown_upstream"}:
            raise UnknownUpstreamError
        raise self._unexpected(status)

    def _asked(self, method: str, target: str) -> tuple[int, Any]:
        headers = {MARK: "1"}
        if self._door.token:
            headers["Authorization"] = f"Bearer {self._door.token.reveal()}"
        try:
            with contextlib.closing(_Connection(self._door)) as connection:
                connection.request(method, target, headers=headers)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
        except OSError as exc:
            raise ClientError(f"{self._door}: {_hint(self._door, exc)}") from None
        except (http.client.HTTPException, ValueError):
            raise self._unexpected(0) from None

    def _unexpected(self, status: int) -> ClientError:
        hints = {
            401: "wants the admin token; give --token-file FILE",
            421: "does not go by this name; use its address, as listen.admin has it",
            500: "had an error of its own; see its log",
            503: "is busy; try again",
        }
        if status == 401 and self._door.token:
            hints[401] = "does not take this admin token; is it the one in admin_token_file?"
        hint = hints.get(status, "does not answer as vaultauthz does; is it the right address?")
        return ClientError(f"{self._door}: {hint}")


def _hint(door: Door, exc: OSError) -> str:
    """Why, and what to do."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"{why(exc)}; name its authority's file in SSL_CERT_FILE"
    if isinstance(exc, (ConnectionResetError, BrokenPipeError, ssl.SSLError)):
        if door.tls:
            return f"TLS failed ({why(exc)}); if it wants a client certificate, give --cert FILE"
        return "hung up; if it speaks TLS, give --admin https://HOST:PORT"
    for kind, hint in _HINTS.items():
        if isinstance(exc, kind):
            return hint
    return f"{why(exc)}; is it the right address?"


_NOBODY: Final = "nobody listens there; is vaultauthz serve running, with this address?"
_HINTS: Final[dict[type[OSError], str]] = {
    FileNotFoundError: _NOBODY,
    ConnectionRefusedError: _NOBODY,
    PermissionError: "permission denied; ask as the user that runs vaultauthz serve",
    TimeoutError: f"no answer within {TIMEOUT:g} s; is it the right address?",
}
