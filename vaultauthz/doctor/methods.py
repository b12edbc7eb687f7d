"""What each auth method is called, where its role is in Vault, and which files it reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vaultauthz.config.methods import (
    AppRole,
    Auth,
    Aws,
    Azure,
    Cert,
    Gcp,
    Jwt,
    Kubernetes,
    Ldap,
    TokenFile,
    UserPass,
)
from vaultauthz.doctor.facts import SecretFile

_NAMES: dict[type[Auth], str] = {
    AppRole: "approle",
    Kubernetes: "kubernetes",
    Jwt: "jwt",
    Cert: "cert",
    UserPass: "userpass",
    Ldap: "ldap",
    Aws: "aws",
    Gcp: "gcp",
    Azure: "azure",
    TokenFile: "token_file",
}


@dataclass(frozen=True, slots=True)
class Method:
    """``mount`` is "" for a token from a file; ``role`` the path of what sets its tokens' lives."""

    name: str
    mount: str
    role: str

    @property
    def roles(self) -> str:
        """Where its roles (users, certificates) are listed."""
        kinds = {"cert": "certs", "userpass": "users", "ldap": "users"}
        return f"auth/{self.mount}/{kinds.get(self.name, 'role')}"

    @property
    def config(self) -> str:
        """Where the method's own settings are."""
        return f"auth/{self.mount}/config{'/client' if self.name == 'aws' else ''}"


def method(auth: Auth, role: str = "") -> Method:
    """``role``: an AppRole's name, which the configuration does not have."""
    name = _NAMES[type(auth)]
    if isinstance(auth, TokenFile):
        return Method(name, "", "")
    at = f"auth/{auth.mount}"
    match auth:
        case AppRole():
            where = f"{at}/role/{role or 'ROLE'}"
        case Cert():
            where = f"{at}/certs/{auth.role or 'ROLE'}"
        case UserPass():
            where = f"{at}/users/{auth.username}"
        case Ldap():
            where = f"{at}/config"
        case _:
            where = f"{at}/role/{auth.role}"
    return Method(name, auth.mount, where)


def lock_key(auth: Auth, namespace: str) -> tuple[str, ...] | None:
    """What Vault locks after some wrong tries; None for a method that locks nothing."""
    match auth:
        case AppRole():
            return (namespace, auth.mount, auth.role_id or str(auth.role_id_file))
        case UserPass() | Ldap():
            return (namespace, auth.mount, auth.username)
        case _:
            return None


def secret_files(auth: Auth) -> tuple[SecretFile, ...]:
    """The files that this login reads, as they are now."""
    return tuple(
        SecretFile(key, path, _mode(path), private)
        for key, path, private in _files(auth)
        if path is not None
    )


def _files(auth: Auth) -> tuple[tuple[str, Path | None, bool], ...]:
    """Key, path, whether it is for its owner only.

    A pod's own token is not: Kubernetes mounts it for everybody in the container.
    """
    found: tuple[tuple[str, Path | None, bool], ...]
    match auth:
        case AppRole():
            ids = ("role_id_file", auth.role_id_file, False)
            found = (ids, ("secret_id_file", auth.secret_id_file, True))
        case Kubernetes() | Jwt():
            found = (("token_file", auth.token_file, False),)
        case Cert():
            pair = ("client_cert", auth.client_cert, False)
            found = (pair, ("client_key", auth.client_key, True))
        case UserPass() | Ldap():
            found = (("password_file", auth.password_file, True),)
        case Gcp():
            found = (("credentials_file", auth.credentials_file, True),)
        case TokenFile():
            found = (("path", auth.path, True),)
        case _:
            found = ()
    return found


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode & 0o7777  # noqa: PTH116  follows links, as reading does
    except OSError:
        return None
