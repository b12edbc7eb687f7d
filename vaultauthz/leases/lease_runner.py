"""One upstream's credential in one stage, at work."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vaultauthz.config.values import PathSecret, Upstream
from vaultauthz.core import events
from vaultauthz.core.credential import NO_LOGIN, Credential, Login, Slot, on_the_way
from vaultauthz.core.fit import fitting
from vaultauthz.core.grant import Failure, Grant, Verdict
from vaultauthz.core.injection import InjectionError, render
from vaultauthz.core.lease import LeaseMachine, State
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Issued,
    Note,
    Publish,
    Renewed,
    Revoked,
    Rotate,
    Unusable,
)
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import MissingFieldError
from vaultauthz.core.trace import where
from vaultauthz.leases.runner import OUR_FAULT, Answer, Runner, not_made
from vaultauthz.leases.stage import Call, Stage, Token
from vaultauthz.vault.answers import UnreadLeaseError
from vaultauthz.vault.errors import VaultError

if TYPE_CHECKING:
    from vaultauthz.leases.keeper import Keeper
    from vaultauthz.leases.scopes import Scope

log = logging.getLogger(__name__)


_ON_ITS_WAY: Final = 1.0  # seconds
_UNREAD: Final = 3600.0  # seconds in which a lease of unknown length is tried to be revoked


class LeaseRunner(Runner):
    """One upstream's credential in one stage."""

    def __init__(
        self, keeper: Keeper, stage: Stage, upstream: Upstream, machine: LeaseMachine, slot: Slot
    ) -> None:
        super().__init__(keeper, stage, machine)
        self.upstream = upstream
        self._ask_as_configured()
        self._asked = self._held = upstream  # as it was at the last fetch, and at the last good one
        self.slot = slot
        self.scope: Scope | None = None  # None: shared by all callers
        self.caller = ""  # whose it is, in a scope
        self.came_at = self.used_at = keeper.clock()
        self.counted = 0  # of its leases, by the scope
        # The name of what was last published, its end, and when the last request may set out.
        self._last = ("", -math.inf, -math.inf)
        self.label = f"upstream {upstream.name}, stage {stage.name}"

    def token_for(self, call: Call) -> Token | None:
        """The token that a lease was taken with, while it lives: it may be another Vault's."""
        if isinstance(call, CallIssue):
            return self.stage.token
        login = self.machine.login_of(call.lease_id)
        return self.stage.login.token_of(login) or self.stage.token

    def make(self, call: Call, token: Token | None) -> Answer:
        if token is None:
            return not_made(call, Failure(Verdict.RETRY, "there is no login to Vault"))
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
        fields: dict[str, Secret] = grant.payload
        try:
            grant = fitting(upstream.inject, grant)
            mutation = render(upstream.inject, fields, upstream.strip)
        except (MissingFieldError, InjectionError) as exc:
            mend = f"; {exc.mend}" if isinstance(exc, InjectionError) else ""
            log.error("%s: %s%s", self.label, exc, mend)  # noqa: TRY400  the text says it all
            failure = Failure(Verdict.REFUSED, f"the secret does not fit: {exc}")
            return Unusable(replace(grant, payload=None), sent_at, failure)
        except Exception as exc:  # noqa: BLE001
            # The lease is there and must be revoked, whatever we could not do with it.
            log.error("%s: the secret could not be put into place: %s", self.label, where(exc))  # noqa: TRY400
            return Unusable(replace(grant, payload=None), sent_at, OUR_FAULT)
        credential_id = self.keeper.fingerprint(self.label, grant.lease_id, fields)
        return Issued(replace(grant, payload=mutation, credential_id=credential_id), sent_at)

    @property
    def alive(self) -> int:
        """How many leases it has at Vault, or may have by the calls that are out."""
        retired = self.machine.retired
        state = self.machine.state
        if state is State.STOPPED:  # a call that is no revocation may still bring one
            return len(retired) + (self.calls > sum(old.in_call for old in retired))
        return len(retired) + 1 + (state is State.REPLACING)

    @property
    def calling(self) -> bool:
        """Whether a call for the lease that is in use, or for its successor, is out or waits."""
        return self.machine.state in (State.ISSUING, State.RENEWING, State.REPLACING)

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
        if isinstance(error, UnreadLeaseError) and token is not None:
            super().failed(call, error, token)  # says so in the log
            lost = Grant(None, _UNREAD, error.lease_id, login=token.login)
            return Unusable(lost, self.keeper.clock(), error.failure)
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

    def _ask_as_configured(self) -> None:
        """Have renewals ask for what the upstream's secret says."""
        source = self.upstream.secrets[self.stage.name]
        increment = source.increment if isinstance(source, PathSecret) else None
        self.machine.pace = replace(self.machine.pace, increment=increment)

    def change(self, upstream: Upstream) -> None:
        """Take over a new configuration: what is held is used until its replacement is there."""
        self.upstream = upstream
        self._ask_as_configured()
        self.keeper.deliver(self, Rotate(anew=True))

    def publish(self, command: Publish) -> None:
        grant, ends_at = command.grant, command.ends_at
        self._held = self._asked
        if grant.enforced:
            ends_at = self._last_use(grant, ends_at)
        self.slot.credential = Credential(
            grant.payload, grant.credential_id, grant.lease_id, ends_at, grant.login
        )
        self.keeper.arrived(self)
        if self.scope:
            self.scope.published(self, self.slot.credential)
        else:
            self.keeper.changed(self)

    def _last_use(self, grant: Grant, ends_at: float) -> float:
        """When the last request may set out with it.

        By what is left, which a renewal near `max_ttl` has made less than it was at first.
        But what is read again and again until an end that stays has not become short-lived.
        """
        named, until, before = self._last
        last = ends_at - on_the_way(ends_at - self.keeper.clock())
        # An end that is a moment seems to move by the time that an answer took.
        still = until + _ON_ITS_WAY if grant.ends_in < grant.ttl else until
        if named == grant.credential_id and ends_at <= still:
            return min(last, before)
        self._last = (grant.credential_id, ends_at, last)
        return last

    def withdraw(self) -> None:
        self.slot.credential = None
        if not self.scope:
            self.keeper.changed(self)

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
