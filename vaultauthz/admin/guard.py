"""Who may ask: the bearer token, and what keeps a browser's other pages out.

A page from elsewhere, open in an operator's browser, can send requests to the
loopback address. It cannot set X-Vaultauthz on them without a preflight, which
is never granted; and when its own name resolves to 127.0.0.1 (DNS rebinding),
the Host header still carries that name.
"""

from __future__ import annotations

import hmac
import logging
from pathlib import Path
from typing import Final

from vaultauthz.core.file_text import BOM
from vaultauthz.core.routing import bare_host
from vaultauthz.listening import Address, ListenError
from vaultauthz.stamps import Stamp, stamp

MARK: Final = "X-Vaultauthz"

_log = logging.getLogger(__name__)


class BearerTokenFile:
    """A bearer token in a file, read again when the file changes.

    Raises:
        ListenError: at the start the file cannot be read or is empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._stamp, self._token = self._read()
        except OSError as exc:
            raise ListenError(f"listen.admin_token_file: {path}: {exc.strerror}") from exc
        if not self._token:
            raise ListenError(f"listen.admin_token_file: {path} is empty")

    def matches(self, authorization: str) -> bool:
        """Whether this ``Authorization`` header carries the token."""
        scheme, _, given = authorization.strip().partition(" ")
        self._follow()
        token = self._token
        # An empty file lets nobody in: the empty token would match itself.
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token)
        return scheme.lower() == "bearer" and bool(token) and same

    def _follow(self) -> None:
        try:
            if stamp(self._path) != self._stamp:
                self._stamp, self._token = self._read()
        except OSError as exc:
            # A file that is gone was perhaps removed to lock everybody out.
            self._stamp, self._token = Stamp(0, 0, 0, 0), b""
            _log.warning("%s: %s; the admin server lets nobody in", self._path, exc.strerror)

    def _read(self) -> tuple[Stamp, bytes]:
        return stamp(self._path), self._path.read_bytes().removeprefix(BOM).strip()


class Guard:
    """The rules for one address."""

    def __init__(self, address: Address, token_file: Path | None) -> None:
        if address.path is None and not address.loopback and token_file is None:
            raise ListenError(f"listen.admin: {address} is not loopback and needs admin_token_file")
        self._token = BearerTokenFile(token_file) if token_file else None
        self._hosts = None
        if address.loopback:
            # Whatever the port: a forwarded one (ssh -L, kubectl) has another number.
            self._hosts = {"localhost", "127.0.0.1", "[::1]", bare_host(str(address))}

    def knows_host(self, host: str) -> bool:
        """Whether a request with this ``Host`` was meant for us."""
        return self._hosts is None or bare_host(host) in self._hosts

    def admits(self, authorization: str) -> bool:
        """Whether the request may see and do what needs the token."""
        return self._token is None or self._token.matches(authorization)
