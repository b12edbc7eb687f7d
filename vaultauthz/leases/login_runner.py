"""A stage's login token at work; ``core.token`` says what becomes of it and of the leases."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from vaultauthz.core import events
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease_messages import (
    Call,
    CallIssue,
    CallRevoke,
    Issued,
    Move,
    Note,
    Renewed,
    Revoked,
    Tell,
    Warn,
)
from vaultauthz.core.token import Token, TokenMachine
from vaultauthz.leases.lease_runner import LeaseRunner
from vaultauthz.leases.runner import Answer, Driver, Home, Runner, StageToken, not_made
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

log = logging.getLogger(__name__)


class LoginRunner(Runner):
    """Makes the login's calls, and hands on to the leases what its machine has to say to them."""

    machine: TokenMachine[Session, LeaseRunner]

    def __init__(
        self, driver: Driver, stage: Home, machine: TokenMachine[Session, LeaseRunner]
    ) -> None:
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
            log.warning("%s: %s", self.label, command.text)
        else:
            super().do(command)

    def note(self, note: Note) -> None:
        self.driver.announce(
            events.Event(
                note.name,
                self.stage.name,
                lease_id=note.lease_id,
                vault_request_id=note.request_id,
                reason=note.reason,
            )
        )
