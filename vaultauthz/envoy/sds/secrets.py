"""Which secret a name stands for, and what of it Envoy may have now.

Names and slots are those of ``config.sds_slots``; a slot may be named where there is one only.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from vaultauthz._pb.discovery_pb2 import DataSource, GenericSecret, Secret, TlsCertificate
from vaultauthz.broker import Former
from vaultauthz.config.sds_slots import TLS, has_rules, kept_back, slots, unfit
from vaultauthz.config.values import Upstream
from vaultauthz.core.callers import Callers
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.injection import Mutation
from vaultauthz.core.routing import StageUpstream
from vaultauthz.envoy.sds.subscription import ABSENT, WITHDRAWN, ServedSecret

log = logging.getLogger(__name__)

_MOST_WARNINGS: Final = 1000  # names that are told about once; a client could make up any number


class SharedCredentials(Protocol):
    """Where the credentials are; the engine."""

    def shared(self, stage: str, upstream: str) -> tuple[Upstream, Slot] | None:
        """The upstream's configuration and its slot; None where it has none for all callers."""

    def former(self, stage: str, upstream: str) -> Former | None:
        """Who might use the credential in use, where a reload has asked for another."""


class WithheldError(Exception):
    """The secret is not for SDS; the message says why, for the operator's log."""


@dataclass(frozen=True, slots=True)
class SecretName:
    """A resource's name, taken apart."""

    stage: str
    upstream: str
    slot: str = ""

    @classmethod
    def parse(cls, text: str) -> SecretName:
        """Take ``STAGE/UPSTREAM[/SLOT]`` apart.

        Raises:
            WithheldError: it has another form.
        """
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise WithheldError("is no STAGE/UPSTREAM or STAGE/UPSTREAM/SLOT")
        return cls(*parts)


class Secrets:
    """Looks secrets up by name. Safe for threads."""

    def __init__(self, shared: SharedCredentials, clock: Callable[[], float]) -> None:
        self._shared = shared
        self._clock = clock
        self._key = os.urandom(16)
        self._had: set[StageUpstream] = set()  # had a credential in this process
        self._made: dict[tuple[str, str], ServedSecret] = {}  # the last one of each name and slot
        self._warned: set[str] = set()

    def seen(self, stage: str, upstream: str) -> None:
        """Told whenever a credential came, changed or went."""
        found = self._shared.shared(stage, upstream)
        if found and found[1].credential is not None:
            self._had.add((stage, upstream))

    def reloaded(self) -> None:
        """Told of another configuration: what it says of a name is told anew."""
        self._made.clear()
        self._warned.clear()

    def lookup(self, text: str) -> ServedSecret | None:
        """The secret as it is now; None where there is nothing to say yet.

        One that was withdrawn, or that is not for SDS (any more), is there and empty: Envoy
        then refuses the requests that want it, where it would ignore a removal. Before the
        first credential of this process there is nothing to say, so that an Envoy that comes
        back after our restart keeps what it has.
        """
        try:
            name = SecretName.parse(text)
        except WithheldError as exc:
            self._warn(text, str(exc))
            return ServedSecret(text, ABSENT, None)
        key = (name.stage, name.upstream)
        try:
            upstream, slot = self._find(key)
            at = _slot_of(upstream, name.slot)
        except WithheldError as exc:
            self._warn(text, str(exc))
            return _withdrawn(text, name.slot)
        credential = slot.credential
        if credential is None or not credential.usable(self._clock()):
            return _withdrawn(text, at) if key in self._had else None
        if _was_withheld(self._shared.former(*key), credential, upstream.callers):
            return None
        self._had.add(key)
        return self._served(text, at, credential)

    def _find(self, key: StageUpstream) -> tuple[Upstream, Slot]:
        found = self._shared.shared(*key)
        obstacle = kept_back(found[0]) if found else None
        if found is None or (obstacle and obstacle.key == "per"):
            raise WithheldError("is no upstream in that stage whose lease all callers share")
        if obstacle:
            raise WithheldError(
                "has callers, which are not asked about in SDS mode; have Envoy enforce them "
                "(see `vaultauthz envoy --mode sds`) and say callers_enforced_by: envoy"
            )
        return found

    def _served(self, name: str, slot: str, credential: Credential) -> ServedSecret | None:
        made = self._made.get((name, slot))
        if made and made.credential and made.credential.mutation is credential.mutation:
            return replace(made, credential=credential)  # renewed: another end, and no more
        value = _encoded(name, slot, credential.mutation)
        if value is None:
            return None
        # The same credential may be written another way after a reload.
        digest = hashlib.blake2b(value, digest_size=4, key=self._key).hexdigest()
        made = ServedSecret(name, f"{credential.credential_id}-{digest}", value, credential)
        self._made[name, slot] = made
        return made

    def _warn(self, text: str, why: str) -> None:
        if text in self._warned or len(self._warned) >= _MOST_WARNINGS:
            return
        self._warned.add(text)
        log.warning("sds: Envoy asks for %r, which %s", text[:200], why)


def secret_texts(served: ServedSecret) -> tuple[bytes, ...]:
    """What must not be seen of it."""
    if served.credential is None:
        return ()
    mutation = served.credential.mutation
    keys = (mutation.tls[1],) if mutation.tls else ()
    return tuple(text.encode() for text in (*dict(mutation.headers).values(), *keys))


def _slot_of(upstream: Upstream, named: str) -> str:
    known = slots(upstream)
    if not known:
        forms = " and ".join(unfit(upstream.inject))
        raise WithheldError(f"injects by {forms}, which SDS cannot; use ext_authz")
    if named.lower() in known:
        return named.lower()
    if named:
        raise WithheldError(f"names no slot of it; slots: {', '.join(known)}")
    if len(known) != 1:
        raise WithheldError(f"must name one of its slots: {', '.join(known)}")
    return known[0]


def _was_withheld(former: Former | None, credential: Credential, callers: Callers) -> bool:
    """Whether a reload would hand out what it has not replaced yet, under rules now gone."""
    if former is None or former.credential_id != credential.credential_id:
        return False
    return any(has_rules(before) and before != callers for before in former.callers)


def _encoded(name: str, slot: str, mutation: Mutation) -> bytes | None:
    """None where the credential does not fill the slot: a reload has just named another."""
    if slot == TLS and mutation.tls:
        chain, key = (DataSource(inline_bytes=text.encode()) for text in mutation.tls)
        certificate = TlsCertificate(certificate_chain=chain, private_key=key)
        return Secret(name=name, tls_certificate=certificate).SerializeToString()
    value = dict(mutation.headers).get(slot)
    return None if value is None else _generic(name, value.encode())


def _withdrawn(name: str, slot: str) -> ServedSecret:
    """An empty secret; of certificates there are none, they end by themselves."""
    if slot == TLS:
        return ServedSecret(name, ABSENT, None)
    return ServedSecret(name, WITHDRAWN, _generic(name, b""))


def _generic(name: str, value: bytes) -> bytes:
    secret = Secret(name=name, generic_secret=GenericSecret(secret=DataSource(inline_bytes=value)))
    return secret.SerializeToString()
