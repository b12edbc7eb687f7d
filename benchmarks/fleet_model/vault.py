"""A model of Vault: one queue in front of a bounded capacity, and times when it is away.

A call is decided when it is sent, since the queue is first come, first served: when
its turn comes, what it finds, when the answer is back. Vault does the work of a call
whose caller has given up, as the real one does: a lease may be issued that nobody knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Final

from fleet_model.timeline import Timeline
from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Failure, Grant, Renewal
from vaultauthz.core.lease_messages import Failed, Issued, NotRevoked, Renewed, Revoked
from vaultauthz.core.token import Token
from vaultauthz.vault.errors import TOKEN_DEAD, TOO_SLOW, Call, of_exception, of_status

UNREACHABLE: Final = of_exception(ConnectionRefusedError(), sent=False).failure
OVERLOADED: Final = of_status(Call.OTHER, 503, []).failure
LEASE_GONE: Final = of_status(Call.RENEW, 400, ["lease not found"]).failure

Answer = tuple[float, Any]  # when it is back, and the event for the machine

_PATIENCE = 5.0  # seconds until a caller gives a call up: `vault.timeout`
_BACKLOG = 10.0  # seconds of work in Vault's queue above which it answers 503
_QUICK = 0.002  # seconds until a refusal is back
_SPREAD = 0.5  # sigma of the latency's lognormal distribution


@dataclass(frozen=True, slots=True)
class Away:
    """A time without Vault: packets are lost first, then connections are refused."""

    begin: float = inf
    end: float = inf

    def failure(self, now: float) -> Failure:
        """How a call fails that is sent at ``now``."""
        return TOO_SLOW if now < (self.begin + self.end) / 2 else UNREACHABLE


NEVER: Final = Away()


class VaultToken:
    """A login token as Vault knows it."""

    __slots__ = ("accessor", "ends_at", "max_at")

    def __init__(self, accessor: str, ends_at: float, max_at: float) -> None:
        self.accessor = accessor
        self.ends_at = ends_at
        self.max_at = max_at  # when it ends, however often it is renewed


class VaultLease:
    """A lease as Vault knows it; it ends with its token, too."""

    __slots__ = ("ends_at", "token")

    def __init__(self, ends_at: float, token: VaultToken) -> None:
        self.ends_at = ends_at
        self.token = token

    def alive(self, now: float) -> bool:
        """Whether it can be renewed."""
        return now < self.ends_at and now < self.token.ends_at


@dataclass(frozen=True, slots=True)
class Nature:
    """What kind of Vault it is. Times in seconds, ``capacity`` in calls a second."""

    capacity: float
    latency: float  # the median, without waiting
    lease_ttl: float = 3600.0
    token_ttl: float = 3600.0
    away: Away = NEVER


class Vault:
    """Answers the calls of the whole fleet."""

    owns_token = True  # the gateways' tokens are theirs to renew and revoke

    def __init__(self, timeline: Timeline, nature: Nature) -> None:
        self.nature = nature
        self.minted = 0  # leases issued
        self._timeline = timeline
        self._free_at = 0.0
        self._names = 0
        self._leases: dict[str, VaultLease] = {}

    # --- calls: each returns when the answer is back, and the answer ---

    def login(self) -> Answer:
        """A new token."""
        sent_at = self._timeline.now
        done_at, back_at, failure = self._turn(sent_at)
        if failure:
            return back_at, Failed(failure)
        return back_at, Issued(self.token_grant(done_at, sent_at), sent_at)

    def renew_token(self, token: VaultToken) -> Answer:
        """Renew it; the answer is short when its max TTL is near."""
        sent_at = self._timeline.now
        done_at, back_at, failure = self._turn(sent_at)
        if done_at < inf and done_at < token.ends_at:
            token.ends_at = min(done_at + self.nature.token_ttl, token.max_at)
        elif not failure:
            failure = LEASE_GONE
        if failure:
            return back_at, Failed(failure)
        return back_at, Renewed(Renewal(token.ends_at - done_at), sent_at)

    def revoke_token(self, token: VaultToken) -> Answer:
        """End it, and every lease with it."""
        done_at, back_at, failure = self._turn(self._timeline.now)
        if done_at < inf:
            token.ends_at = min(token.ends_at, done_at)
        return back_at, NotRevoked(token.accessor, failure) if failure else Revoked(token.accessor)

    def issue(self, token: VaultToken, login: Login) -> Answer:
        """A new lease."""
        sent_at = self._timeline.now
        done_at, back_at, failure = self._turn(sent_at)
        if done_at >= token.ends_at and not failure:
            failure = TOKEN_DEAD
        grant = self.grant(token, login, done_at) if done_at < inf else None
        if failure or grant is None:
            return back_at, Failed(failure or UNREACHABLE)
        return back_at, Issued(grant, sent_at)

    def renew(self, token: VaultToken, lease_id: str) -> Answer:
        """Renew a lease by its whole TTL."""
        sent_at = self._timeline.now
        done_at, back_at, failure = self._turn(sent_at)
        if done_at < inf and not failure:
            failure = self._renewed(token, lease_id, done_at)
        if failure:
            return back_at, Failed(failure)
        return back_at, Renewed(Renewal(self.nature.lease_ttl), sent_at)

    def revoke(self, token: VaultToken, lease_id: str) -> Answer:
        """End a lease."""
        done_at, back_at, failure = self._turn(self._timeline.now)
        if done_at >= token.ends_at and not failure:
            failure = TOKEN_DEAD
        if done_at < inf:
            self._leases.pop(lease_id, None)
        return back_at, NotRevoked(lease_id, failure) if failure else Revoked(lease_id)

    # --- what it does ---

    def grant(self, token: VaultToken, login: Login, at: float) -> Grant:
        """Issue a lease at ``at``."""
        self.minted += 1
        lease_id = self._name()
        self._leases[lease_id] = VaultLease(at + self.nature.lease_ttl, token)
        return Grant(None, self.nature.lease_ttl, lease_id, renewable=True, login=login)

    def token_grant(self, at: float, sent_at: float, max_at: float = inf) -> Grant:
        """Issue a token at ``at``; its secret is Vault's own view of it."""
        ends_at = min(at + self.nature.token_ttl, max_at)
        token = VaultToken(self._name(), ends_at, max_at)
        ttl = ends_at - at
        login = Login(sent_at + ttl, token.accessor)
        known = Token(token, token.accessor, login, self)
        return Grant(known, ttl, token.accessor, renewable=True, login=login)

    def _name(self) -> str:
        self._names += 1
        return str(self._names)

    def _renewed(self, token: VaultToken, lease_id: str, at: float) -> Failure | None:
        if at >= token.ends_at:
            return TOKEN_DEAD
        lease = self._leases.get(lease_id)
        if lease is None or not lease.alive(at):
            self._leases.pop(lease_id, None)
            return LEASE_GONE
        lease.ends_at = at + self.nature.lease_ttl
        return None

    def _turn(self, now: float) -> tuple[float, float, Failure | None]:
        """When the work is done (infinity: never), when the answer is back, or how it fails."""
        away = self.nature.away
        if away.begin <= now < away.end:
            failure = away.failure(now)
            return inf, now + (_PATIENCE if failure is TOO_SLOW else _QUICK), failure
        if self._free_at - now > _BACKLOG:
            return inf, now + _QUICK, OVERLOADED
        done_at = self._free_at = max(now, self._free_at) + 1 / self.nature.capacity
        median = self.nature.latency
        back_at = done_at + median * self._timeline.random.lognormvariate(0.0, _SPREAD)
        if now < away.begin <= back_at:
            return inf, away.begin, UNREACHABLE
        if back_at > now + _PATIENCE:
            return done_at, now + _PATIENCE, TOO_SLOW
        return done_at, back_at, None
