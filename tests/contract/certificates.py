"""Certificates for the tests: an authority, servers by name, clients."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Pair:
    """PEM files: a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; its own is ``ca``.

    They have what RFC 5280 demands, which Python checks from 3.13 on (VERIFY_X509_STRICT);
    ``plain`` ones do not, as of the short recipes for a CA of one's own.
    """

    def __init__(
        self, folder: Path, name: str = "test CA", *, hours: float = 1, plain: bool = False
    ) -> None:
        self._plain = plain
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            self._builder(name, self._key, hours)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(self._id, critical=False)
        )
        if not plain:
            builder = builder.add_extension(_SIGNS, critical=True)
        self._cert = builder.sign(self._key, hashes.SHA256())
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(self._cert.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: str, key: Any, hours: float = 1) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=hours))
        )

    def issue(self, name: str, *, hours: float = 1, file: str = "", key: Any = None) -> Pair:
        """A certificate for this DNS name or IP address, good for servers and clients.

        ``hours``: how long it is valid from now; less than 0 and more than -1 for an expired one.
        ``file``: what the files are called, if not by the name. ``key``: a private key, of
        ECDSA on P-256 if none is given.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        try:
            place: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            place = x509.DNSName(name)
        builder = (
            self._builder(name, key, hours)
            .add_extension(x509.SubjectAlternativeName([place]), critical=False)
            # By which, and the next, Vault knows a certificate again.
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        if not self._plain:
            whose = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._id)
            builder = builder.add_extension(whose, critical=False)
        cert = builder.sign(self._key, hashes.SHA256())
        file = file or name
        pair = Pair(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        pair.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair

    def revoked(self) -> bytes:
        """Its revocation list, PEM, with nothing in it."""
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._cert.subject)
            .last_update(now)
            .next_update(now + dt.timedelta(hours=1))
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)


def server_context(pair: Pair, client_ca: Path | None = None) -> ssl.SSLContext:
    """What a server with this certificate talks TLS with; ``client_ca`` makes it mutual."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


_made = ssl.create_default_context


def stricter(*args: Any, **more: Any) -> ssl.SSLContext:
    """What ``ssl.create_default_context`` makes from Python 3.13 on."""
    context = _made(*args, **more)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
