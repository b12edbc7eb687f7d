"""TLS towards Vault: whom we trust and what we show, read anew when a file changes."""

from __future__ import annotations

import contextlib
import ssl
import threading

from vaultauthz.config.values import Tls
from vaultauthz.core.verification import as_others_do
from vaultauthz.stamps import Stamp, stamp_if_any
from vaultauthz.vault import errors

# Where systems keep their authorities, for a Python that was built to look elsewhere.
_SYSTEM = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)

_Seen = tuple[Stamp | None, ...]


class Trust:
    """One context for all threads of a session; loading one takes some 20 ms."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._seen: _Seen = ()
        self._lock = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """The context of now; another one than before when a file was replaced.

        Raises:
            VaultError: a file cannot be loaded. Not when one was: a pair is replaced
                one file after the other, and what was loaded holds until both are.
        """
        with self._lock:
            seen = self._look()
            if self._context is None or seen != self._seen:
                try:
                    self._context, self._seen = self._load(), seen
                except OSError as exc:  # ssl.SSLError is one
                    if self._context is None:
                        raise errors.of_file(exc) from exc
            return self._context

    def _look(self) -> _Seen:
        tls = self._tls
        return tuple(
            map(stamp_if_any, filter(None, (tls.ca_cert, tls.client_cert, tls.client_key)))
        )

    def _load(self) -> ssl.SSLContext:
        tls = self._tls
        context = ssl.create_default_context(cafile=tls.ca_cert)
        as_others_do(context, strict=tls.x509_strict)
        if tls.ca_cert is None and not _has_system_store():
            for path in _SYSTEM:
                with contextlib.suppress(OSError):
                    context.load_verify_locations(path)
                    break
        if tls.client_cert:
            # With a password, or OpenSSL would ask for that of an encrypted key at the terminal.
            context.load_cert_chain(tls.client_cert, tls.client_key, password="")
        return context


def _has_system_store() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or paths.capath)
