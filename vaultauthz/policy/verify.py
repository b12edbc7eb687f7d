"""A stage's policy judged by Vault itself: enough for every need, and for nothing beside.

It is tried out by a short-lived token that has it and nothing else, gone afterwards.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Final

from vaultauthz.core.grant import NOT_VAULT
from vaultauthz.core.secret import Secret, is_token
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

_NAME: Final = "vaultauthz-verify-"
_TTL: Final = "10m"  # whatever happens to us, the token ends by then
_CHILD: Final = "auth/token/create"
_ORPHAN: Final = "auth/token/create-orphan"
_REVOKE: Final = "auth/token/revoke-accessor"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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


class TrialError(Exception):
    """The operator's token may not do it, or Vault did not do it; the text says what."""


class Operator:
    """Whoever runs the trial, by a token of theirs."""

    def __init__(self, probe: Probe, token: Secret) -> None:
        self._probe = probe
        self._token = token
        self._create = _CHILD

    def check(self, policy: str) -> None:
        """Find out, before anything is written, that all of it can be done and undone.

        Raises:
            TrialError: the token is not valid, or lacks something; the text names it.
        """
        try:
            facts = self._probe.token(self._token)
            # A child of a token shares its identity, and whatever policies that brings.
            self._create = _ORPHAN if facts.entity_id or facts.type == "batch" else _CHILD
            wants = {
                f"sys/policies/acl/{policy}": ("update", "delete"),
                self._create: ("update", "sudo"),  # sudo: to give a policy that it has not itself
                _REVOKE: ("update",),
            }
            may = self._probe.capabilities(self._token, list(wants))
        except VaultError as exc:
            raise TrialError(f"your token cannot be used: {exc.explained}") from exc
        lacks = [
            f"{' and '.join(lacking)} on {path.replace(policy, _NAME + '*')}"
            for path, wanted in wants.items()
            if (lacking := [one for one in wanted if not {one, "root"} & set(may[path])])
        ]
        if lacks:
            raise TrialError(f"your token may not try a policy out; it lacks {'; '.join(lacks)}")

    def write(self, policy: str, hcl: str) -> None:
        """Write the policy. Raises TrialError."""
        with _plainly("the policy was not written"):
            self._probe.write(self._token, f"sys/policies/acl/{policy}", {"policy": hcl})

    def token_with(self, policy: str) -> tuple[Secret, str]:
        """A token with this policy alone, and its accessor. Raises TrialError."""
        body = {
            "policies": [policy],
            "no_default_policy": True,
            "ttl": _TTL,
            "explicit_max_ttl": _TTL,
            "display_name": "vaultauthz-verify",
        }
        with _plainly("no token was made"):
            auth = self._probe.write(self._token, self._create, body).get("auth")
            if not isinstance(auth, dict) or not is_token(auth.get("client_token")):
                raise VaultError(NOT_VAULT)
        return Secret(auth["client_token"]), str(auth.get("accessor", ""))

    def remove(self, policy: str, accessor: str) -> list[str]:
        """Remove the token and the policy, each whatever becomes of the other: what is left."""
        left = []
        if accessor:
            try:
                self._probe.write(self._token, _REVOKE, {"accessor": accessor})
            except VaultError as exc:
                if exc.status != 400:  # that says it is gone already
                    left.append(
                        f"a token was not revoked ({exc.explained}); it ends within {_TTL}, or by: "
                        f"bao token revoke -accessor {accessor}"
                    )
        try:
            self._probe.delete(self._token, f"sys/policies/acl/{policy}")
        except VaultError as exc:
            left.append(
                f"the policy {policy} was not removed ({exc.explained}): bao policy delete {policy}"
            )
        return left


@contextlib.contextmanager
def trial(
    operator: Operator, hcl: str, left: Callable[[str], object]
) -> Iterator[tuple[Secret, str]]:
    """A token with the policy ``hcl`` and nothing else, and the policy's name, for a while.

    What cannot be removed at the end is told to ``left``.

    Raises:
        TrialError: it cannot be begun.
    """
    policy, accessor = f"{_NAME}{secrets.token_hex(8)}", ""
    operator.check(policy)
    with _signals(_interrupt):
        try:
            operator.write(policy, hcl)
            token, accessor = operator.token_with(policy)
            yield token, policy
        finally:
            with _signals(signal.SIG_IGN):
                for text in operator.remove(policy, accessor):
                    left(text)


@contextlib.contextmanager
def _plainly(what: str) -> Iterator[None]:
    try:
        yield
    except VaultError as exc:
        raise TrialError(f"{what}: {exc.explained}") from exc


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    """Have what asks a program to end taken by ``handler``: it must not end it with the token."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


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
