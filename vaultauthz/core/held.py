"""The credential that a lease machine holds, and what is known of its time."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from vaultauthz.core.grant import Grant
from vaultauthz.core.pace import Pace
from vaultauthz.core.retired import Old


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
