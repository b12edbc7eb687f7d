"""TLS towards Vault: whom we trust, and what we show, followed in their files."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from vaultauthz.config.values import Tls
from vaultauthz.core.certificate import VAULT, EndingCertificate, as_others_do, date
from vaultauthz.vault import errors
from vaultauthz.vault.certificates import Validity, validities
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
        self._loading: Path | None = None  # a file of an authority, until it is loaded
        self._unfit: tuple[_Seen, float] | None = None  # what cannot be loaded, and since when
        # Read without the lock, which a file of a mount that hangs may hold for good: assigned as a whole.
        self._client = EndingCertificate(VAULT, file=str(tls.client_cert))
        self._looked = tls.client_cert is None  # … or has been loaded

    @property
    def client(self) -> EndingCertificate | None:
        """The client certificate that new connections show; None where there is none.

        Waits for no call. Before the first one it looks, once, what is in the file.
        """
        if not self._looked:
            self._looked = True
            found, told = _bytes_if_any(self._tls.client_cert), self._client
            if not self._cert:
                self._client = _of(told, found)
        return self._client if self._tls.client_cert else None

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
            elif self._unfit:  # what was there before is there again
                self._unfit, self._client = None, replace(self._client, trouble="")
            return self._context

    def _take(self) -> None:
        """Tell of another client certificate than before."""
        self._unfit = None
        if self._tls.client_cert is None:
            return
        before, self._cert = self._cert, _bytes_if_any(self._tls.client_cert)
        found = _of(replace(self._client, trouble=""), self._cert)
        if before and before != self._cert:
            found = replace(found, taken=found.taken + 1)
            log.info(
                "client certificate for Vault%s: replaced; new connections to Vault show %s, which ends %s",
                self._of_stage,
                self._tls.client_cert,
                date(found.not_after),
            )
        self._client = found

    def _keep(self, seen: _Seen, exc: OSError) -> None:
        """Tell once of files that cannot be loaded, when that lasts."""
        now = self._clock()
        if self._unfit is None or self._unfit[0] != seen:
            self._unfit = (seen, now)
            self._client = replace(self._client, trouble="")
        elif not self._client.trouble and now - self._unfit[1] >= _PATIENCE:
            what = "ca_cert" if self._loading else "client certificate"
            why = f"{self._loading}: {_said(exc)}" if self._loading else _why(self._tls, exc)
            told = self._client
            self._client = replace(told, trouble=why, refused=told.refused + 1)
            log.warning(
                "%s for Vault%s: not taken, what was loaded stays in use: %s",
                what,
                self._of_stage,
                why,
            )

    @property
    def _of_stage(self) -> str:
        return f", stage {self._whose}" if self._whose else ""

    def _look(self) -> _Seen:
        tls = self._tls
        return tuple(
            map(stamp_if_any, filter(None, (tls.ca_cert, tls.client_cert, tls.client_key)))
        )

    def _load(self) -> ssl.SSLContext:
        tls = self._tls
        self._loading = tls.ca_cert
        context = ssl.create_default_context(cafile=tls.ca_cert)
        self._loading = None
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
    return _said(exc)


def _said(exc: OSError) -> str:
    error = errors.of_file(exc)
    return f"{error.failure.reason} ({error.detail})"


def _bytes_if_any(path: Path | None) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes() if path else b""
    return b""


def _of(told: EndingCertificate, pem: bytes) -> EndingCertificate:
    """With the times of what is shown, the first; infinite where they cannot be read."""
    found = next(iter(validities(pem)), Validity())
    return replace(told, not_before=found.begins, not_after=found.ends)


def _has_system_store() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or paths.capath)
