"""Logging in, one file for each auth method.

Each has ``login(transport, values) -> Answer``: Vault's answer with its ``auth``.
Those that need more than hvac are loaded when they are first used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

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
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.auth import (
    approle,
    azure,
    cert,
    gcp,
    jwt,
    kubernetes,
    password,
    token_file,
)
from vaultauthz.vault.auth.lockable import Lockable
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.transport import Answer, Transport

# What else is to be installed, as pyproject.toml has it among the extras.
NEEDS: Final = {Aws: "botocore>=1.35", Gcp: "google-auth[requests]>=2.38"}

Memory = dict[str, Secret]  # what one login leaves for the next, in this process only


def login(  # noqa: PLR0911  one a method
    transport: Transport, auth: Auth, memory: Memory, lockable: Lockable | None = None
) -> Answer:
    """Log in by the method that ``auth`` is the configuration of.

    Raises:
        VaultError: the login did not work, or a file it needs cannot be read.
    """
    lockable = lockable or Lockable("")
    match auth:
        case AppRole():
            return approle.login(transport, auth, memory, lockable)
        case Kubernetes():
            return kubernetes.login(transport, auth)
        case Jwt():
            return jwt.login(transport, auth)
        case Cert():
            return cert.login(transport, auth)
        case UserPass() | Ldap():
            return password.login(transport, auth, lockable)
        case TokenFile():
            return token_file.login(transport, auth)
        case Aws() | Gcp() | Azure():
            return _in_a_cloud(transport, auth)


def _in_a_cloud(transport: Transport, auth: Aws | Gcp | Azure) -> Answer:
    try:
        match auth:
            case Azure():
                return azure.login(transport, auth)
            case Gcp():
                return gcp.login(transport, auth)
            case Aws():
                from vaultauthz.vault.auth import aws  # noqa: PLC0415  needs botocore

                return aws.login(transport, auth)
    except ModuleNotFoundError as exc:
        text = f"{exc.name} is missing: pip install '{NEEDS.get(type(auth), exc.name)}'"
        raise VaultError(Failure(Verdict.REFUSED, text)) from exc


def watched(auth: Auth) -> tuple[Path, ...]:
    """The files whose change makes a new login worth a try.

    Not those that are renewed for their own sake, as a service account's token is:
    the login they gave lasts. A certificate does count: Vault renews the token of a
    certificate login only for the certificate that it was given to.
    """
    match auth:
        case TokenFile():
            return (auth.path,)
        case AppRole():
            return tuple(filter(None, (auth.role_id_file, auth.secret_id_file)))
        case UserPass() | Ldap():
            return (auth.password_file,)
        case Cert():
            return (auth.client_cert, auth.client_key)
        case _:
            return ()
