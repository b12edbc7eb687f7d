"""The configuration as frozen values, valid as a whole.

Durations are float seconds, paths are absolute (relative ones are taken from
the folder of the configuration file), header names are in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from vaultauthz.core.callers import Callers
from vaultauthz.core.injection import Injection
from vaultauthz.core.routing import Route
from vaultauthz.core.secret import Secret


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards Vault; None where the system's own default applies."""

    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Vault:
    """The server: ``address`` is ``http(s)://host:port`` or ``unix:///path``."""

    address: str
    namespace: str = ""
    tls: Tls = Tls()
    timeout: float = 5.0  # of one call, from sending to the last byte
    calls_per_second: float = inf  # of each stage, at most


@dataclass(frozen=True, slots=True)
class AppRole:
    """``secret_id`` comes from the file at each login, or is given as a value.

    A role without ``bind_secret_id`` has neither.
    """

    role_id: str
    secret_id: Secret | None = None
    secret_id_file: Path | None = None
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """The service account's token is read again at each login."""

    role: str
    token_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: str = "kubernetes"


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token that something else keeps fresh, such as Vault Agent's sink."""

    path: Path
    allow_long_lived: bool = False


Auth = AppRole | Kubernetes | TokenFile


@dataclass(frozen=True, slots=True)
class Stage:
    """An environment with a Vault login of its own."""

    name: str
    auth: Auth


@dataclass(frozen=True, slots=True)
class PathSecret:
    """``vault read PATH`` of any engine, or ``vault write PATH`` with ``params``.

    ``{stage}`` is already filled in, in the path and in the params.
    """

    path: str
    write: bool = False
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class KvSecret:
    """A KV secret, ``mount/path``; the engine's version is found out.

    ``version`` pins one of KV v2; None is the newest.
    """

    path: str
    refresh: float = 300.0
    max_stale: float = 3600.0  # how long it is used when it cannot be read again
    version: int | None = None


SecretSource = PathSecret | KvSecret


@dataclass(frozen=True, slots=True)
class Upstream:
    """A service behind the gateway and the credential it wants."""

    name: str
    stages: tuple[str, ...]
    secrets: Mapping[str, SecretSource]  # by stage
    inject: tuple[Injection, ...]
    callers: Callers
    strip: tuple[str, ...] = ()
    optional: bool = False
    per: str = "instance"  # instance | caller | request: who shares a lease
    max_callers: int = 1000  # per caller: leases at once
    idle: float = 600.0  # per caller: seconds without use after which a lease is given back
    hold: float = 30.0  # per request: seconds until its lease is revoked


@dataclass(frozen=True, slots=True)
class ServerTls:
    """``client_ca`` makes it mutual: clients without its certificate are refused."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Listen:
    """``grpc`` and ``admin`` are ``unix:///path`` or ``host:port``; admin may be ""."""

    grpc: str = "unix:///run/vaultauthz/grpc.sock"
    grpc_tls: ServerTls | None = None
    admin: str = ""
    admin_tls: ServerTls | None = None
    admin_token_file: Path | None = None
    transport: str = "auto"  # auto | native | grpcio


@dataclass(frozen=True, slots=True)
class Audit:
    """``file`` is None for standard output."""

    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, valid configuration."""

    vault: Vault
    stages: Mapping[str, Stage]
    upstreams: Mapping[str, Upstream]
    routes: tuple[Route, ...] = ()
    listen: Listen = field(default_factory=Listen)
    audit: Audit = field(default_factory=Audit)
    unmatched: str = "deny"  # deny | pass
    warnings: tuple[str, ...] = ()  # what `config check` and `serve` say, each a line
