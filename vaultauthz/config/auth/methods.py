"""Every auth method by its name, and ``auth`` of a stage as the one that it names."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from vaultauthz.config.auth import AuthMethod, VaultAsConfigured
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.auth.azure import Azure
from vaultauthz.config.auth.cert import Cert
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.config.reader import Value, one_of, quoted
from vaultauthz.config.values import Vault

_EACH: Final[tuple[type[AuthMethod], ...]] = (
    AppRole,
    Kubernetes,
    Jwt,
    Cert,
    UserPass,
    Ldap,
    Aws,
    Gcp,
    Azure,
    TokenFile,
)
METHODS: Final = MappingProxyType({method.name: method for method in _EACH})
# What Vault has and we do not, with what to use instead.
_FOR_PEOPLE: Final = {"oidc": "oidc wants a person at a browser; use jwt"}


def read_auth(value: Value, vault: Vault) -> AuthMethod:
    """The login of a stage; by certificate, it may use that of ``vault``."""
    named = value.entries().get("method")
    if named is None:
        raise value.wrong(f"says no method; add method: {one_of(tuple(METHODS))}")
    name = named.text()
    if name in _FOR_PEOPLE:
        raise named.wrong(_FOR_PEOPLE[name])
    if name not in METHODS:
        raise named.wrong(f"{quoted(name)} is unknown; use {one_of(tuple(METHODS))}")
    method = METHODS[name]
    seen = VaultAsConfigured(vault.addresses, vault.tls.client_cert, vault.tls.client_key)
    return method.read(method.keys.open(value), seen)


SCHEMA: Final = {"oneOf": [method.keys.schema() for method in METHODS.values()]}
