"""What was found out, as values: all that the rules know. No secret is among it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz.config.auth import AuthMethod, LoginFile
from vaultauthz.config.auth.methods import METHODS
from vaultauthz.config.values import SecretSource, Vault
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.grant import Verdict
from vaultauthz.policy import Need
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.mounts import Mount
from vaultauthz.vault.probe import NodeHealth, TokenLookup

ROOT: Final = "root"  # a capability, and the policy that brings it
DEFAULT: Final = "default"  # the policy that every token has, unless its role says no
_PHRASES: Final = frozenset(
    phrase for method in METHODS.values() for refusal in method.refusals for phrase in refusal.texts
)


def cli(version: str) -> str:
    """Vault's own command line: OpenBao's versions begin at 2, Enterprise's have a `+`."""
    return "vault" if version.startswith(("0.", "1.")) or "+" in version else "bao"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A call that did not work; ``detail`` is Vault's own text, for the operator's terminal.

    ``says``: which phrases of the auth methods' refusals are in the text, also where ``detail``
    hides or cuts it.
    """

    reason: str
    detail: str = ""
    status: int = 0
    verdict: Verdict = Verdict.REFUSED
    away: bool = False
    says: frozenset[str] = frozenset()

    @classmethod
    def of(cls, error: VaultError) -> Trouble:
        """What the error says."""
        failure = error.failure
        says = frozenset(filter(error.says, _PHRASES))
        return cls(failure.reason, error.detail, error.status, failure.verdict, failure.away, says)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(frozen=True, slots=True)
class Handshake:
    """What TLS came to. ``ends_in``: seconds until the server's certificate ends, if known."""

    version: str = ""
    ends_in: float | None = None
    problem: str = ""  # OpenSSL's own words, "" when it worked


@dataclass(frozen=True, slots=True)
class VaultNode:
    """One address of Vault. ``ahead``: its clock less ours, in seconds."""

    address: str
    health: NodeHealth | None = None
    trouble: Trouble | None = None
    handshake: Handshake | None = None  # None without TLS
    ahead: float | None = None
    proxy: str = ""  # a variable that names a proxy, which others would use on this way

    @property
    def cli(self) -> str:
        """The name of Vault's own command line there; OpenBao's of one that has not answered."""
        return cli(self.health.version if self.health else "")

    @property
    def serves(self) -> bool:
        """Whether it can answer a login."""
        return self.health is not None and self.health.initialized and not self.health.sealed


@dataclass(frozen=True, slots=True)
class VaultServer:
    """One Vault as ``stages`` see it, and its nodes in the order they are tried."""

    vault: Vault
    stages: tuple[str, ...]
    nodes: tuple[VaultNode, ...]

    @property
    def node(self) -> VaultNode | None:
        """The first one that can answer a login."""
        return next((node for node in self.nodes if node.serves), None)


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file that a login reads; ``mode`` is None when it is not there.

    ``private``: only its owner is to read it, as nothing else guards what is in it.
    """

    key: str  # of the configuration: secret_id_file
    path: Path
    mode: int | None
    private: bool = True

    @classmethod
    def now(cls, file: LoginFile) -> SecretFile:
        """As it is now."""
        try:
            mode = os.stat(file.path).st_mode & 0o7777  # noqa: PTH116  follows links, as reading does
        except OSError:
            mode = None
        return cls(file.key, file.path, mode, file.private)


@dataclass(frozen=True, slots=True)
class PathRights:
    """A line of the policy that is needed, and what the token may do there."""

    need: Need
    found: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """What it may not do and has to."""
        if ROOT in self.found:
            return ()
        return tuple(name for name in self.need.capabilities if name not in self.found)


@dataclass(frozen=True, slots=True)
class Place:
    """An upstream's secret: where it is read, the engine there, or why that was not told."""

    upstream: str
    source: SecretSource
    path: str  # as the policy names it
    mount: Mount | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a dry fetch gave: names of fields, never values.

    ``ttl`` is of the lease, ``ends_in`` until the credential ends by its lease or by what
    it says of itself, None where nothing says so; both in seconds.
    """

    upstream: str
    wanted: tuple[str, ...]
    fields: tuple[str, ...] = ()
    unfit: str = ""  # why a value cannot go on a request; names the place
    ttl: float = 0.0
    lease_id: str = ""
    renewable: bool = False
    trouble: Trouble | None = None
    left: Trouble | None = None  # why its lease could not be revoked
    unfit_mend: str = ""
    ends_in: float | None = None

    @property
    def lacking(self) -> tuple[str, ...]:
        """The fields that the injections want and the secret does not have."""
        return tuple(name for name in self.wanted if name not in self.fields)


@dataclass(frozen=True, slots=True)
class ExaminedStage:
    """What a stage's login came to. What was not tried is None or empty.

    ``login``: the trouble with it. ``token`` and ``lookup``: what Vault knows of the
    token, or why it did not say. ``uses``: requests that the token is good for, 0
    without a bound. ``role``: the role's name as Vault told it.
    """

    name: str
    auth: AuthMethod
    namespace: str = ""
    version: str = ""  # of the node that was asked
    tried: bool = False
    same_as: str = ""  # the stage whose refused login this one shares
    files: tuple[SecretFile, ...] = ()
    login: Trouble | None = None
    mounted: bool | None = None  # of a login that was denied: whether its method is there
    wrapped: bool = False  # its secret_id can be had once, so that only the wrapping was looked at
    token: TokenLookup | None = None
    lookup: Trouble | None = None
    uses: int = 0
    role: str = ""
    asked: Trouble | None = None  # why the capabilities are not known
    accesses: tuple[PathRights, ...] = ()
    places: tuple[Place, ...] = ()
    fetched: tuple[Fetched, ...] = ()
    audit_header: str = ""  # clear | hashed | absent; "" when it may not be looked at
    left: Trouble | None = None  # why the token could not be revoked
    gone: Trouble | None = None  # Vault went away in the middle
    crash: str = ""  # a bug of ours, and where

    @property
    def logged_in(self) -> bool:
        """Whether there was a token to ask with."""
        return self.tried and not self.login and not self.wrapped and not self.crash

    @property
    def shut_out(self) -> bool:
        """Whether Vault refuses the very token that it has just given."""
        return self.lookup is not None and self.lookup.verdict is Verdict.TOKEN_DEAD

    @property
    def own_token(self) -> bool:
        """Whether the token is doctor's to revoke."""
        return self.auth.owns_token

    @property
    def policies(self) -> tuple[str, ...]:
        """The token's policies, each once."""
        return tuple(dict.fromkeys(self.token.policies)) if self.token else ()

    @property
    def leases(self) -> Iterator[Fetched]:
        """The dry fetches that made a lease."""
        return (fetch for fetch in self.fetched if fetch.lease_id)

    @property
    def cli(self) -> str:
        """The name of Vault's own command line there."""
        return cli(self.version)

    def command(self, verb: str, rest: str) -> str:
        """A line for a shell: Vault's own command, in this stage's namespace."""
        namespace = f" -namespace={self.namespace}" if self.namespace else ""
        return f"{self.cli} {verb}{namespace} {rest}".rstrip()


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate in a file that we show; its ``trouble`` says why it would not be taken.

    ``ends_in``: seconds until it ends.
    """

    certificate: EndingCertificate
    ends_in: float

    @property
    def near(self) -> bool:
        """Whether its end is: what renews it does so well before."""
        return self.certificate.near(self.certificate.not_after - self.ends_in)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything. ``warnings`` are the configuration's own.

    ``unfinished``: stages that were still giving back when that had taken too long.
    """

    servers: tuple[VaultServer, ...]
    stages: tuple[ExaminedStage, ...]
    warnings: tuple[str, ...] = ()
    fetched: bool = False
    interrupted: bool = False
    unfinished: tuple[str, ...] = ()
    shown: tuple[Shown, ...] = ()
