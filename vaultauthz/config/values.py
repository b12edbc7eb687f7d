"""The configuration as frozen values, valid as a whole.

Durations are float seconds, paths are absolute (relative ones are taken from
the folder of the configuration file), header names are in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from vaultauthz.config.auth import AuthMethod
from vaultauthz.core.callers import Callers
from vaultauthz.core.injection import Injection
from vaultauthz.core.routing import Route


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards Vault; None where the system's own default applies."""

    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str = ""
    x509_strict: bool = False  # every demand of RFC 5280 on certificates


@dataclass(frozen=True, slots=True)
class Vault:
    """The server: ``address`` is ``http(s)://host:port`` or ``unix:///path``.

    ``fallbacks`` are other nodes of the same cluster, asked in turn when it is away.
    """

    address: str
    namespace: str = ""
    tls: Tls = Tls()
    timeout: float = 5.0  # of one call, from sending to the last byte
    calls_per_second: float = inf  # of each stage, at most
    fallbacks: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address, in the order in which they are tried."""
        return (self.address, *self.fallbacks)


@dataclass(frozen=True, slots=True)
class Stage:
    """An environment with a Vault login of its own.

    ``namespace`` is where it logs in and reads; None: as ``vault.namespace`` says.
    """

    name: str
    auth: AuthMethod
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class PathSecret:
    """``vault read PATH`` of any engine, or ``vault write PATH`` with ``params``.

    ``{stage}`` is already filled in, in the path and in the params.
    """

    path: str
    write: bool = False
    params: tuple[tuple[str, str], ...] = ()
    ttl: float | None = None  # asked for as the parameter `ttl`; None: as the role has it
    increment: float | None = None  # asked for at renewal; None: what the lease had at first


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
class Destination:
    """Where the gateway finds a service: ``address`` is ``http(s)://host[:port]``.

    All of this is for the gateway's printed configuration; we never connect there.
    """

    address: str
    ca_cert: Path | None = None  # None: the public authorities of the gateway's system
    server_name: str = ""  # in its certificate, where it is not the host
    preserve_host: bool = False  # the client's host goes on, in place of the service's own
    health: str = ""  # a path that is answered 200 while it is well; "": nobody looks

    @property
    def _url(self) -> SplitResult:
        return urlsplit(self.address)

    @property
    def has_tls(self) -> bool:
        """Whether it is spoken to inside TLS."""
        return self._url.scheme == "https"

    @property
    def host(self) -> str:
        """A name, or an IP address without brackets."""
        return self._url.hostname or ""

    @property
    def port(self) -> int:
        """The one that is written, else the scheme's."""
        return self._url.port or (443 if self.has_tls else 80)

    @property
    def authority(self) -> str:
        """As the service is asked for: with a port where it is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.has_tls else 80) else f"{host}:{self.port}"

    @property
    def certified_name(self) -> str:
        """What its certificate has to name."""
        return self.server_name or self.host


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
    callers_enforced_by: str = "vaultauthz"  # | envoy: then SDS hands it out despite `callers`
    to: Mapping[str, Destination] = field(default_factory=dict)  # by stage; {}: the gateway knows


@dataclass(frozen=True, slots=True)
class ServerTls:
    """``client_ca`` makes it mutual: clients without its certificate are refused.

    ``client_names``, of ``grpc_tls`` alone: DNS names in lower case, and URIs. Of such clients
    those are answered whose certificate has one of them; () for all.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None
    client_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listen:
    """``grpc`` and ``admin`` are ``unix:///path`` or ``host:port``; admin may be ""."""

    grpc: str = "unix:///run/vaultauthz/grpc.sock"
    grpc_tls: ServerTls | None = None
    admin: str = ""
    admin_tls: ServerTls | None = None
    admin_token_file: Path | None = None
    admin_insecure: bool = False  # a port on loopback without a token is wanted
    transport: str = "auto"  # auto | native | grpcio
    drain: float = 0.0  # seconds between SIGTERM and the stop, in which gateways turn away


@dataclass(frozen=True, slots=True)
class CallerTokens:
    """Who issues the callers' tokens, for the gateway to verify them; ``jwks`` is a URL."""

    issuer: str
    jwks: str
    audiences: tuple[str, ...] = ()
    ca_cert: Path | None = None


@dataclass(frozen=True, slots=True)
class WayToUs:
    """How the gateway reaches ``listen.grpc``; ``address`` is ``host:port``, "" for the same."""

    address: str = ""
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


@dataclass(frozen=True, slots=True)
class GatewaySide:
    """What the gateway's printed configuration has to know besides; its files are the gateway's."""

    address: str  # ip:port
    tls: ServerTls | None = None
    node: str = ""  # not said
    jwt: CallerTokens | None = None
    vaultauthz: WayToUs = WayToUs()


@dataclass(frozen=True, slots=True)
class Audit:
    """``file`` is None for standard output.

    ``access_log`` is Envoy's own, where the lines about requests come from that Envoy does
    not ask about; None: Envoy sends them.
    """

    file: Path | None = None
    access_log: Path | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, valid configuration."""

    vault: Vault
    stages: Mapping[str, Stage]
    upstreams: Mapping[str, Upstream]
    routes: tuple[Route, ...] = ()
    listen: Listen = field(default_factory=Listen)
    audit: Audit = field(default_factory=Audit)
    gateway: GatewaySide | None = None
    unmatched: str = "deny"  # deny | pass
    warnings: tuple[str, ...] = ()  # what `config check` and `serve` say, each a line
    absent: tuple[str, ...] = ()  # those of the warnings that are about files which are not here
    unfit_for_kong: tuple[str, ...] = ()  # why no server of Kong's may run with it, each a line

    def vault_of(self, stage: str) -> Vault:
        """The server as this stage sees it: in its namespace, with its client certificate."""
        named = self.stages[stage]
        vault, own = self.vault, named.auth.client_certificate
        if own is not None:
            tls = replace(vault.tls, client_cert=own[0], client_key=own[1])
            vault = replace(vault, tls=tls)
        return vault if named.namespace is None else replace(vault, namespace=named.namespace)
