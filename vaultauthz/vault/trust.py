"""TLS towards Vault: whom we trust, and what we show, followed in their files."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

from vaultauthz.config.values import Tls
from vaultauthz.core.certificate import VAULT, EndingCertificate, as_others_do, date
from vaultauthz.vault import errors
from vaultauthz.vault.certificates import not_after
from vaultauthz.watching import Stamp, stamp_if_any

# Where systems keep their authorities, for a Python that was built to look elsewhere.
_SYSTEM = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)
# A pair is replaced one file after the other; what does not fit for longer is told.
_PATIENCE: Final = 2.0  # seconds

_Seen = tuple[Stamp | None, ...]

log = logging.getLogger(__name__)


class Trust:
    """One context for all threads of a session; loading one takes some 20 ms.

    ``whose`` names the client certificate in the log; ``clock`` is in seconds.
    """

    def __init__(
        self, tls: Tls, whose: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tls = tls
        self._whose = whose
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._seen: _Seen = ()
        self._lock = threading.Lock()
        self._cert = b""  # the client certificate of the context, as PEM
        self._unfit: tuple[_Seen, float] | None = None  # what cannot be loaded, and since when
        self._trouble = ""
        self._taken = self._refused = 0

    @property
    def client(self) -> EndingCertificate | None:
        """The client certificate that new connections show; None where there is none."""
        if self._tls.client_cert is None:
            return None
        with self._lock:
            return EndingCertificate(
                VAULT,
                _first_end(self._cert or _bytes_if_any(self._tls.client_cert)),
                file=str(self._tls.client_cert),
                trouble=self._trouble,
                taken=self._taken,
                refused=self._refused,
            )

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
                    self._keep(seen, exc)
                else:
                    self._take()
            return self._context

    def _take(self) -> None:
        """Tell of another client certificate than before."""
        self._unfit, self._trouble = None, ""
        if self._tls.client_cert is None:
            return
        before, self._cert = self._cert, _bytes_if_any(self._tls.client_cert)
        if before and before != self._cert:
            self._taken += 1
            log.info(
                "%s: replaced; new connections to Vault show %s, which ends %s",
                self._name,
                self._tls.client_cert,
                date(_first_end(self._cert)),
            )

    def _keep(self, seen: _Seen, exc: OSError) -> None:
        """Tell once of files that cannot be loaded, when that lasts."""
        now = self._clock()
        if self._unfit is None or self._unfit[0] != seen:
            self._unfit, self._trouble = (seen, now), ""
        elif not self._trouble and now - self._unfit[1] >= _PATIENCE:
            self._trouble = _why(self._tls, exc)
            self._refused += 1
            log.warning(
                "%s: not taken, what was loaded stays in use: %s", self._name, self._trouble
            )

    @property
    def _name(self) -> str:
        return f"client certificate for Vault{f', stage {self._whose}' if self._whose else ''}"

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


def _why(tls: Tls, exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError) and "MISMATCH" in str(exc.reason):
        return f"{tls.client_key} is not the key of {tls.client_cert}"
    error = errors.of_file(exc)
    return f"{error.failure.reason} ({error.detail})"


def _bytes_if_any(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _first_end(pem: bytes) -> float:
    """When the certificate that is shown ends; infinite where that cannot be read."""
    found = not_after(pem.decode("latin-1"))
    return inf if found is None else found


def _has_system_store() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or paths.capath)
