"""A policy tried out: a short-lived token that has it and nothing else, gone afterwards."""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from vaultauthz.core.grant import NOT_VAULT
from vaultauthz.core.secret import Secret, is_token
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.probe import Probe

_NAME: Final = "vaultauthz-verify-"
_TTL: Final = "10m"  # whatever happens to us, the token ends by then
_CHILD: Final = "auth/token/create"
_ORPHAN: Final = "auth/token/create-orphan"
_REVOKE: Final = "auth/token/revoke-accessor"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
