"""A machine at work: its commands done, its calls made, its answers handed in.

What all share, and the login's; ``core.token`` says what becomes of that and of its leases.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Final, Protocol

from vaultauthz.core.calls import TOO_LATE
from vaultauthz.core.events import Event
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    Call,
    CallIssue,
    CallRenew,
    CallRevoke,
    Failed,
    Issued,
    Move,
    Note,
    NotRevoked,
    Renewed,
    Revoked,
    Tell,
    Tick,
    Warn,
)
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.core.redaction import where
from vaultauthz.core.token import Token, TokenMachine
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

log = logging.getLogger(__name__)

OUR_FAULT: Final = Failure(Verdict.RETRY, "an error of our own; see the log")

Answer = Any  # an event for the machine
StageToken = Token[Session]


class Driver(Protocol):
    """Who drives the machines: gives them the time, hands events in, has commands done.

    ``lock`` guards every machine, runner and queue.
    """

    @property
    def lock(self) -> threading.RLock:
        """Held while anything of a runner is read or changed; never during a call to Vault."""

    @property
    def clock(self) -> Callable[[], float]:
        """Gives the seconds that all times of leases are in."""

    def deliver(self, runner: Runner, event: Any) -> None:
        """Hand an event to the runner's machine and carry out what it says. Never raises."""

    def announce(self, event: Event) -> None:
        """Tell those who listen to what happens to leases. Never raises."""


class Home(Protocol):
    """The stage of a runner."""

    @property
    def name(self) -> str:
        """As it is configured."""

    @property
    def tokens(self) -> TokenMachine[Session, Any]:
        """By which its calls are made."""

    @property
    def login(self) -> Runner:
        """Which runs that machine."""

    def enqueue(self, runner: Runner, call: Call) -> None:
        """Have the call made as soon as a worker is free (and a token is there)."""

    def let_go(self, runner: Runner, drain: float) -> None:
        """End a lease in ``drain`` seconds; calls that wait for it are not made."""


class Runner:
    """What the login's and the leases' runners share; guarded by the driver's lock."""

    label: str
    machine: LeaseMachine

    def __init__(self, driver: Driver, stage: Home) -> None:
        self.driver = driver
        self.stage = stage
        self.calls = 0  # that are out, or wait to be made
        self.scheduled = inf  # the wake-up that stands in the driver's agenda

    def wake(self) -> None:
        """The time has come that the machine wanted to be woken at."""
        self.driver.deliver(self, Tick())

    def answered(self, answer: Answer) -> None:
        """Hand a call's outcome to the machine."""
        self.driver.deliver(self, answer)

    def do(self, command: Any) -> None:
        """Carry one of the machine's commands out. Never blocks."""
        if isinstance(command, (CallIssue, CallRenew, CallRevoke)):
            self.stage.enqueue(self, command)
        elif isinstance(command, Note):
            self.note(command)

    def exchange(self, call: Call, token: StageToken | None) -> Callable[[], Answer]:
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

    @property
    def fields(self) -> dict[str, str]:
        """What a line of the log about it has, for programs."""
        return {"stage": self.stage.name}

    def failed(self, call: Call, error: VaultError, token: StageToken | None) -> Answer:
        """The event for a call that did not work; says so in the log."""
        which, fields, gone = (
            "",
            self.fields,
            error.failure.verdict in (Verdict.LEASE_GONE, Verdict.TOKEN_DEAD),
        )
        if isinstance(call, CallRevoke) and not gone:
            fields = {**fields, "lease_id": call.lease_id}
            which = f"{call.lease_id} could not be revoked, which is tried again: "
        log.warning(
            "%s: %s%s%s",
            self.label,
            which,
            error.failure.reason,
            f" ({error.detail})" if error.detail else "",
            extra={"fields": {**fields, "reason": error.failure.reason}},
        )
        return not_made(call, error.failure)

    def row(self, now: float) -> LeaseRow:
        """As it stands, to be shown."""
        return LeaseRow.of(self.stage.name, self.machine, now)

    def too_late(self, call: Call) -> bool:
        """Whether the lease that a queued call was to renew has ended; then that is the answer."""
        if not self.machine.too_late(call):
            return False
        self.calls -= 1
        self.answered(TOO_LATE)
        return True

    def token_for(self, call: Call) -> StageToken | None:
        """The token to make the call with."""
        return self.stage.tokens.token

    def make(self, call: Call, token: StageToken | None) -> Answer:
        raise NotImplementedError

    def note(self, note: Note) -> None:
        raise NotImplementedError


def not_made(call: Call, failure: Failure) -> Answer:
    """The event for a call that brought nothing."""
    if isinstance(call, CallRevoke):
        return NotRevoked(call.lease_id, failure)
    return Failed(failure)


class LoginRunner(Runner):
    """Makes the login's calls, and hands on to the leases what its machine has to say to them."""

    machine: TokenMachine[Session, Any]

    def __init__(self, driver: Driver, stage: Home, machine: TokenMachine[Session, Any]) -> None:
        super().__init__(driver, stage)
        self.machine = machine
        self.label = f"login of stage {stage.name}"

    def make(self, call: Call, token: StageToken | None) -> Answer:
        session, sent_at = self.machine.source, self.driver.clock()
        if isinstance(call, CallIssue):
            grant = session.login()
            made = Token(grant.payload, grant.lease_id, grant.login, session)
            return Issued(replace(grant, payload=made), sent_at)
        of_call = self.machine.token_by(call.lease_id)
        if of_call is None:
            return not_made(call, Failure(Verdict.LEASE_GONE, "the token is gone"))
        if isinstance(call, CallRevoke):
            if not of_call.source.owns_token:
                return not_made(call, Failure(Verdict.LEASE_GONE, "the token is not ours"))
            of_call.source.revoke_token(of_call.secret)
            return Revoked(call.lease_id)
        renewal = of_call.source.renew_token(of_call.secret, call.increment)
        return Renewed(renewal, sent_at)

    def failed(self, call: Call, error: VaultError, token: StageToken | None) -> Answer:
        if error.failure.verdict is Verdict.TOKEN_DEAD:
            gone = Failure(Verdict.LEASE_GONE, error.failure.reason)
            error = VaultError(gone, error.status, error.detail)
        return super().failed(call, error, token)

    def do(self, command: Any) -> None:
        if isinstance(command, Tell):
            self.driver.deliver(command.lease, command.event)
        elif isinstance(command, Move):
            command.lease.rotate(command.wish)
        elif isinstance(command, Warn):
            log.warning("%s: %s", self.label, command.text, extra={"fields": self.fields})
        else:
            super().do(command)

    def note(self, note: Note) -> None:
        self.driver.announce(
            Event(
                note.name,
                self.stage.name,
                lease_id=note.lease_id,
                vault_request_id=note.request_id,
                reason=note.reason,
                failure=note.failure,
            )
        )
