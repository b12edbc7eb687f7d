"""TLS certificate: the client certificate that the stage's connections present.

Sources: ``builtin/credential/cert/path_login.go`` of Vault 1.21.4, and OpenBao 2.7's answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self, cast

from vaultauthz.config import addresses
from vaultauthz.config.auth import (
    LIST_ROLES,
    NOBODY,
    READ_ROLE,
    LoginFile,
    LoginRequest,
    Refusal,
    RefusedLogin,
    RoleMethod,
    Surroundings,
    VaultAsConfigured,
    keys_of,
)
from vaultauthz.config.keys import Key, both
from vaultauthz.config.kinds import PRIVATE, READABLE, TEXT
from vaultauthz.config.reader import Table, quoted

_LIST_AND_READ: Final = (*LIST_ROLES, *READ_ROLE)


@dataclass(frozen=True, slots=True)
class Cert(RoleMethod):
    """A TLS client certificate, which every call of the stage presents.

    ``role`` names the certificate role; "" lets Vault find the one that fits.
    """

    name: ClassVar[str] = "cert"
    first: ClassVar[str] = "role: gateway, client_cert: gateway.crt, client_key: gateway.key"
    roles: ClassVar[str] = "certs"

    client_cert: Path
    client_key: Path
    role: str = ""
    mount: str = "cert"

    @classmethod
    def read(cls, table: Table, vault: VaultAsConfigured) -> Self:
        bare = [address for address in vault.addresses if not address.startswith("https://")]
        for address in filter(None, bare):
            what = "a unix socket" if address.startswith(addresses.UNIX) else "http://"
            raise table.place.wrong(
                f"cert needs TLS, and {what} has none; "
                f"use https:// in place of {quoted(address)}, or another method"
            )
        own = "client_cert" in table or "client_key" in table
        if not own and vault.client_cert is None:
            raise table.place.wrong(
                "cert has no certificate; add client_cert and client_key here, or to vault.tls"
            )
        usual = {"client_cert": vault.client_cert, "client_key": vault.client_key}
        nowhere = cls.keys.keys["client_cert"].reader.stand_in
        pair = {name: path or nowhere for name, path in usual.items()}
        return cast(Self, cls.keys.build(table, usual=pair))

    def login(self, here: Surroundings) -> LoginRequest:
        """By the certificate that the connection has shown in its handshake."""
        return LoginRequest(f"{self.at}/login", {"name": self.role} if self.role else {})

    def of_nobody(self) -> LoginRequest:
        # Without a name our certificate finds its role, and is denied like the login.
        return LoginRequest(f"{self.at}/login", {"name": NOBODY})

    @property
    def client_certificate(self) -> tuple[Path, Path] | None:
        return self.client_cert, self.client_key

    @property
    def files(self) -> tuple[LoginFile, ...]:
        # Vault renews the token of this login only for the certificate that it was given to.
        return (
            LoginFile("client_cert", self.client_cert, watched=True),
            LoginFile("client_key", self.client_key, private=True, watched=True),
        )

    refusals: ClassVar = (
        Refusal(
            ("no client certificate found", "client certificate must be", "tls connection"),
            "Vault has seen no client certificate: a proxy or a load balancer before it ends TLS, or "
            "its listener has tls_disable_client_certs",
            "let TLS pass through to Vault; or have the proxy hand the certificate on, and Vault "
            "trust it (x_forwarded_for_client_cert_header of its listener)",
            (),
        ),
        Refusal(
            ("no certificate was matched",),
            "no role by this name trusts a certificate",
            "correct role, or write it in Vault",
            _LIST_AND_READ,
        ),
        Refusal(
            ("revoked", "ocsp"),
            "the certificate is revoked, or OCSP could not be asked",
            "present another certificate; look at the role's ocsp_* and at the method's crls",
            _LIST_AND_READ,
        ),
        Refusal(
            ("has expired", "not yet valid"),
            "the certificate (or its CA's) has ended, or is not valid yet",
            "put a new pair into client_cert and client_key, and set the clocks (NTP)",
            _LIST_AND_READ,
        ),
        Refusal(
            ("unknown authority",),
            "certificate of the role is not the CA that has signed ours",
            "write the CA's certificate into certificate of the role, with those between in "
            "client_cert",
            _LIST_AND_READ,
        ),
        Refusal(
            ("failed to match all constraints", "certificate mismatch"),
            "the names of our certificate are not as allowed_common_names, allowed_dns_sans, "
            "allowed_uri_sans, allowed_names or required_extensions of the role want them, or its "
            "CA is not the role's certificate",
            "compare the role with what we present",
            _LIST_AND_READ,
        ),
    )

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        return Refusal(
            (),
            "no role trusts this client certificate, its names are not among the allowed, or "
            "something on the way ends TLS",
            "compare certificate and allowed_* of the role with what we present",
            _LIST_AND_READ,
        )


Cert.keys = keys_of(
    Cert,
    Key("client_cert", READABLE, "Our certificate, in PEM.", otherwise="vault.tls.client_cert"),
    Key("client_key", PRIVATE, "Its private key, in PEM.", otherwise="vault.tls.client_key"),
    Key("role", TEXT, "The certificate role.", otherwise="the one that fits"),
    conditions=both("client_cert", "client_key"),
)
