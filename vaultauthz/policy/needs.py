"""What a stage's token must be allowed, from its configuration alone.

The calls are those of ``vaultauthz.vault.session``. Two of them need no line:
a login is made without a token, and where a KV engine is mounted
(``sys/internal/ui/mounts``) is told to whoever may do anything below that mount.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from vaultauthz.config.values import Config, KvSecret, PathSecret, SecretSource
from vaultauthz.vault import ends
from vaultauthz.vault.mounts import Mount, Mounts

LOOKUP: Final = "auth/token/lookup-self"
RENEW: Final = "auth/token/renew-self"
REVOKE: Final = "auth/token/revoke-self"
LEASE_RENEW: Final = "sys/leases/renew"
LEASE_REVOKE: Final = "sys/leases/revoke"
CAPABILITIES: Final = "sys/capabilities-self"

# The engines' own names for what is no lease, or one that cannot be renewed.
_STATIC: Final = ("static-creds", "static-cred")
_CERTIFICATES: Final = ("issue", "sign", "sign-verbatim")


class Kind(Enum):
    """What is behind a path, as far as its name tells; the text says what it does."""

    KV = "holds the secret of"
    STATIC = "holds the login, which Vault rotates, of"
    CERTIFICATE = "issues the certificate of"
    CODE = "makes the TOTP code of"
    LEASE = "issues the login of"


@dataclass(frozen=True, slots=True)
class Need:
    """One line of a policy.

    ``path`` is as ``sys/capabilities-self`` takes it: without ``v1/``, no slash at its
    ends. ``upstreams`` is () for what the login itself needs. ``lease_prefixes``, for
    renewing and revoking leases: what a ``lease_id`` may begin with. What is not
    ``required`` serves only some of vaultauthz' work, as ``why`` says.
    """

    path: str
    capabilities: tuple[str, ...]
    upstreams: tuple[str, ...]
    why: str
    lease_prefixes: tuple[str, ...] = ()
    required: bool = True


@dataclass(slots=True)
class _GatheredPath:
    """A path while its upstreams are being gathered."""

    kind: Kind
    capabilities: dict[str, None]  # a set that keeps its order
    upstreams: list[str]


def needs(config: Config, stage: str, mounts: Mounts) -> tuple[Need, ...]:
    """Everything that ``stage`` asks of Vault, each path once.

    A KV path whose engine ``mounts`` lacks is taken for version 2, its first segment for
    the mount.
    """
    places = _places(config, stage, mounts)
    return (
        *(
            Need(
                path,
                tuple(place.capabilities),
                tuple(place.upstreams),
                f"{place.kind.value} {_some(place.upstreams)}",
            )
            for path, place in places.items()
        ),
        *_of_codes(places),
        *_of_leases(places),
        *_of_token(own=config.stages[stage].auth.owns_token),
    )


def kv_path(path: str, mounts: Mounts) -> str:
    """Where a KV secret is read over HTTP."""
    return (mounts.kv(path) or Mount.assumed(path)).kv_path(path)


def _places(config: Config, stage: str, mounts: Mounts) -> dict[str, _GatheredPath]:
    places: dict[str, _GatheredPath] = {}
    for upstream in config.upstreams.values():
        if stage not in upstream.stages:
            continue
        source = upstream.secrets[stage]
        path, kind = _place_of(source, mounts)
        place = places.setdefault(path, _GatheredPath(kind, {}, []))
        writes = isinstance(source, PathSecret) and source.write
        place.capabilities["update" if writes else "read"] = None
        place.upstreams.append(upstream.name)
    return places


def _place_of(source: SecretSource, mounts: Mounts) -> tuple[str, Kind]:
    if isinstance(source, KvSecret):
        return kv_path(source.path, mounts), Kind.KV
    path = source.path
    before_name = path.split("/")[1:-1][-1:]  # the engine's word, after the mount
    if before_name and before_name[0] in _STATIC and not source.write:
        return path, Kind.STATIC
    if before_name and before_name[0] in _CERTIFICATES and source.write:
        return path, Kind.CERTIFICATE
    if ends.key_path(path) and not source.write:
        return path, Kind.CODE
    return path, Kind.LEASE


def _of_codes(places: Mapping[str, _GatheredPath]) -> tuple[Need, ...]:
    """Where a code's key is described; no secret is shown there."""
    return tuple(
        Need(
            ends.key_path(path),
            ("read",),
            tuple(place.upstreams),
            f"tells how long a TOTP code of {_some(place.upstreams)} is good",
        )
        for path, place in places.items()
        if place.kind is Kind.CODE
    )


def _of_leases(places: Mapping[str, _GatheredPath]) -> tuple[Need, ...]:
    """Certificates may be leases (``generate_lease``), which can be revoked, not renewed."""
    by_kind = {
        kind: {path: place for path, place in places.items() if place.kind is kind}
        for kind in (Kind.LEASE, Kind.CERTIFICATE)
    }
    leases, certificates = by_kind[Kind.LEASE], by_kind[Kind.CERTIFICATE]
    found = []
    if leases:
        found.append(_of_lease(LEASE_RENEW, leases, "renews its leases", required=True))
    if leases or certificates:
        whose = {**leases, **certificates}
        why = "revokes its leases when they are replaced"
        found.append(_of_lease(LEASE_REVOKE, whose, why, required=bool(leases)))
    return tuple(found)


def _of_lease(path: str, places: Mapping[str, _GatheredPath], why: str, *, required: bool) -> Need:
    upstreams = dict.fromkeys(name for place in places.values() for name in place.upstreams)
    prefixes = tuple(f"{place}/" for place in places)
    return Need(path, ("update",), tuple(upstreams), why, prefixes, required)


def _of_token(*, own: bool) -> tuple[Need, ...]:
    lookup = Need(LOOKUP, ("read",), (), "tells a dead token from a policy that says no")
    ask = Need(CAPABILITIES, ("update",), (), "lets vaultauthz doctor ask", required=False)
    if not own:
        return (lookup, ask)
    return (
        lookup,
        Need(RENEW, ("update",), (), "keeps the login token alive"),
        Need(REVOKE, ("update",), (), "ends the login token, and its leases, at the stop"),
        ask,
    )


def _some(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 2 else " and ".join(names)
