"""What a server of ours shows who it is with: files that are replaced while it runs.

Kubernetes and cert-manager move a link, others write in place, one file after the other. So
what is there is taken only when it is good as a whole; until then the one before goes on, and
what is wrong is told once.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from vaultauthz.config.values import ServerTls
from vaultauthz.core.certificate import date
from vaultauthz.core.file_text import BOM
from vaultauthz.core.redaction import where
from vaultauthz.vault.certificates import Validity, key_kind, validities
from vaultauthz.watching import Stamp, stamp

_EVERY: Final = 1.0  # seconds between looks
# A file that was changed so lately may be changed again without its stamp showing it.
_FRESH: Final = 2.0  # seconds
# What grpcio's TLS library, BoringSSL, signs with as a server; of EC keys these curves.
_RSA: Final = bytes.fromhex("06092a864886f70d010101")
_CURVES: Final = tuple(
    bytes.fromhex(f"06072a8648ce3d0201{curve}")
    for curve in ("06082a8648ce3d030107", "06052b81040022", "06052b81040023")
)
_Stamps = tuple[Stamp, ...]

log = logging.getLogger(__name__)


class UnusableError(Exception):
    """The files cannot be served with; the text names the file and says why."""


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """PEM texts, and the same as a context. With ``client_ca`` clients must show a certificate."""

    key: bytes
    cert: bytes
    client_ca: bytes | None
    context: ssl.SSLContext
    validity: Validity

    @property
    def texts(self) -> tuple[bytes, ...]:
        """What tells it from another."""
        return (
            (self.cert, self.key)
            if self.client_ca is None
            else (self.cert, self.key, self.client_ca)
        )


def examined(files: ServerTls, now: float, *, by_grpc: bool = False) -> tuple[str, Validity]:
    """Why these would not be taken, "" if they would; and from when to when they are good.

    ``by_grpc``: see ``FollowedTls``.
    """
    try:
        found = _loaded(files, by_grpc=by_grpc)
    except UnusableError as exc:
        return str(exc), Validity()
    try:
        _see_that_it_is_valid(files, found, now)
    except UnusableError as exc:
        return str(exc), found.validity
    return "", found.validity


class FollowedTls:
    """``identity`` is the last good one of ``files``, looked at every second from ``start`` to ``stop``.

    ``name`` is the key of the configuration. One that has ended is served at the start, so that
    the next one can take its place, and never taken later. ``by_grpc``: what gRPC's own TLS
    library does not take is no good one. Safe for threads.

    Raises:
        UnusableError: at the start there is none.
    """

    def __init__(
        self,
        name: str,
        files: ServerTls,
        clock: Callable[[], float] = time.time,
        *,
        by_grpc: bool = False,
    ) -> None:
        self._name = name
        self._files = files
        self._clock = clock
        self._by_grpc = by_grpc
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._settled: _Stamps | None = None  # of files that need not be read again
        self._seen: tuple[bytes, ...] = ()  # what was refused at the last look
        self._why = ""  # the reason
        self._news = False
        self._end_told = False
        self.taken = 0  # how often it was replaced, since the start
        self.refused = 0
        self.trouble = ""  # why what is in the files is not taken, once that has been told
        self.identity = _loaded(files, by_grpc=by_grpc)
        self._tell_begin()
        self._tell_end()

    @property
    def file(self) -> Path:
        """Where the certificate is."""
        return self._files.cert

    @property
    def ended(self) -> bool:
        """Whether nobody new can connect any more: what is shown is over."""
        return self.seconds_left <= 0

    @property
    def seconds_left(self) -> float:
        """How long what is shown is good for; infinite where it does not say."""
        return self.identity.validity.ends - self._clock()

    def start(self) -> None:
        """Look by itself from now on."""
        self._thread = threading.Thread(
            target=self._run, name=f"{self._name.rpartition('.')[2]}-files", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread:
            self._thread.join()

    def look(self, *, final: bool = False) -> None:
        """Take what is in the files, if it is another and good.

        What is bad is told when it is the same at the next look, which may come after the
        second of two files, or at once if this is ``final``.
        """
        with self._lock:
            stamps = _stamps(self._files)
            if stamps is None or stamps != self._settled:
                self._judge(final=final)
                self._settled = stamps if not self._why and self._lasting(stamps) else None
            self._tell_end()

    def reread(self) -> str:
        """Look for good; what has become of the files since the last time, for the log."""
        self.look(final=True)
        with self._lock:
            news, self._news = self._news, False
        if self.trouble:
            return f"{self._name} not taken: {self.trouble}"
        return f"{self._name} replaced" if news else ""

    def _run(self) -> None:
        while not self._over.wait(_EVERY):
            try:
                self.look()
            except Exception as exc:  # noqa: BLE001 - a bug of ours must not end the following
                log.error("%s: the files cannot be followed: %s", self._name, where(exc))  # noqa: TRY400

    def _lasting(self, stamps: _Stamps | None) -> bool:
        newest = max(max(each.modified, each.changed) for each in stamps) / 1e9 if stamps else inf
        return self._clock() - newest > _FRESH

    def _judge(self, *, final: bool) -> None:
        texts: tuple[bytes, ...] = ()
        try:
            texts = _texts(self._files)
            if texts == self.identity.texts:
                self._be_content()
                return
            found = _loaded(self._files, by_grpc=self._by_grpc)
            _see_that_it_is_valid(self._files, found, self._clock())
        except UnusableError as exc:
            self._refuse(str(exc), texts, final=final)
            return
        self.identity = found
        self.taken += 1
        self._be_content()
        self._news, self._end_told = True, False
        log.info(
            "%s: replaced; new connections get the certificate of %s", self._name, self._files.cert
        )

    def _refuse(self, why: str, texts: tuple[bytes, ...], *, final: bool) -> None:
        again = (texts, why) == (self._seen, self._why)
        self._seen, self._why = texts, why
        if (again or final) and why != self.trouble:
            self.trouble = why
            self.refused += 1
            log.warning("%s: not taken, the certificate before stays in use: %s", self._name, why)

    def _be_content(self) -> None:
        self._seen, self._why, self.trouble = (), "", ""

    def _tell_begin(self) -> None:
        begins = self.identity.validity.begins
        if begins > self._clock():
            log.error(
                "%s: %s is valid from %s on, and until then nobody can connect; is the clock right?",
                self._name,
                self._files.cert,
                date(begins),
            )

    def _tell_end(self) -> None:
        if self.ended and not self._end_told:
            self._end_told = True
            log.error(
                "%s: the certificate in use has ended (%s), and nobody new can connect; replace %s",
                self._name,
                date(self.identity.validity.ends),
                self._files.cert,
            )


def _paths(files: ServerTls) -> tuple[Path, ...]:
    return tuple(path for path in (files.cert, files.key, files.client_ca) if path)


def _stamps(files: ServerTls) -> _Stamps | None:
    """Those of all the files; None while one is not there."""
    try:
        return tuple(stamp(path) for path in _paths(files))
    except OSError:
        return None


def _texts(files: ServerTls) -> tuple[bytes, ...]:
    return tuple(_text(path) for path in _paths(files))


def _text(path: Path) -> bytes:
    return _bytes(path).removeprefix(BOM)  # which gRPC does not read past


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UnusableError(f"cannot read {path}: {exc.strerror}") from exc


@contextmanager
def _without_mark(path: Path) -> Iterator[Path]:
    """``path``, or where it begins with a byte order mark, a file in memory that does not.

    OpenSSL 3 reads on behind one, not each before it; and it takes a file's name, not its text.
    """
    text = _bytes(path)
    if not text.startswith(BOM) or not hasattr(os, "memfd_create"):
        yield path
        return
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(text.removeprefix(BOM))
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


def _loaded(files: ServerTls, *, by_grpc: bool) -> Identity:
    texts = _texts(files)
    context = _context(files)
    if _texts(files) != texts:  # OpenSSL reads the files by itself
        raise UnusableError(f"{files.cert} is being written")
    cert, key, client_ca = texts[0], texts[1], texts[2] if files.client_ca else None
    if client_ca is not None and not validities(client_ca):  # OpenSSL is content with a CRL
        raise UnusableError(f"{files.client_ca} is no list of authorities: it has no certificate")
    if by_grpc:
        _see_that_grpc_takes_it(files, cert)
    found = validities(cert)
    return Identity(key, cert, client_ca, context, found[0] if found else Validity())


def _see_that_grpc_takes_it(files: ServerTls, cert: bytes) -> None:
    """It tells nobody what it did not take, and goes on with the one before."""
    if b"-----BEGIN TRUSTED CERTIFICATE-----" in cert:
        raise UnusableError(
            f"{files.cert} is a TRUSTED CERTIFICATE, a form that only OpenSSL reads; "
            "openssl x509 -in FILE writes it as a CERTIFICATE"
        )
    kind = key_kind(cert)
    if not kind.startswith(_RSA) and kind not in _CURVES:
        raise UnusableError(
            f"{files.cert} has a key of a kind that gRPC does not serve with; "
            "have it made with one of RSA, or of ECDSA on P-256 or P-384"
        )


def _context(files: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with _without_mark(files.cert) as cert, _without_mark(files.key) as key:
            # Without a password callback OpenSSL would ask for one at the terminal.
            context.load_cert_chain(cert, key, password=lambda: "")
    except OSError as exc:  # ssl.SSLError is one
        raise UnusableError(_no_pair(files, exc)) from exc
    if files.client_ca:
        try:
            with _without_mark(files.client_ca) as client_ca:
                context.load_verify_locations(client_ca)
        except OSError as exc:
            why = _words(exc)
            raise UnusableError(f"{files.client_ca} is no list of authorities: {why}") from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_pair(files: ServerTls, exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError) and "MISMATCH" in str(exc.reason):
        return f"{files.key} is not the key of {files.cert}"
    return f"{files.cert} and {files.key} are no certificate with its key in clear: {_words(exc)}"


def _words(exc: OSError) -> str:
    """A reason without OpenSSL's source lines."""
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "not readable").replace("_", " ").lower()
    return exc.strerror or str(exc)


def _see_that_it_is_valid(files: ServerTls, found: Identity, now: float) -> None:
    if found.validity.ends <= now:
        raise UnusableError(f"{files.cert} has ended ({date(found.validity.ends)})")
    if found.validity.begins > now:
        raise UnusableError(f"{files.cert} is valid from {date(found.validity.begins)} on")
    authorities = validities(found.client_ca or b"")
    if authorities and all(one.ends <= now for one in authorities):
        raise UnusableError(f"{files.client_ca}: every authority in it has ended")
