"""A stage's login token, a lease like the others, on which the others hang."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

from vaultauthz.core import events
from vaultauthz.core.credential import Login, on_the_way
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease import LeaseMachine, State
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRevoke,
    Issued,
    LoginLost,
    Note,
    Publish,
    Release,
    Renewed,
    Revoked,
    Rotate,
    Tick,
)
from vaultauthz.leases.runner import Answer, Runner, not_made
from vaultauthz.leases.stage import Call, Stage, Token
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

if TYPE_CHECKING:
    from vaultauthz.leases.keeper import Keeper
    from vaultauthz.leases.lease_runner import LeaseRunner

log = logging.getLogger(__name__)

_LOGIN_EVENTS: Final = {
    events.ISSUED: events.LOGIN,
    events.ROTATED: events.LOGIN,
    events.RENEWED: events.TOKEN_RENEWED,
    events.REVOKED: events.TOKEN_REVOKED,
    events.EXPIRED: events.TOKEN_LOST,
    events.LOST: events.TOKEN_LOST,
}

_TELL_EVERY: Final = 60.0  # seconds between lines in the log about the same
_SOON: Final = 60.0  # seconds after a login, in which losing its token is no accident

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
        self._told_uses_at = -inf
        self._lost_soon = 0  # logins in a row whose token was found dead soon after

    def make(self, call: Call, token: Token | None) -> Answer:
        session, sent_at = self.stage.session, self.keeper.clock()
        if isinstance(call, CallIssue):
            grant = session.login()
            self._know(Token(grant.payload, grant.lease_id, grant.login, session))
            if grant.uses:
                self._tell_uses(grant.uses)
            return Issued(grant, sent_at)
        of_call = self._tokens.get(call.lease_id)
        if of_call is None:
            return not_made(call, Failure(Verdict.LEASE_GONE, "the token is gone"))
        if isinstance(call, CallRevoke):
            if not of_call.session.owns_token:
                return not_made(call, Failure(Verdict.LEASE_GONE, "the token is not ours"))
            of_call.session.revoke_token(of_call.secret)
            return Revoked(call.lease_id)
        renewal = of_call.session.renew_token(of_call.secret, call.increment)
        return Renewed(renewal, sent_at)

    def _tell_uses(self, uses: int) -> None:
        now = self.keeper.clock()
        if now - self._told_uses_at < _TELL_EVERY:  # it logs in again and again
            return
        self._told_uses_at = now
        log.warning(
            "%s: the token is good for %d requests only (num_uses); each fetch and renewal is one, "
            "then it dies, and its leases with it: set token_num_uses=0 at the login's role, or "
            "have a token without it written to the token file; vaultauthz doctor shows how",
            self.label,
            uses,
        )

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

    def look_round(self, *, log_in: bool) -> None:
        """Done every second: scopes and files looked at, replaced tokens given back."""
        stage, machine = self.stage, self.machine
        for scope in stage.scopes:
            scope.look_round(self.keeper.clock())
        stage.look_at_files()
        # While a login is out, it may have read the old file: then this waits for it.
        takes_it = machine.held is not None or machine.state is State.EMPTY
        if stage.wants_login and takes_it and log_in:
            stage.wants_login = False
            self.keeper.deliver(self, Rotate())
        for old in machine.retired:
            if not self.in_use(old.lease_id):
                self.keeper.deliver(self, Release(old.lease_id))
        self.forget_tokens()

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

    def adjust(self, before: Session, session: Session) -> None:
        """Make by ``session`` what was made by ``before``: it leads to the same Vault."""
        for accessor, token in self._tokens.items():
            if token.session is before:
                self._tokens[accessor] = replace(token, session=session)
        if self.stage.token:
            self.stage.token = self._tokens[self.stage.token.accessor]

    def takes_along(self, lease: LeaseRunner) -> bool:
        """Whether each lease there, also one on its way, ends when our own tokens are revoked."""
        foreign = [token for token in self._tokens.values() if not token.session.owns_token]
        return not any(
            (lease.calls and token is self.stage.token) or lease.hangs_on(token.login)
            for token in foreign
        )

    def in_use(self, accessor: str) -> bool:
        """Whether a lease, one that still drains, or a call hangs on this token."""
        if self.stage.in_flight[accessor]:
            return True
        token = self._tokens.get(accessor)
        return token is not None and any(r.hangs_on(token.login) for r in self.stage.runners)

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
            self.keeper.deliver(self, LoginLost(after=self._pause(held.since)))

    def _pause(self, since: float) -> float:
        """Seconds to wait before the next login, after a token that was lost so soon.

        None the first time. A token that Vault gives and then knows nothing of, again
        and again, may be bound to an address that we do not have (``token_bound_cidrs``):
        at once would mean a login for each call that fails.
        """
        soon = self.keeper.clock() - since < _SOON
        self._lost_soon = self._lost_soon + 1 if soon else 0
        if self._lost_soon < 2:
            return 0.0
        log.warning(
            "%s: Vault knows the token no more, right after the login, for the %d. time in a row; "
            "is it bound to other addresses (token_bound_cidrs), or does something revoke it?",
            self.label,
            self._lost_soon,
        )
        pace = self.machine.pace
        return pace.retry_in(self._lost_soon, inf, self.stage.draw())

    def publish(self, command: Publish) -> None:
        """Put the token to use; the leases of the one before move over, spread out."""
        grant, before = command.grant, self.stage.token
        token = self.stage.token = self._tokens[grant.lease_id]
        for login in (grant.login, token.login):
            login.ends_at = command.ends_at
            # By what is left, which a renewal near its `max_ttl` has made less than at first.
            login.on_the_way = on_the_way(command.ends_at - self.keeper.clock())
        moved = self.stage.moved and token.session is self.stage.session
        if moved:
            self.stage.moved = False
        if before and before.login is token.login:
            return
        self.stage.todo.notify_all()
        if before:
            before.login.leaving = before.session.owns_token and not moved
        left = before.login.last_at - self.keeper.clock() if before else 0.0
        within = max(0.0, min(_MOVE_MAX, left * _MOVE_SHARE))
        if moved:  # to another Vault, so static secrets too, and their versions begin anew
            for runner in tuple(self.stage.active):
                self.keeper.deliver(runner, Rotate(within, anew=True))
        elif before:
            for runner in self.leases_of(before):
                wish = Rotate(within)
                if runner.scope:
                    runner.scope.rotate(runner, wish)
                else:
                    self.keeper.deliver(runner, wish)

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

    def leave(self, leases: int) -> None:
        """Say that the token is left to lapse, since so many of its leases are still in use."""
        held = self.machine.held
        if held is None:
            return
        reason = f"{leases} of its leases are in use by Envoys; it ends by itself"
        log.warning(
            "%s: its token is not revoked, since %s, in %d s",
            self.label,
            reason,
            held.ends_at - self.keeper.clock(),
        )
        self.keeper.announce(
            events.Event(events.TOKEN_LEFT, self.stage.name, lease_id=held.lease_id, reason=reason)
        )

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
