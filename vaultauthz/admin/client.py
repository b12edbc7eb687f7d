"""The other end of the admin server: asks a running vaultauthz, for the command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from vaultauthz.admin.routes import MARK
from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.core.certificate import as_others_do
from vaultauthz.core.file_text import BOM, NoTextError, check_form
from vaultauthz.core.secret import Secret
from vaultauthz.listening import Address

_HTTPS: Final = "https://"
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  where such a server answers


class ClientError(Exception):
    """The server cannot be asked; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """How to get in. ``tls`` is None for clear text, ``only`` the one certificate to accept."""

    place: Address
    tls: ssl.SSLContext | None = None
    only: bytes = b""  # in DER; b"": whatever ``tls`` verifies
    token: Secret | None = None

    @classmethod
    def at(
        cls, address: str | None, token_file: Path | None = None, cert: Path | None = None
    ) -> Self:
        """The server at ``unix:///path``, ``host:port`` or ``https://host:port``.

        ``cert`` is a PEM file with a client certificate and its key.

        Raises:
            ClientError: the address is none, or a file is not usable.
        """
        if not address:
            raise ClientError("--token-file and --cert go with --admin ADDRESS")
        place, tls = _parsed(address), None
        if token_file and not (address.startswith(_HTTPS) or place.path or place.loopback):
            raise ClientError(f"--admin: the token would go in clear; use {_HTTPS}{place}")
        if address.startswith(_HTTPS):
            tls = as_others_do(ssl.create_default_context())
            if cert:
                _show(tls, cert, cert)
        return cls(place, tls, token=_token(token_file))

    @classmethod
    def of(cls, listen: Listen, file: Path) -> Self:
        """The server that the configuration ``file`` describes.

        Raises:
            ClientError: it has no admin address, or a file is not usable.
        """
        if not listen.admin:
            raise ClientError(
                f"{file}: listen.admin is missing; add it, as in "
                "admin: unix:///run/vaultauthz/admin.sock, and restart vaultauthz"
            )
        place = Address.parse(listen.admin)
        if not place.path and not place.port:
            raise ClientError(
                f"{file}: listen.admin: the system chose the port of {place}; give --admin HOST:PORT"
            )
        place = replace(place, host=_ANYWHERE.get(place.host, place.host))
        access = cls(place, token=_token(listen.admin_token_file))
        return replace(access, **_pinned(listen.admin_tls)) if listen.admin_tls else access

    def __str__(self) -> str:
        return f"{_HTTPS if self.tls else ''}{self.place}"


def _parsed(address: str) -> Address:
    try:
        place = Address.parse(address.removeprefix(_HTTPS).rstrip("/"))
    except ValueError:
        place = Address(host="/")
    if "/" in place.host:
        forms = "unix:///PATH, HOST:PORT or https://HOST:PORT"
        raise ClientError(f"--admin: {address!r} is no address; use {forms}")
    return place


def _token(file: Path | None) -> Secret | None:
    if file is None:
        return None
    try:
        data = file.read_bytes()
        check_form(data)
    except OSError as exc:
        raise ClientError(f"{file}: the admin token cannot be read: {why(exc)}") from None
    except NoTextError as exc:
        raise ClientError(f"{file}: {exc}") from None
    token = data.removeprefix(BOM).decode("latin-1").strip()
    if not token or not token.isprintable():
        raise ClientError(f"{file}: holds no token")
    return Secret(token)


def _pinned(files: ServerTls) -> dict[str, Any]:
    """The certificate is known from its file: no authority and no name need to be asked."""
    try:
        only = ssl.PEM_cert_to_DER_cert(_first_certificate(files.cert.read_text("latin-1")))
    except (OSError, ValueError) as exc:
        raise ClientError(f"{files.cert}: is no certificate: {why(exc)}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the client compares it
    if files.client_ca:
        _show(context, files.cert, files.key)
    return {"tls": context, "only": only}


def _first_certificate(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    before, found, _ = text[max(0, text.find("-----BEGIN CERTIFICATE-----")) :].partition(end)
    return before + found


def _show(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        # Without a password callback OpenSSL would ask for one at the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except OSError as exc:  # ssl.SSLError is one
        raise ClientError(f"{cert}: is no certificate with its key in clear: {why(exc)}") from None


def why(exc: Exception) -> str:
    """A reason without OpenSSL's source lines."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return exc.reason.replace("_", " ").lower()
    return (exc.strerror or str(exc)).lower() if isinstance(exc, OSError) else str(exc)


TIMEOUT: Final = 10.0  # seconds without a byte


class UnknownUpstreamError(Exception):
    """There is no such upstream, or not in this stage."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, access: AdminAccess) -> None:
        place = access.place
        host = f"[{place.host}]" if ":" in place.host else place.host
        super().__init__(host or "localhost", place.port or None, timeout=TIMEOUT)
        self._access = access

    def connect(self) -> None:
        place, tls = self._access.place, self._access.tls
        if place.path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(TIMEOUT)
            self.sock.connect(str(place.path))
        else:
            self.sock = socket.create_connection((place.host, place.port), TIMEOUT)
        if tls:
            wrapped = tls.wrap_socket(self.sock, server_hostname=place.host)
            self.sock = wrapped
            if self._access.only and wrapped.getpeercert(binary_form=True) != self._access.only:
                raise ClientError(
                    f"{self._access}: shows another certificate than listen.admin_tls names; "
                    "another server listens there, or the certificate was just renewed: try again"
                )


class AdminClient:
    """Asks the server behind an access, each time on a connection of its own."""

    def __init__(self, access: AdminAccess) -> None:
        self._access = access

    def leases(self, upstream: str = "") -> list[dict[str, Any]]:
        """What the server answers to ``/leases``, one object for each login and lease.

        ``upstream``: its leases alone.

        Raises:
            ClientError: there is no such answer.
        """
        query = f"?{urlencode({'upstream': upstream})}" if upstream else ""
        status, found = self._asked("GET", f"/leases{query}")
        if status == 200 and isinstance(found, list) and all(isinstance(r, dict) for r in found):
            return found
        raise self._unexpected(status)

    def certificates(self) -> list[dict[str, Any]]:
        """Every certificate that the server uses, with its end.

        Raises:
            ClientError: there is no such answer.
        """
        status, found = self._asked("GET", "/certificates")
        if status == 200 and isinstance(found, list) and all(isinstance(r, dict) for r in found):
            return found
        raise self._unexpected(status)

    def readiness(self) -> dict[str, Any]:
        """What the server answers to ``/readyz``, be it ready or not.

        Raises:
            ClientError: there is no such answer.
        """
        status, found = self._asked("GET", "/readyz")
        if status in (200, 503) and isinstance(found, dict) and "ready" in found:
            return found
        raise self._unexpected(status)

    def ask(
        self, action: str, upstream: str, stage: str | None, reason: str = ""
    ) -> dict[str, Any]:
        """``rotate`` or ``revoke`` an upstream's credential, in every stage when None is named.

        ``reason`` goes into the server's audit log.

        Raises:
            UnknownUpstreamError: there is none such.
            ClientError: the server did not take it.
        """
        query = f"?{urlencode({'stage': stage})}" if stage is not None else ""
        target = f"/upstreams/{quote(upstream, safe='')}/{action}{query}"
        status, answer = self._asked(
            "POST", target, json.dumps({"reason": reason}) if reason else None
        )
        if status == 202 and isinstance(answer, dict):
            return answer
        if status == 404 and answer == {"error": "unknown_upstream"}:
            raise UnknownUpstreamError
        raise self._unexpected(status)

    def _asked(self, method: str, target: str, body: str | None = None) -> tuple[int, Any]:
        headers = {MARK: "1"}
        if self._access.token:
            headers["Authorization"] = f"Bearer {self._access.token.reveal()}"
        try:
            with contextlib.closing(_Connection(self._access)) as connection:
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
        except OSError as exc:
            raise ClientError(f"{self._access}: {_hint(self._access, exc)}") from None
        except (http.client.HTTPException, ValueError):
            raise self._unexpected(0) from None

    def _unexpected(self, status: int) -> ClientError:
        hints = {
            401: "wants the admin token; give --token-file FILE",
            421: "does not go by this name; use its address, as listen.admin has it",
            500: "had an error of its own; see its log",
            503: "is busy; try again",
        }
        if status == 401 and self._access.token:
            hints[401] = "does not take this admin token; is it the one in admin_token_file?"
        hint = hints.get(status, "does not answer as vaultauthz does; is it the right address?")
        return ClientError(f"{self._access}: {hint}")


def _hint(access: AdminAccess, exc: OSError) -> str:
    """Why, and what to do."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"{why(exc)}; name its authority's file in SSL_CERT_FILE"
    if isinstance(exc, (ConnectionResetError, BrokenPipeError, ssl.SSLError)):
        if access.tls:
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
