"""Leases that were replaced and have yet to be revoked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from vaultauthz.core import events
from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease_messages import Note
from vaultauthz.core.pace import Pace


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

    def failed(self, lease_id: str, failure: Failure, now: float, jitter: float) -> None:
        """A revocation did not work; plan the next, unless the lease is gone."""
        old = self._old.get(lease_id)
        if old is None:
            return
        if failure.verdict in (Verdict.LEASE_GONE, Verdict.TOKEN_DEAD):
            self.forget(lease_id)
            return
        old.failures += 1
        old.in_call = False
        wait = self._pace.retry_in(old.failures, old.ttl / 3, jitter)
        old.revoke_at = now + max(wait, min(failure.retry_after, self._pace.retry_after_cap))

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
