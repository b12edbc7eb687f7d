"""The configuration of each auth method: how a stage logs in to Vault.

Files are read again at each login, so that whatever writes them may replace them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vaultauthz.core.secret import Secret


@dataclass(frozen=True, slots=True)
class AppRole:
    """Each id comes from its file at each login, or is given as a value.

    A role without ``bind_secret_id`` has no secret_id at all. ``secret_id_wrapped``:
    the file holds a response-wrapping token, which gives the secret_id once.
    """

    role_id: str = ""
    secret_id: Secret | None = None
    secret_id_file: Path | None = None
    mount: str = "approle"
    role_id_file: Path | None = None
    secret_id_wrapped: bool = False


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """The pod's service account token."""

    role: str
    token_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: str = "kubernetes"


@dataclass(frozen=True, slots=True)
class Jwt:
    """A JWT from a file, or what a command prints; one of the two is set."""

    role: str
    token_file: Path | None = None
    token_command: tuple[str, ...] = ()  # run without a shell
    mount: str = "jwt"


@dataclass(frozen=True, slots=True)
class Cert:
    """A TLS client certificate, which every call of the stage presents.

    ``role`` names the certificate role; "" lets Vault find the one that fits.
    """

    client_cert: Path
    client_key: Path
    role: str = ""
    mount: str = "cert"


@dataclass(frozen=True, slots=True)
class UserPass:
    """A user of Vault's own, its password in a file."""

    username: str
    password_file: Path
    mount: str = "userpass"


@dataclass(frozen=True, slots=True)
class Ldap:
    """A user of a directory, its password in a file."""

    username: str
    password_file: Path
    mount: str = "ldap"


@dataclass(frozen=True, slots=True)
class Aws:
    """An AWS identity by a signed ``sts:GetCallerIdentity``; by the standard credential chain.

    ``region`` is the STS endpoint's, "" for the global one, which Vault asks by default;
    ``server_id`` goes into the signed header ``X-Vault-AWS-IAM-Server-ID``.
    """

    role: str
    region: str = ""
    server_id: str = ""
    mount: str = "aws"


@dataclass(frozen=True, slots=True)
class Gcp:
    """A Google identity: of the instance (``gce``) or a service account (``iam``).

    With ``iam``, ``credentials_file`` is a service account's key; without it the
    standard application default credentials sign for ``service_account``.
    """

    role: str
    type: str = "gce"  # gce | iam
    service_account: str = ""
    credentials_file: Path | None = None
    mount: str = "gcp"


@dataclass(frozen=True, slots=True)
class Azure:
    """A managed identity; ``client_id`` names a user-assigned one."""

    role: str
    resource: str = "https://management.azure.com/"
    client_id: str = ""
    mount: str = "azure"


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token that something else keeps fresh, such as Vault Agent's sink."""

    path: Path
    allow_long_lived: bool = False


Auth = AppRole | Kubernetes | Jwt | Cert | UserPass | Ldap | Aws | Gcp | Azure | TokenFile
