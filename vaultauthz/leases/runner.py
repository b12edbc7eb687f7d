"""A machine at work: its commands done, its calls made, its answers handed in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final

from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease import LeaseMachine, State
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Command,
    Failed,
    Note,
    NotRevoked,
    Publish,
    Tick,
    Withdraw,
)
from vaultauthz.core.trace import where
from vaultauthz.leases.stage import Call, Stage, Token
from vaultauthz.vault.errors import VaultError

if TYPE_CHECKING:
    from vaultauthz.leases.keeper import Keeper

log = logging.getLogger(__name__)

_TOO_LATE: Final = Failure(Verdict.LEASE_GONE, "its lease ended before the call could be made")
OUR_FAULT: Final = Failure(Verdict.RETRY, "an error of our own; see the log")

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
                return not_made(call, OUR_FAULT)

        return run

    def failed(self, call: Call, error: VaultError, token: Token | None) -> Answer:
        """The event for a call that did not work; says so in the log."""
        log.warning(
            "%s: %s%s",
            self.label,
            error.failure.reason,
            f" ({error.detail})" if error.detail else "",
        )
        return not_made(call, error.failure)

    def failed_before(self, call: Call) -> bool:
        """Whether the last call of this kind, for this credential, did not work."""
        if isinstance(call, CallRevoke):
            return self.machine.retired.has_failed(call.lease_id)
        return self.machine.failures > 0

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


def not_made(call: Call, failure: Failure) -> Answer:
    """The event for a call that brought nothing."""
    if isinstance(call, CallRevoke):
        return NotRevoked(call.lease_id, failure)
    return Failed(failure)
