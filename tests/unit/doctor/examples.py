"""A healthy server and a healthy stage, for examples that have one thing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.values import KvSecret, PathSecret, SecretSource, Vault
from vaultauthz.doctor.evidence import (
    Evidence,
    ExaminedStage,
    Fetched,
    PathRights,
    Place,
    VaultNode,
    VaultServer,
)
from vaultauthz.doctor.finding import Finding
from vaultauthz.doctor.rules import judge
from vaultauthz.policy import Need
from vaultauthz.vault.mounts import Mount
from vaultauthz.vault.probe import NodeHealth, TokenLookup

ADDRESS = "https://vault.test:8200"
HEALTH = NodeHealth(True, False, False, "2.7.2", 0.0, "cluster-a", ADDRESS)
NODE = VaultNode(ADDRESS, HEALTH, ahead=0.2)
TOKEN = TokenLookup(
    policies=("default", "gateway"),
    ttl=3600.0,
    creation_ttl=3600.0,
    explicit_max_ttl=0.0,
    renewable=True,
    type="service",
    accessor="accessor-1",
    period=0.0,
    entity_id="",
    path="auth/approle/login",
)
DATABASE = Mount("database", "database")
KV2 = Mount("secret", "kv", 2)
PAY = Place("pay", PathSecret("database/creds/pay"), "database/creds/pay", DATABASE)
GEO = Place("geo", KvSecret("secret/geo"), "secret/data/geo", KV2)
LEASE = Fetched("pay", ("username",), ("username", "password"), "", 3600.0, "pay/1", True)
STATIC = Fetched("geo", ("key",), ("key",), ttl=3600.0)
TOKEN_FILE = TokenFile(Path("/run/token"))


def access(place: Place, *found: str) -> PathRights:
    """The need of ``place``, and what the token may do there."""
    need = Need(place.path, ("read",), (place.upstream,), f"holds the secret of {place.upstream}")
    return PathRights(need, found)


GOOD = ExaminedStage(
    "prod",
    AppRole(role_id="gateway"),
    version="2.7.2",
    tried=True,
    token=TOKEN,
    role="gw",
    accesses=(access(PAY, "read"), access(GEO, "read")),
    places=(PAY, GEO),
    fetched=(LEASE, STATIC),
)


def stage(**changes: Any) -> ExaminedStage:
    """The good stage with this changed."""
    return replace(GOOD, **changes)


def token(**changes: Any) -> ExaminedStage:
    """The good stage with this changed in its token."""
    return stage(token=replace(TOKEN, **changes))


def with_source(
    source: SecretSource, mount: Mount | None, path: str = "x", **more: Any
) -> ExaminedStage:
    """A stage with one upstream, ``pay``, which has this source."""
    place = Place("pay", source, path, mount, **more)
    return stage(places=(place,), accesses=(access(place, "read"),), fetched=())


def fetched(**changes: Any) -> ExaminedStage:
    """The good stage with this changed in its lease."""
    return stage(fetched=(replace(LEASE, **changes), STATIC))


def server(*nodes: VaultNode, **changes: Any) -> VaultServer:
    """A server with these nodes."""
    return VaultServer(replace(Vault(ADDRESS), **changes), ("prod",), nodes)


def judged(
    *given: ExaminedStage | VaultServer, warnings: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """What is found wrong with these, beside a good server and no stage."""
    servers = tuple(one for one in given if isinstance(one, VaultServer)) or (server(NODE),)
    stages = tuple(one for one in given if isinstance(one, ExaminedStage))
    return judge(Evidence(servers, stages, tuple(warnings)))


ENDLESS = inf
