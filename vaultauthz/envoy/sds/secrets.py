"""Which secret a name stands for, and what of it Envoy may have now.

A name is ``STAGE/UPSTREAM``, or ``STAGE/UPSTREAM/SLOT`` where the upstream fills more than
one; the slot is a header's name in lower case, or ``tls``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from vaultauthz._pb.discovery_pb2 import DataSource, GenericSecret, Secret, TlsCertificate
from vaultauthz.config.values import Upstream
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.injection import Basic, Bearer, Header
from vaultauthz.envoy.sds.subscription import Served

log = logging.getLogger(__name__)

TLS: Final = "tls"
# Envoy's credential injector refuses a request for which the secret is empty.
_WITHDRAWN: Final = "withdrawn"
_MOST_WARNINGS: Final = 1000  # names that are told about once; a client could make up any number


class Shared(Protocol):
    """Where the credentials are; the engine."""

    def shared(self, stage: str, upstream: str) -> tuple[Upstream, Slot] | None:
        """The upstream's configuration and its slot; None where it has none for all callers."""


class WithheldError(Exception):
    """The secret is not for SDS; the message says why, for the operator's log."""


@dataclass(frozen=True, slots=True)
class Name:
    """A resource's name, taken apart."""

    stage: str
    upstream: str
    slot: str = ""

    @classmethod
    def parse(cls, text: str) -> Name:
        """Take ``STAGE/UPSTREAM[/SLOT]`` apart.

        Raises:
            WithheldError: it has another form.
        """
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise WithheldError("is no STAGE/UPSTREAM or STAGE/UPSTREAM/SLOT")
        return cls(*parts)


class Secrets:
    """Looks secrets up by name. ``lookup`` is safe for threads."""

    def __init__(self, shared: Shared, clock: Callable[[], float]) -> None:
        self._shared = shared
        self._clock = clock
        self._had: set[tuple[str, str]] = set()  # had a credential in this process
        self._warned: set[str] = set()

    def seen(self, stage: str, upstream: str) -> None:
        """Told whenever a credential came, changed or went."""
        found = self._shared.shared(stage, upstream)
        if found and found[1].credential is not None:
            self._had.add((stage, upstream))

    def lookup(self, text: str) -> Served | None:
        """The secret as it is now; None for one that is not to be had, or not yet.

        One that was withdrawn is there and empty: Envoy then refuses the requests that
        want it. Before the first credential of this process there is nothing, so that an
        Envoy that comes back after our restart keeps what it has.
        """
        try:
            name = Name.parse(text)
            upstream, slot = self._find(name)
            at = _slot_of(upstream, name.slot)
        except WithheldError as exc:
            self._warn(text, str(exc))
            return None
        credential = slot.credential
        if credential is None or not credential.usable(self._clock()):
            if (name.stage, name.upstream) not in self._had:
                return None
            return Served(text, _WITHDRAWN, _empty(text, at))
        self._had.add((name.stage, name.upstream))
        return Served(text, credential.credential_id, _encoded(text, at, credential))

    def credential_id(self, text: str) -> str:
        """The version of the credential that ``text`` stands for now; "" for none."""
        served = self.lookup(text)
        return served.version if served and served.version != _WITHDRAWN else ""

    def _find(self, name: Name) -> tuple[Upstream, Slot]:
        found = self._shared.shared(name.stage, name.upstream)
        if found is None:
            raise WithheldError("is no upstream in that stage whose lease all callers share")
        upstream = found[0]
        rules = upstream.callers.allow is not None or upstream.callers.deny
        if rules and upstream.callers_enforced_by != "envoy":
            raise WithheldError(
                "has callers, which are not asked about in SDS mode; have Envoy enforce them "
                "(see `vaultauthz envoy --mode sds`) and say callers_enforced_by: envoy"
            )
        return found

    def _warn(self, text: str, why: str) -> None:
        if text in self._warned or len(self._warned) >= _MOST_WARNINGS:
            return
        self._warned.add(text)
        log.warning("sds: Envoy asks for %r, which %s", text[:200], why)


def slots(upstream: Upstream) -> tuple[str, ...]:
    """The slots of the upstream that SDS can fill."""
    found = []
    for injection in upstream.inject:
        if isinstance(injection, Header):
            found.append(injection.name)
        elif isinstance(injection, (Bearer, Basic)):
            found.append("authorization")
    return tuple(found)


def _slot_of(upstream: Upstream, wanted: str) -> str:
    known = slots(upstream)
    if wanted in known:
        return wanted
    if wanted:
        raise WithheldError(f"names no slot of it; slots: {', '.join(known) or 'none'}")
    if len(known) != 1:
        raise WithheldError(f"must name one of its slots: {', '.join(known) or 'it has none'}")
    return known[0]


def _encoded(name: str, slot: str, credential: Credential) -> bytes:
    value = dict(credential.mutation.headers)[slot]
    return _generic(name, value.encode())


def _empty(name: str, slot: str) -> bytes:
    return _generic(name, b"")


def _generic(name: str, value: bytes) -> bytes:
    secret = Secret(name=name, generic_secret=GenericSecret(secret=DataSource(inline_bytes=value)))
    return secret.SerializeToString()
