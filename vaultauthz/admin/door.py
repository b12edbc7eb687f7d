"""How the command line gets in to the admin server: its address, TLS and token."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.core.file_text import BOM, NoTextError, check_form
from vaultauthz.core.secret import Secret
from vaultauthz.core.verification import as_others_do
from vaultauthz.listening import Address

_HTTPS: Final = "https://"
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  where such a server answers


class ClientError(Exception):
    """The server cannot be asked; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Door:
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
        door = cls(place, token=_token(listen.admin_token_file))
        return replace(door, **_pinned(listen.admin_tls)) if listen.admin_tls else door

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
