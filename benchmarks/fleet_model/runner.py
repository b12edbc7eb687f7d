"""The runners of one gateway's machines; see ``gateway`` and ``vaultauthz/leases``."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final

from fleet_model.vault import Answer, VaultToken
from vaultauthz.core.credential import Login
from vaultauthz.core.events import REVOKED
from vaultauthz.core.grant import Grant
from vaultauthz.core.lease import LeaseMachine, State
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Command,
    LoginLost,
    Note,
    Publish,
    Rotate,
    Tick,
    Withdraw,
)

if TYPE_CHECKING:
    from fleet_model.gateway import Gateway

LOOK_ROUND: Final = 1.0  # seconds, as in leases.keeper
MOVE_SHARE: Final = 0.5  # of what the old token has left, as in leases.login_runner
MOVE_MAX: Final = 60.0  # seconds, as there
TICK: Final = Tick()

Call = CallIssue | CallRenew | CallRevoke


class Runner:
    """What the login's and the leases' runners share."""

    def __init__(self, gateway: Gateway, machine: LeaseMachine) -> None:
        self.gateway = gateway
        self.machine = machine
        self.scheduled = inf  # the wake-up that is planned

    def token_for(self, call: Call) -> Token | None:
        """The token to make the call with."""
        return self.gateway.token

    def make(self, call: Call) -> Answer:
        raise NotImplementedError

    def too_late(self, call: Call) -> bool:
        """Whether the lease that a queued call was to renew has ended."""
        return type(call) is CallRenew and self.machine.state is State.LAPSED

    def do(self, command: Command) -> None:
        """Carry one of the machine's commands out."""
        _DO[type(command)](self, command)

    def enqueue(self, call: Call) -> None:
        raise NotImplementedError

    def publish(self, command: Publish) -> None:
        raise NotImplementedError

    def withdraw(self, command: Withdraw) -> None:
        raise NotImplementedError

    def note(self, note: Note) -> None:
        """Nobody listens, but the login's runner."""


class LeaseRunner(Runner):
    """One upstream's credential."""

    def __init__(self, gateway: Gateway, machine: LeaseMachine) -> None:
        super().__init__(gateway, machine)
        self.left_at: float | None = None  # since when there is none, after there was one

    def enqueue(self, call: Call) -> None:
        self.gateway.lease_calls.append((self, call))

    def token_for(self, call: Call) -> Token | None:
        """The token that a lease was taken with, while it lives."""
        if type(call) is CallIssue:
            return self.gateway.token
        assert not isinstance(call, CallIssue)
        login = self.machine.login_of(call.lease_id)
        return self.gateway.login.token_of(login) or self.gateway.token

    def make(self, call: Call) -> Answer:
        vault, token = self.gateway.vault, self.token_for(call)
        assert token is not None
        if type(call) is CallRenew:
            return vault.renew(token.truth, call.lease_id)
        if type(call) is CallRevoke:
            return vault.revoke(token.truth, call.lease_id)
        return vault.issue(token.truth, token.grant.login)

    def hangs_on(self, login: Login) -> bool:
        """Whether what it holds, or a lease that still drains, is of this login."""
        held = self.machine.held
        if held and held.grant.login is login:
            return True
        return any(old.login is login for old in self.machine.retired)

    @property
    def ailing(self) -> bool:
        """Whether it waits for Vault, or for its next try."""
        return self.machine.state is not State.HELD or self.machine.failures > 0

    def publish(self, command: Publish) -> None:
        now, tally = self.gateway.timeline.now, self.gateway.tally
        if self.left_at is not None:
            tally.without += now - self.left_at
            self.left_at = None
        tally.well(self, command.grant.login, now)

    def withdraw(self, command: Withdraw) -> None:
        self.left_at = self.gateway.timeline.now
        self.gateway.tally.over(self.gateway.vault.nature.lease_ttl, self.left_at)


class Token:
    """A login token in use: the gateway's view and Vault's."""

    __slots__ = ("grant", "truth")

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.truth: VaultToken = grant.payload


class LoginRunner(Runner):
    """The gateway's login token, a lease like the others, on which the others hang."""

    def __init__(self, gateway: Gateway, machine: LeaseMachine) -> None:
        super().__init__(gateway, machine)
        self._tokens: dict[str, Token] = {}  # by accessor, until revoked

    def enqueue(self, call: Call) -> None:
        self.gateway.login_calls.append((self, call))

    def make(self, call: Call) -> Answer:
        vault = self.gateway.vault
        if type(call) is CallIssue:
            return vault.login()
        assert not isinstance(call, CallIssue)
        token = self._tokens[call.lease_id].truth
        return vault.revoke_token(token) if type(call) is CallRevoke else vault.renew_token(token)

    def token_of(self, login: Login | None) -> Token | None:
        """The token whose life this is, while it is known."""
        return self._tokens.get(login.accessor) if login else None

    def found_dead(self, token: Token) -> None:
        """A lease's call found that Vault knows this token no more."""
        if self.machine.held:
            token.grant.login.ends_at = -inf
            if self.gateway.token is token:
                self.gateway.deliver(self, LoginLost())

    def publish(self, command: Publish) -> None:
        gateway, grant, before = self.gateway, command.grant, self.gateway.token
        if before and before.grant.lease_id == grant.lease_id:
            before.grant.login.ends_at = command.ends_at
            return
        grant.login.ends_at = command.ends_at
        gateway.token = self._tokens[grant.lease_id] = Token(grant)
        if before is None:
            return
        before.grant.login.leaving = True
        gateway.tally.began_at = gateway.tally.began_at or gateway.timeline.now
        left = before.grant.login.ends_at - gateway.timeline.now
        within = min(MOVE_MAX, left * MOVE_SHARE)
        for runner in gateway.leases_of(before):
            gateway.deliver(runner, Rotate(max(0.0, within)))
        gateway.timeline.at(gateway.timeline.now + LOOK_ROUND, gateway.look_round)

    def withdraw(self, command: Withdraw) -> None:
        token, self.gateway.token = self.gateway.token, None
        if token is None:
            return
        token.grant.login.ends_at = -inf
        for runner in self.gateway.leases_of(token):
            self.gateway.deliver(runner, LoginLost())

    def note(self, note: Note) -> None:
        if note.name == REVOKED:
            token = self._tokens.pop(note.lease_id)
            token.grant.login.ends_at = -inf
            for runner in self.gateway.leases:
                if runner.hangs_on(token.grant.login):
                    self.gateway.deliver(runner, TICK)


_DO: Final[dict[type, Callable[[Any, Any], None]]] = {
    CallIssue: lambda runner, call: runner.enqueue(call),
    CallRenew: lambda runner, call: runner.enqueue(call),
    CallRevoke: lambda runner, call: runner.enqueue(call),
    Publish: lambda runner, command: runner.publish(command),
    Withdraw: lambda runner, command: runner.withdraw(command),
    Note: lambda runner, note: runner.note(note),
}
