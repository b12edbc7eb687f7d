"""A machine at work: its commands done, its calls made, its answers handed in."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Final

from vaultauthz.config.values import Upstream
from vaultauthz.core import events
from vaultauthz.core.credential import NO_LOGIN, Credential, Login, Slot
from vaultauthz.core.grant import Failure, Grant, Verdict
from vaultauthz.core.injection import InjectionError, render
from vaultauthz.core.lease import LeaseMachine, State
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Command,
    Failed,
    Issued,
    LoginLost,
    Note,
    NotRevoked,
    Publish,
    Renewed,
    Revoked,
    Rotate,
    Tick,
    Unusable,
    Withdraw,
)
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import MissingFieldError
from vaultauthz.core.trace import where
from vaultauthz.leases.stage import Call, Stage, Token
from vaultauthz.vault.errors import VaultError

if TYPE_CHECKING:
    from vaultauthz.leases.keeper import Keeper
    from vaultauthz.leases.scopes import Scope

log = logging.getLogger(__name__)

_ON_THE_WAY: Final = 0.25  # seconds

_TOO_LATE = Failure(Verdict.LEASE_GONE, "its lease ended before the call could be made")
_OUR_FAULT = Failure(Verdict.RETRY, "an error of our own; see the log")

Answer = Any  # an event for the machine


class Runner:
    """What the login's and the leases' runners share; guarded by the keeper's lock."""

    label: str

    def __init__(self, keeper: Keeper, stage: Stage, machine: LeaseMachine) -> None:
        self.keeper = keeper
        self.stage = stage
        self.machine = machine
        self.calls = 0  # that are out, or wait to be made
        self.scheduled = inf  # the wake-up that stands in the keeper's heap

    def wake(self) -> None:
        """The time has come that the machine wanted to be woken at."""
        self.keeper.deliver(self, Tick())

    def answered(self, answer: Answer) -> None:
        """Hand a call's outcome to the machine."""
        self.keeper.deliver(self, answer)

    def do(self, command: Command) -> None:
        """Carry one of the machine's commands out. Never blocks."""
        if isinstance(command, (CallIssue, CallRenew, CallRevoke)):
            self.stage.enqueue(self, command)
        elif isinstance(command, Publish):
            self.publish(command)
        elif isinstance(command, Withdraw):
            self.withdraw()
        else:
            self.note(command)

    def exchange(self, call: Call, token: Token | None) -> Callable[[], Answer]:
        """The call as a function to run without the lock; it returns the answer."""

        def run() -> Answer:
            try:
                return self.make(call, token)
            except VaultError as exc:
                return self.failed(call, exc, token)
            except Exception as exc:  # noqa: BLE001
                # A bug of ours must not end the worker: the lease would be stuck for ever.
                log.error(  # noqa: TRY400
                    "%s: a call to Vault failed inside vaultauthz: %s", self.label, where(exc)
                )
                return _as_event(call, _OUR_FAULT)

        return run

    def failed(self, call: Call, error: VaultError, token: Token | None) -> Answer:
        """The event for a call that did not work; says so in the log."""
        log.warning(
            "%s: %s%s",
            self.label,
            error.failure.reason,
            f" ({error.detail})" if error.detail else "",
        )
        return _as_event(call, error.failure)

    def too_late(self, call: Call) -> bool:
        """Whether the lease that a queued call was to renew has ended; then that is the answer."""
        if not isinstance(call, CallRenew) or self.machine.state is not State.LAPSED:
            return False
        self.calls -= 1
        self.answered(Failed(_TOO_LATE))
        return True

    def token_for(self, call: Call) -> Token | None:
        """The token to make the call with."""
        return self.stage.token

    def make(self, call: Call, token: Token | None) -> Answer:
        raise NotImplementedError

    def publish(self, command: Publish) -> None:
        raise NotImplementedError

    def withdraw(self) -> None:
        raise NotImplementedError

    def note(self, note: Note) -> None:
        raise NotImplementedError


def _as_event(call: Call, failure: Failure) -> Answer:
    if isinstance(call, CallRevoke):
        return NotRevoked(call.lease_id, failure)
    return Failed(failure)


class LeaseRunner(Runner):
    """One upstream's credential in one stage."""

    def __init__(
        self, keeper: Keeper, stage: Stage, upstream: Upstream, machine: LeaseMachine, slot: Slot
    ) -> None:
        super().__init__(keeper, stage, machine)
        self.upstream = upstream
        self._asked = self._held = upstream  # as it was at the last fetch, and at the last good one
        self.slot = slot
        self.scope: Scope | None = None  # None: shared by all callers
        self.caller = ""  # whose it is, in a scope
        self.used_at = keeper.clock()
        self.gone: Callable[[], None] | None = None  # told when nothing of it is left
        self.label = f"upstream {upstream.name}, stage {stage.name}"

    def token_for(self, call: Call) -> Token | None:
        """The token that a lease was taken with, while it lives: it may be another Vault's."""
        if isinstance(call, CallIssue):
            return self.stage.token
        login = self.machine.login_of(call.lease_id)
        return self.stage.login.token_of(login) or self.stage.token

    def make(self, call: Call, token: Token | None) -> Answer:
        if token is None:
            return _as_event(call, Failure(Verdict.RETRY, "there is no login to Vault"))
        session, sent_at = token.session, self.keeper.clock()
        if isinstance(call, CallRenew):
            renewal = session.renew(token.secret, call.lease_id, call.increment)
            return Renewed(renewal, sent_at)
        if isinstance(call, CallRevoke):
            session.revoke(token.secret, call.lease_id)
            return Revoked(call.lease_id)
        # Once: a reload meanwhile must not put one upstream's secret in another's place.
        upstream = self._asked = self.upstream
        grant = session.fetch(token.secret, token.login, upstream.secrets[self.stage.name])
        return self._rendered(upstream, grant, sent_at)

    def _rendered(self, upstream: Upstream, grant: Grant, sent_at: float) -> Answer:
        """The grant with the ready mutation in place of the secret's fields."""
        fields: dict[str, Secret] = dict(grant.payload)
        try:
            mutation = render(upstream.inject, fields, upstream.strip)
        except (MissingFieldError, InjectionError) as exc:
            log.error("%s: %s", self.label, exc)  # noqa: TRY400  the text says it all
            failure = Failure(Verdict.REFUSED, f"the secret does not fit: {exc}")
            return Unusable(replace(grant, payload=None), sent_at, failure)
        except Exception as exc:  # noqa: BLE001
            # The lease is there and must be revoked, whatever we could not do with it.
            log.error("%s: the secret could not be put into place: %s", self.label, where(exc))  # noqa: TRY400
            return Unusable(replace(grant, payload=None), sent_at, _OUR_FAULT)
        credential_id = self.keeper.fingerprint(self.label, grant.lease_id, fields)
        return Issued(replace(grant, payload=mutation, credential_id=credential_id), sent_at)

    @property
    def resting(self) -> bool:
        """Whether Vault has just given nothing, and is not asked again yet."""
        return self.machine.state is State.EMPTY and self.machine.failures > 0

    @property
    def retry_after(self) -> int:
        """Whole seconds until Vault is asked again, for a client."""
        return max(1, math.ceil(min(self.machine.due - self.keeper.clock(), 60.0)))

    def answered(self, answer: Answer) -> None:
        super().answered(answer)
        self._leave_old_login()
        if self.scope and self.resting:
            self.scope.failed(self)

    def _leave_old_login(self) -> None:
        """Rotate what was fetched with a token that was replaced while the call was out.

        Nobody else would: ``LoginRunner.publish`` moved only what was held then.
        """
        machine, current = self.machine, self.stage.token
        if machine.state is not State.HELD or machine.held is None or current is None:
            return
        login = machine.held.grant.login
        if login in (NO_LOGIN, current.login) or machine.due <= self.keeper.clock():
            return
        self.keeper.deliver(self, Rotate())

    def failed(self, call: Call, error: VaultError, token: Token | None) -> Answer:
        if error.failure.verdict is Verdict.TOKEN_DEAD:
            self.stage.login.found_dead(token)
        if error.failure.verdict is Verdict.SECRET_GONE and self._elsewhere:
            # What is held was not deleted: it came from where a reload has led away from.
            refused = replace(error.failure, verdict=Verdict.REFUSED)
            error = VaultError(refused, error.status, error.detail)
        return super().failed(call, error, token)

    @property
    def _elsewhere(self) -> bool:
        """Whether the last fetch was not from where what is held came from."""
        stage = self.stage.name
        return self._asked.secrets[stage] != self._held.secrets[stage]

    def hangs_on(self, login: Login) -> bool:
        """Whether what it holds, or a lease that still drains, is of this login."""
        held = self.machine.held
        if held and held.grant.login is login:
            return True
        return any(old.login is login for old in self.machine.retired)

    def change(self, upstream: Upstream) -> None:
        """Take over a new configuration: what is held is used until its replacement is there."""
        self.upstream = upstream
        self.keeper.deliver(self, Rotate(anew=True))

    def publish(self, command: Publish) -> None:
        grant, ends_at = command.grant, command.ends_at
        self._held = self._asked
        if grant.lease_id:
            # A request needs time to get there; one that sets out in the lease's last
            # moment would arrive with a dead credential.
            ends_at -= min(_ON_THE_WAY, grant.ttl / 20)
        self.slot.credential = Credential(
            grant.payload, grant.credential_id, grant.lease_id, ends_at, grant.login
        )
        self.keeper.arrived(self)
        if self.scope:
            self.scope.published(self, self.slot.credential)

    def withdraw(self) -> None:
        self.slot.credential = None

    def note(self, note: Note) -> None:
        self.keeper.announce(
            events.Event(
                note.name,
                self.stage.name,
                self.upstream.name,
                note.lease_id,
                note.credential_id,
                note.request_id,
                note.reason,
                self.caller,
            )
        )


_LOGIN_EVENTS: Final = {
    events.ISSUED: events.LOGIN,
    events.ROTATED: events.LOGIN,
    events.RENEWED: events.TOKEN_RENEWED,
    events.REVOKED: events.TOKEN_REVOKED,
    events.EXPIRED: events.TOKEN_LOST,
    events.LOST: events.TOKEN_LOST,
}

# How long the leases of a token may take to move to the next: a share of what is
# left of it, and never more than this.
_MOVE_SHARE: Final = 0.5
_MOVE_MAX: Final = 60.0


class LoginRunner(Runner):
    """The stage's login token, a lease like the others, on which the others hang."""

    def __init__(self, keeper: Keeper, stage: Stage, machine: LeaseMachine) -> None:
        super().__init__(keeper, stage, machine)
        self.label = f"login of stage {stage.name}"
        self._tokens: dict[str, Token] = {}  # by accessor, until `forget_tokens`

    def make(self, call: Call, token: Token | None) -> Answer:
        session, sent_at = self.stage.session, self.keeper.clock()
        if isinstance(call, CallIssue):
            grant = session.login()
            self._know(Token(grant.payload, grant.lease_id, grant.login, session))
            return Issued(grant, sent_at)
        of_call = self._tokens.get(call.lease_id)
        if of_call is None:
            return _as_event(call, Failure(Verdict.LEASE_GONE, "the token is gone"))
        if isinstance(call, CallRevoke):
            if not of_call.session.owns_token:
                return _as_event(call, Failure(Verdict.LEASE_GONE, "the token is not ours"))
            of_call.session.revoke_token(of_call.secret)
            return Revoked(call.lease_id)
        renewal = of_call.session.renew_token(of_call.secret, call.increment)
        return Renewed(renewal, sent_at)

    def failed(self, call: Call, error: VaultError, token: Token | None) -> Answer:
        if error.failure.verdict is Verdict.TOKEN_DEAD:
            gone = Failure(Verdict.LEASE_GONE, error.failure.reason)
            error = VaultError(gone, error.status, error.detail)
        return super().failed(call, error, token)

    def _know(self, token: Token) -> None:
        """Keep a token before the machine decides about it: it may be revoked at once."""
        with self.keeper.lock:
            known = self._tokens.get(token.accessor)
            # A token file can bring the one back that leases hang on, or one that only
            # seemed dead, to a standby that did not know it yet.
            if known is not None and known.login.ends_at != -inf:
                token = replace(token, login=known.login)  # by the session of now
            self._tokens[token.accessor] = token

    def forget_tokens(self) -> None:
        """Drop the tokens that will not be used, renewed or revoked any more."""
        if self.machine.state not in (State.EMPTY, State.HELD):
            return  # one may be on its way, to be used or revoked
        known = {old.lease_id for old in self.machine.retired}
        if self.machine.held:
            known.add(self.machine.held.lease_id)
        for accessor in self._tokens.keys() - known:
            del self._tokens[accessor]

    def token(self, accessor: str) -> Token | None:
        """The token with this accessor, while it is known."""
        return self._tokens.get(accessor)

    def takes_along(self, lease: LeaseRunner) -> bool:
        """Whether each lease there, also one on its way, ends when our own tokens are revoked."""
        foreign = [token for token in self._tokens.values() if not token.session.owns_token]
        return not any(
            (lease.calls and token is self.stage.token) or lease.hangs_on(token.login)
            for token in foreign
        )

    def token_of(self, login: Login | None) -> Token | None:
        """The token whose life this is, while it is known."""
        return next((t for t in self._tokens.values() if t.login is login), None)

    def found_dead(self, token: Token | None) -> None:
        """A lease's call found that Vault knows this token no more."""
        with self.keeper.lock:
            held = self.machine.held
            if token is None or held is None:
                return
            now = self.stage.token
            if now is None or now.login is not token.login:  # it has been replaced meanwhile
                token.login.ends_at = -inf
                return
            held.grant.login.ends_at = -inf
            self.keeper.deliver(self, LoginLost())

    def publish(self, command: Publish) -> None:
        """Put the token to use; the leases of the one before move over, spread out."""
        grant, before = command.grant, self.stage.token
        token = self.stage.token = self._tokens[grant.lease_id]
        grant.login.ends_at = token.login.ends_at = command.ends_at
        moved = self.stage.moved and token.session is self.stage.session
        if moved:
            self.stage.moved = False
        if before and before.login is token.login:
            return
        self.stage.todo.notify_all()
        if before:
            before.login.leaving = before.session.owns_token and not moved
        left = before.login.ends_at - self.keeper.clock() if before else 0.0
        within = max(0.0, min(_MOVE_MAX, left * _MOVE_SHARE))
        if moved:  # to another Vault, so static secrets too, and their versions begin anew
            for runner in tuple(self.stage.active):
                self.keeper.deliver(runner, Rotate(within, anew=True))
        elif before:
            for runner in self.leases_of(before):
                self.keeper.deliver(runner, Rotate(within))

    def leases_of(self, token: Token) -> list[LeaseRunner]:
        """The leases that hang on ``token``, the busiest upstreams first."""
        found = [
            runner
            for runner in self.stage.runners
            if runner.machine.held and runner.machine.held.grant.login is token.login
        ]
        return sorted(found, key=lambda runner: runner.slot.uses, reverse=True)

    def withdraw(self) -> None:
        """The token is out of use, and its leases have died with it."""
        token, self.stage.token = self.stage.token, None
        if token is None or self.machine.state is State.STOPPED:
            return  # at the end it is revoked, and dies when that has worked
        token.login.ends_at = -inf
        for runner in self.leases_of(token):
            self.keeper.deliver(runner, LoginLost())

    def _took_along(self, token: Token | None) -> None:
        """A token has been revoked; what still hung on it has ended with it."""
        if token is None:
            return
        token.login.ends_at = -inf
        for runner in list(self.stage.runners):
            if runner.hangs_on(token.login):
                self.keeper.deliver(runner, Tick())

    def note(self, note: Note) -> None:
        if note.name == events.REVOKED:
            self._took_along(self._tokens.pop(note.lease_id, None))
        self.keeper.announce(
            events.Event(
                _LOGIN_EVENTS.get(note.name, note.name),
                self.stage.name,
                lease_id=note.lease_id,
                vault_request_id=note.request_id,
                reason=note.reason,
            )
        )


def fingerprint(key: bytes, place: str, lease_id: str, fields: dict[str, Secret]) -> str:
    """A name for a credential that tells nothing about it without ``key``.

    The same credential has the same name for as long as the process lives.
    """
    mac = hmac.new(key, digestmod=hashlib.sha256)
    parts = [place, lease_id]
    for name in sorted(fields):
        parts += [name, fields[name].reveal()]
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        mac.update(len(data).to_bytes(8, "big") + data)
    return mac.hexdigest()[:16]
