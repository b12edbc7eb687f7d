"""A stage's policy judged by Vault itself: enough for every need, and for nothing beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from vaultauthz.core.secret import Secret
from vaultauthz.policy.hcl import lease_prefixes
from vaultauthz.policy.needs import (
    CAPABILITIES,
    LEASE_RENEW,
    LOOKUP,
    RENEW,
    REVOKE,
    Need,
)
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.probe import Probe

_SOME: Final = 20  # lease prefixes that are tried, of each of the two paths
_NO_LEASE: Final = "vaultauthz-verify"  # an id that no lease has
_FOREIGN: Final = f"{_NO_LEASE}/of-somebody-else"
# What no stage may do, whatever its secrets are; some of it would undo the rest.
_NEVER: Final = (
    "sys/policies/acl/{policy}",
    "sys/leases/revoke-prefix/sys",
    "sys/mounts",
    "sys/auth",
    "auth/token/create",
)
_DENY: Final = ("deny",)


@dataclass(frozen=True, slots=True)
class Judgement:
    """``wanted`` is ("deny",) for what the policy must not allow."""

    path: str
    wanted: tuple[str, ...]
    held: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be verified, and with what. ``kv_secrets``: their policy paths → themselves."""

    needs: Sequence[Need]
    foreign: Sequence[str]  # the other stages' paths
    kv_secrets: Mapping[str, str]


class Verifier:
    """Asks with the token that has the policy. The methods raise VaultError."""

    def __init__(self, probe: Probe, token: Secret, policy: str) -> None:
        self._probe = probe
        self._token = token
        self._policy = policy

    def findings(self, question: Question) -> list[Judgement]:
        """Each need held or not, each path that is not this stage's denied or not."""
        never = [path.format(policy=self._policy) for path in _NEVER]
        denied = [*question.foreign, *never]
        asked = [need.path for need in question.needs] + denied
        may = self._probe.capabilities(self._token, asked)
        leases = [need for need in question.needs if need.lease_prefixes]
        others = [_of_denied(path, may[path]) for path in denied]
        others += [self._foreign_lease(need) for need in leases]
        # The token's end last of all.
        in_turn = sorted(question.needs, key=lambda need: need.path == REVOKE)
        return [self._of_need(need, may[need.path], question) for need in in_turn] + others

    def _of_need(self, need: Need, may: tuple[str, ...], question: Question) -> Judgement:
        if not set(need.capabilities) <= set(may):
            return Judgement(need.path, need.capabilities, held=False, seen=f"has {', '.join(may)}")
        try:
            seen = self._called(need, question.kv_secrets.get(need.path))
        except VaultError as exc:
            return Judgement(need.path, need.capabilities, held=False, seen=exc.explained)
        return Judgement(need.path, need.capabilities, held=True, seen=seen)

    def _called(self, need: Need, kv_secret: str | None) -> str:
        """Call what does no harm; what was seen."""
        if kv_secret:
            return self._read(need.path, kv_secret)
        if need.path == LOOKUP:
            self._probe.token(self._token)
        elif need.path in (RENEW, REVOKE):
            self._probe.write(self._token, need.path, {})
        elif need.lease_prefixes:
            for prefix in islice(lease_prefixes(need), _SOME):
                self._lease(need.path, f"{prefix}{_NO_LEASE}")
        elif need.path != CAPABILITIES:
            return "allowed; not called"
        return "called"

    def _read(self, path: str, secret: str) -> str:
        """A KV secret's fields, by name only, as vaultauthz reads it: its mount first."""
        mount = self._probe.mount(self._token, secret)
        try:
            data = self._probe.read(self._token, path).get("data")
        except VaultError as exc:
            if exc.status != 404:
                raise
            return "allowed; no secret is there"
        if mount.kv_version == 2:
            data = data.get("data") if isinstance(data, dict) else None
        names = sorted(data) if isinstance(data, dict) else []
        return f"read; fields: {', '.join(names) or 'none'}"

    def _lease(self, path: str, lease_id: str) -> None:
        """Ask for a lease that is not there: all but a denial means that it is allowed."""
        body = {"lease_id": lease_id}
        try:
            self._probe.write(
                self._token, path, body | ({"increment": 60} if path == LEASE_RENEW else {})
            )
        except VaultError as exc:
            if exc.status != 400:
                raise

    def _foreign_lease(self, need: Need) -> Judgement:
        place = f"{need.path} of other leases"
        try:
            self._lease(need.path, _FOREIGN)
        except VaultError as exc:
            if exc.status == 403:
                return Judgement(place, _DENY, held=True, seen="denied")
            raise
        return Judgement(place, _DENY, held=False, seen="allowed")


def foreign_paths(own: Iterable[Need], others: Iterable[Need]) -> Iterator[str]:
    """The secrets' paths of other stages that are not this stage's too."""
    known = {need.path for need in own}
    return (
        path
        for path in dict.fromkeys(need.path for need in others if _is_secret(need))
        if path not in known
    )


def _is_secret(need: Need) -> bool:
    return bool(need.upstreams) and not need.lease_prefixes


def _of_denied(path: str, may: tuple[str, ...]) -> Judgement:
    if may == _DENY:
        return Judgement(path, _DENY, held=True, seen="denied")
    return Judgement(path, _DENY, held=False, seen=f"allows {', '.join(may)}")
