"""How a lease machine stands: what it holds and what it has let go of; and all leases of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import Generic, Protocol, TypeVar

from vaultauthz.core import events
from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict
from vaultauthz.core.lease_messages import Call, CallRenew, CallRevoke, Note
from vaultauthz.core.pace import Pace


class State(Enum):
    """Where a machine stands; see the table in lease.py."""

    EMPTY = "empty"
    ISSUING = "issuing"
    HELD = "held"
    RENEWING = "renewing"
    REPLACING = "replacing"
    LAPSED = "lapsed"
    STOPPED = "stopped"


@dataclass(slots=True)
class Old:
    """A lease out of use: revoked at ``revoke_at``, dead by itself at ``ends_at``."""

    lease_id: str
    ends_at: float
    revoke_at: float
    ttl: float
    login: Login
    credential_id: str = ""
    at_once: bool = False  # by a call of its own, although its token is to be revoked
    failures: int = 0
    last_failure: str = ""  # why it could not be revoked; a phrase of ours
    in_call: bool = False

    def revoked(self, reason: str) -> Note:
        """What the audit log is told of a lease that ended without a call of its own."""
        return Note(events.REVOKED, self.lease_id, self.credential_id, reason=reason)

    def obituary(self, now: float, *, stopped: bool) -> Note:
        """What the audit log is told of a lease that ended before its revocation."""
        if now >= self.ends_at:
            why = "its time is over"
            return Note(events.EXPIRED, self.lease_id, self.credential_id, reason=why)
        if stopped:
            return self.revoked("with its token")
        why = "its login token is gone"
        return Note(events.LOST, self.lease_id, self.credential_id, reason=why)


@dataclass(frozen=True, slots=True)
class Held:
    """The credential in use and what is known of its time."""

    grant: Grant
    ttl: float  # as last granted; infinity for none
    ends_at: float
    renewable: bool
    since: float  # when this credential came into use
    rotates_at: float = inf  # when Vault itself is to change it
    last_at: float = inf  # when it ends by what it says of itself, whatever its lease does

    @property
    def lease_id(self) -> str:
        return self.grant.lease_id

    @classmethod
    def of(cls, grant: Grant, sent_at: float, now: float, before: Held | None, pace: Pace) -> Held:
        """What a grant that is there at ``now`` comes to; it may be the same as ``before``."""
        last_at, since = sent_at + grant.ends_in, now
        ends_at = min(sent_at + grant.ttl, last_at)
        rotates_at = inf if grant.rotates_in is None else sent_at + grant.rotates_in
        if before and before.grant.same_as(grant):
            # What hangs on this login keeps pointing at it.
            named, login = before.grant.credential_id, before.grant.login
            grant, since = replace(grant, credential_id=named, login=login), before.since
            # A wall clock that was set back meanwhile prolongs nothing.
            last_at = min(last_at, before.last_at)
            ends_at = min(ends_at, last_at)
            if before.rotates_at <= sent_at:
                # Vault is late with its rotation. The ttl may have been set anew already
                # (VSO 1002), so the old one is only known to hold for a moment.
                rotates_at, ends_at = before.rotates_at, sent_at + pace.rotation_grace
        renewable = grant.renewable and grant.ttl < inf and sent_at + grant.ttl < last_at
        return cls(grant, ends_at - sent_at, ends_at, renewable, since, rotates_at, last_at)

    def renewed(self, renewal: Renewal, sent_at: float, pace: Pace) -> Held:
        """The same after a renewal, which may say that it was the last."""
        ends_at = sent_at + renewal.ttl
        lasting = renewal.renewable and not pace.shorter(renewal.ttl, pace.asked(self.grant.ttl))
        lasting, ends_at = lasting and ends_at < self.last_at, min(ends_at, self.last_at)
        return replace(self, ttl=ends_at - sent_at, ends_at=ends_at, renewable=lasting)

    def call_after_renewal(self, pace: Pace, sent_at: float, jitter: float) -> float:
        """When to ask Vault again after such a renewal: for the next, or for a replacement."""
        if self.renewable:
            return sent_at + pace.renew_in(self.ttl, jitter)
        first_ttl = min(pace.asked(self.grant.ttl), self.grant.ttl)
        return sent_at + pace.replace_in(self.ttl, first_ttl, jitter)

    def next_call(self, pace: Pace, sent_at: float, jitter: float) -> float:
        """When to ask Vault about it again, after an answer to what was sent at ``sent_at``."""
        if self.rotates_at < inf:
            return max(self.rotates_at, sent_at + pace.poll_in(jitter))
        if self.grant.read_again is not None:
            read_at = sent_at + pace.read_in(self.grant.read_again, jitter)
            return min(read_at, self._before(self.last_at, pace, sent_at, jitter))
        if not self.lease_id:
            return self._before(self.ends_at, pace, sent_at, jitter)
        return sent_at + pace.renew_in(self.ttl, jitter)

    @staticmethod
    def _before(end: float, pace: Pace, sent_at: float, jitter: float) -> float:
        """In good time for the end.

        What Vault gives may be the same again, and the closer the end, the shorter the
        share of what is left: never closer together than reads of a late rotation.
        """
        left = max(0.0, end - sent_at)
        return sent_at + max(pace.renew_in(left, jitter), pace.poll_in(jitter))

    def old(self, revoke_at: float) -> Old:
        """This lease out of use, to be revoked then."""
        login = self.grant.login
        named = self.grant.credential_id
        return Old(self.lease_id, self.ends_at, revoke_at, self.ttl, login, named)


class Retired:
    """The old leases of one credential.

    A revocation that fails is tried again until the lease would have ended by
    itself. Never two calls for one lease at the same time.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._old: dict[str, Old] = {}

    def __len__(self) -> int:
        return len(self._old)

    def __iter__(self) -> Iterator[Old]:
        return iter(tuple(self._old.values()))

    def add(self, old: Old) -> None:
        """Take a lease that is not used for new requests any more."""
        self._old[old.lease_id] = old

    def hurry(self, now: float, lease_id: str | None = None) -> None:
        """Revoke now what was to be revoked later: one lease, or all of them."""
        for old in self:
            if lease_id in (None, old.lease_id) and not old.failures:
                old.revoke_at = min(old.revoke_at, now)
                old.at_once = True

    def has_failed(self, lease_id: str) -> bool:
        """Whether a revocation of it has been tried in vain."""
        old = self._old.get(lease_id)
        return old is not None and old.failures > 0

    def forget(self, lease_id: str) -> Old | None:
        """The lease is gone; what was known of it."""
        return self._old.pop(lease_id, None)

    def failed(self, lease_id: str, failure: Failure, now: float, jitter: float) -> Old | None:
        """A revocation did not work; plan the next, unless the lease is gone: then None."""
        old = self._old.get(lease_id)
        if old is None:
            return None
        if failure.verdict in (Verdict.LEASE_GONE, Verdict.TOKEN_DEAD):
            self.forget(lease_id)
            return None
        old.failures += 1
        old.last_failure = failure.reason
        old.in_call = False
        wait = self._pace.retry_in(old.failures, old.ttl / 3, jitter)
        old.revoke_at = now + max(wait, min(failure.retry_after, self._pace.retry_after_cap))
        return old

    def overdue(self, now: float) -> list[Old]:
        """Those that Vault has, or may have, although they were to be revoked by now."""
        return [old for old in self if old.in_call or old.failures or now >= old.revoke_at]

    def ended(self, now: float) -> list[Old]:
        """The leases that have ended by themselves or with their token; forgets them."""
        over = [o for o in self if not o.in_call and now >= min(o.ends_at, o.login.ends_at)]
        for old in over:
            self.forget(old.lease_id)
        return over

    def due(self, now: float) -> list[Old]:
        """The leases to revoke now, marked as in a call. Ask ``ended`` first."""
        found = [old for old in self if not old.in_call and now >= old.revoke_at]
        for old in found:
            old.in_call = True
        return found

    @property
    def wake_at(self) -> float:
        """When ``ended`` or ``due`` has something to tell next; infinity for never."""
        return min((min(o.revoke_at, o.ends_at) for o in self if not o.in_call), default=inf)


class Standing:
    """What may be asked of a machine at any time; only the machine changes it."""

    def __init__(self, pace: Pace, due: float) -> None:
        self.pace = pace
        self.state = State.EMPTY
        self.held: Held | None = None
        self.retired = Retired(pace)
        self.wanted = False  # a replacement was asked for and has not come yet
        self.limbo: Old | None = None  # withdrawn while its renewal was out
        self.failures = 0  # in a row
        self.last_failure: Failure | None = None
        self.due = due  # when to make the next call; infinity: when told to
        self.not_before = -inf  # whoever asks, failed calls keep the backoff's floor apart

    def login_of(self, lease_id: str) -> Login | None:
        """The login that a lease of this machine was taken with."""
        held = [self.held.grant.login] if self.held and self.held.lease_id == lease_id else []
        return next(iter(held + [o.login for o in self.retired if o.lease_id == lease_id]), None)

    def hangs_on(self, login: Login) -> bool:
        """Whether what it holds, or a lease that still drains, is of this login."""
        if self.held and self.held.grant.login is login:
            return True
        return any(old.login is login for old in self.retired)

    @property
    def calling(self) -> bool:
        """Whether a call for what is in use, or for its successor, is out or waits."""
        return self.state in (State.ISSUING, State.RENEWING, State.REPLACING)

    @property
    def resting(self) -> bool:
        """Whether Vault has just given nothing, and is not asked again yet."""
        return self.state is State.EMPTY and self.failures > 0

    def failed_before(self, call: Call) -> bool:
        """Whether the last call of this kind, for this credential, did not work."""
        if isinstance(call, CallRevoke):
            return self.retired.has_failed(call.lease_id)
        return self.failures > 0

    def too_late(self, call: Call) -> bool:
        """Whether the lease that a call which waits was to renew has ended."""
        return isinstance(call, CallRenew) and self.state is State.LAPSED

    @property
    def wake_at(self) -> float:
        """When it next wants a ``Tick``; infinity for never."""
        waiting = self.state in (State.EMPTY, State.HELD)
        due = max(self.due, self.not_before) if waiting else inf
        end = min(self.held.ends_at, self.held.grant.login.ends_at) if self.held else inf
        return min(due, end, self.retired.wake_at)


class Caller(Protocol):
    """Whose calls to Vault are made: a machine at work."""

    calls: int  # that are out, or wait to be made; counted by the queue

    @property
    def machine(self) -> Standing:
        """Which wants them."""


class Leased(Caller, Protocol):
    """A lease of the stage, as its token sees it."""

    @property
    def uses(self) -> int:
        """How many checks have taken it."""


L = TypeVar("L", bound=Leased)


class StageLeases(Generic[L]):
    """The leases of one stage. Whoever drives the machines puts them in and takes them out."""

    def __init__(self) -> None:
        self.shared: dict[str, L] = {}  # by upstream
        self.scoped: set[L] = set()  # of a caller's or a request's own
        self.leaving: list[L] = []  # stopped, with leases that drain

    @property
    def active(self) -> Iterator[L]:
        """Those that requests may be given."""
        yield from self.shared.values()
        yield from self.scoped

    def __iter__(self) -> Iterator[L]:
        yield from self.active
        yield from self.leaving

    def forget_gone(self) -> None:
        """Let go of those that have left and have nothing to revoke any more."""
        self.leaving = [lease for lease in self.leaving if lease.machine.retired or lease.calls]
