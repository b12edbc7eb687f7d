"""One upstream's credential in one stage, at work."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
from dataclasses import replace
from typing import Any, Final, Protocol

from vaultauthz.config.values import PathSecret, Upstream
from vaultauthz.core import events
from vaultauthz.core.credential import Credential, Slot, on_the_way
from vaultauthz.core.grant import Failure, Grant, Verdict
from vaultauthz.core.injection import render, used_fields
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    Answered,
    Call,
    CallRenew,
    CallRevoke,
    FoundDead,
    Issued,
    Note,
    Publish,
    Renewed,
    Revoked,
    Rotate,
    Unusable,
    Withdraw,
)
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.core.lease_state import State
from vaultauthz.core.redaction import where
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import InjectionError, MissingFieldError
from vaultauthz.leases.runner import (
    OUR_FAULT,
    Answer,
    Driver,
    Home,
    Runner,
    StageToken,
    not_made,
)
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.grants import UnreadLeaseError

log = logging.getLogger(__name__)

_ON_ITS_WAY: Final = 1.0  # seconds
_UNREAD: Final = 3600.0  # seconds in which a lease of unknown length is tried to be revoked


class LeaseDriver(Driver, Protocol):
    """Who drives the leases' machines, and shows what they bring."""

    def arrived(self, runner: LeaseRunner) -> None:
        """Its credential has arrived, which the start may have waited for."""

    def changed(self, runner: LeaseRunner) -> None:
        """A shared credential has come, changed or gone."""

    def fingerprint(self, place: str, lease_id: str, fields: dict[str, Secret]) -> str:
        """The ``credential_id``: a keyed hash of these."""


class LeaseScope(Protocol):
    """Whose a lease is that is not shared by all callers. All under the driver's lock."""

    def recount(self, runner: LeaseRunner) -> None:
        """An event was handed to its machine: it may have more leases at Vault, or fewer."""

    def rotate(self, runner: LeaseRunner, wish: Rotate) -> None:
        """Have it replaced, when the scope's bounds allow."""

    def postpones(self, runner: LeaseRunner) -> bool:
        """Whether they do not yet, since that was asked."""

    def published(self, runner: LeaseRunner, credential: Credential) -> None:
        """It has a credential, a new one or one whose end has moved."""

    def failed(self, runner: LeaseRunner) -> None:
        """Vault has given nothing."""


class LeaseRunner(Runner):
    """One upstream's credential in one stage."""

    driver: LeaseDriver

    def __init__(
        self,
        driver: LeaseDriver,
        stage: Home,
        upstream: Upstream,
        machine: LeaseMachine,
        *,
        scope: LeaseScope | None = None,
        caller: str = "",
    ) -> None:
        """``scope``: whose leases it is one of, and ``caller``'s; None: shared by all callers."""
        super().__init__(driver, stage)
        self.machine = machine
        self.upstream = upstream
        self._ask_as_configured()
        self._asked = self._held = upstream  # as it was at the last fetch, and at the last good one
        self.slot = Slot()
        self.scope = scope
        self.caller = caller
        self.came_at = self.used_at = driver.clock()
        self.counted = 0  # of its leases, by the scope
        # The name of what was last published, its end, and when the last request may set out.
        self._last = ("", -math.inf, -math.inf)
        self._not_after = math.inf  # of the certificate in use, in seconds since 1970
        self.label = f"upstream {upstream.name}, stage {stage.name}"

    @property
    def uses(self) -> int:
        """How many checks have taken it."""
        return self.slot.uses

    @property
    def fields(self) -> dict[str, str]:
        return {**super().fields, "upstream": self.upstream.name, "caller": self.caller}

    def row(self, now: float) -> LeaseRow:
        return replace(
            super().row(now),
            upstream=self.upstream.name,
            optional=self.upstream.optional,
            caller=self.caller,
            shared=self.scope is None,
            usable=self.slot.usable(now),
            wanted=self.machine.wanted or bool(self.scope and self.scope.postpones(self)),
            not_after=self._not_after if self._not_after < math.inf else None,
        )

    def token_for(self, call: Call) -> StageToken | None:
        """The token that a lease was taken with, while it lives: it may be another Vault's."""
        return self.stage.tokens.token_for(self.machine, call)

    def make(self, call: Call, token: StageToken | None) -> Answer:
        if token is None:
            return not_made(call, Failure(Verdict.RETRY, "there is no login to Vault"))
        session, sent_at = token.source, self.driver.clock()
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
            grant = grant.fitting(used_fields(upstream.inject))
            mutation = render(upstream.inject, fields, upstream.strip)
        except (MissingFieldError, InjectionError) as exc:
            mend = f"; {exc.mend}" if isinstance(exc, InjectionError) else ""
            extra = {"fields": self.fields}
            log.error("%s: %s%s", self.label, exc, mend, extra=extra)  # noqa: TRY400  the text says it all
            failure = Failure(Verdict.REFUSED, f"the secret does not fit: {exc}")
            return Unusable(replace(grant, payload=None), sent_at, failure)
        except Exception as exc:  # noqa: BLE001
            # The lease is there and must be revoked, whatever we could not do with it.
            log.error("%s: the secret could not be put into place: %s", self.label, where(exc))  # noqa: TRY400
            return Unusable(replace(grant, payload=None), sent_at, OUR_FAULT)
        credential_id = self.driver.fingerprint(self.label, grant.lease_id, fields)
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
    def retry_after(self) -> int:
        """Whole seconds until Vault is asked again, for a client."""
        return max(1, math.ceil(min(self.machine.due - self.driver.clock(), 60.0)))

    def answered(self, answer: Answer) -> None:
        super().answered(answer)
        self.driver.deliver(self.stage.login, Answered(self))
        if self.scope and self.machine.resting:
            self.scope.failed(self)

    def rotate(self, wish: Rotate) -> None:
        """Have it replaced; one of a scope when that allows it."""
        if self.scope:
            self.scope.rotate(self, wish)
        else:
            self.driver.deliver(self, wish)

    def failed(self, call: Call, error: VaultError, token: StageToken | None) -> Answer:
        if isinstance(error, UnreadLeaseError) and token is not None:
            super().failed(call, error, token)  # says so in the log
            lost = Grant(None, _UNREAD, error.lease_id, login=token.login)
            return Unusable(lost, self.driver.clock(), error.failure)
        if error.failure.verdict is Verdict.TOKEN_DEAD:
            self.driver.deliver(self.stage.login, FoundDead(token))
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

    def _ask_as_configured(self) -> None:
        """Have renewals ask for what the upstream's secret says."""
        source = self.upstream.secrets[self.stage.name]
        increment = source.increment if isinstance(source, PathSecret) else None
        self.machine.pace = replace(self.machine.pace, increment=increment)

    def change(self, upstream: Upstream) -> None:
        """Take over a new configuration: what is held is used until its replacement is there."""
        self.upstream = upstream
        self._ask_as_configured()
        self.driver.deliver(self, Rotate(anew=True))

    def do(self, command: Any) -> None:
        if isinstance(command, Publish):
            self._publish(command)
        elif isinstance(command, Withdraw):
            self._withdraw()
        else:
            super().do(command)

    def _publish(self, command: Publish) -> None:
        grant, ends_at = command.grant, command.ends_at
        self._held, self._not_after = self._asked, grant.not_after
        if grant.enforced:
            ends_at = self._last_use(grant, ends_at)
        self.slot.credential = Credential(
            grant.payload, grant.credential_id, grant.lease_id, ends_at, grant.login
        )
        self.driver.arrived(self)
        if self.scope:
            self.scope.published(self, self.slot.credential)
        else:
            self.driver.changed(self)

    def _last_use(self, grant: Grant, ends_at: float) -> float:
        """When the last request may set out with it.

        By what is left, which a renewal near `max_ttl` has made less than it was at first.
        But what is read again and again until an end that stays has not become short-lived.
        """
        named, until, before = self._last
        last = ends_at - on_the_way(ends_at - self.driver.clock())
        # An end that is a moment seems to move by the time that an answer took.
        still = until + _ON_ITS_WAY if grant.ends_in < grant.ttl else until
        if named == grant.credential_id and ends_at <= still:
            return min(last, before)
        self._last = (grant.credential_id, ends_at, last)
        return last

    def _withdraw(self) -> None:
        self.slot.credential, self._not_after = None, math.inf
        if not self.scope:
            self.driver.changed(self)

    def note(self, note: Note) -> None:
        self.driver.announce(
            events.Event(
                note.name,
                self.stage.name,
                self.upstream.name,
                note.lease_id,
                note.credential_id,
                note.request_id,
                note.reason,
                self.caller,
                note.failure,
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
