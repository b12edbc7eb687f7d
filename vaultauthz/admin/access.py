"""Who may ask for what needs the token, and who it is that asks: for the rules, and for the audit log."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz.core.events import AskedBy
from vaultauthz.core.file_text import BOM
from vaultauthz.core.routing import bare_host
from vaultauthz.listening import Address, ListenError
from vaultauthz.watching import Stamp, stamp

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
        if address.path or address.loopback:
            # Whatever the port: a forwarded one (ssh -L, kubectl) has another number. A unix socket is
            # forwarded to one of loopback, too, and so is within a browser's reach. None leaves Host out.
            own = bare_host(str(address)) if address.loopback else ""
            self._hosts = {"localhost", "127.0.0.1", "[::1]", own}

    def knows_host(self, host: str) -> bool:
        """Whether a request with this ``Host`` was meant for us."""
        return self._hosts is None or bare_host(host) in self._hosts

    @property
    def by_token(self) -> bool:
        """Whether that is what the token is for."""
        return self._token is not None

    def admits(self, authorization: str) -> bool:
        """Whether the request may see and do what needs the token."""
        return self._token is None or self._token.matches(authorization)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: ``uid`` of a unix socket's, else the address and the name in its certificate."""

    uid: int | None = None
    address: str = ""
    certificate: str = ""  # that the server's client_ca has signed

    def name(self, *, token: bool) -> str:
        """For the audit log; ``token``: it has presented the admin token."""
        if self.uid is not None:
            return f"uid {self.uid}{_user(self.uid)}"
        known = (
            f"certificate {self.certificate}"
            if self.certificate
            else "token"
            if token
            else "anybody"
        )
        return f"{known} from {self.address}"


NOBODY: Final = Peer()


def _user(uid: int) -> str:
    """In containers there are users without a name."""
    with contextlib.suppress(KeyError):
        return f" ({pwd.getpwuid(uid).pw_name})"
    return ""


def reason_of(body: bytes) -> str:
    """Why an operator asks, by ``{"reason": "…"}``; "" where there is no body.

    Raises:
        ValueError: it is no such object, or no text for a line of a log.
    """
    if not body.strip():
        return ""
    try:
        given = json.loads(body)
    except RecursionError as exc:
        raise ValueError(body) from exc
    if not isinstance(given, dict) or given.keys() - {"reason"}:
        raise ValueError(given)
    reason = given.get("reason", "")
    if not isinstance(reason, str) or len(reason) > AskedBy.longest or not reason.isprintable():
        raise ValueError(reason)
    return reason.strip()
