"""The life of one credential: a machine without clock, I/O, threads or randomness.

Theory of operation. A machine holds at most one credential and has at most one
call to Vault out for it. Whoever drives it hands it an event with the time and a
jitter in [0, 1) and gets commands back; ``wake_at`` says when it wants a ``Tick``.
Login tokens are leases too and run on the same machine: Issue logs in, Renew is
renew-self, Revoke is revoke-self.

    state      holds  call out  what ends it
    EMPTY      no     none      Tick at `due` → ISSUING
    ISSUING    no     issue     Issued → HELD · Failed → EMPTY
    HELD       yes    none      Tick at `due` → RENEWING or REPLACING · at its end → EMPTY
    RENEWING   yes    renew     Renewed → HELD · Failed → HELD or EMPTY · its end → LAPSED
    REPLACING  yes    issue     Issued → HELD · Failed → HELD or EMPTY · its end → ISSUING
    LAPSED     no     renew     Renewed or Failed → EMPTY
    STOPPED    no     any       nothing; a lease that still arrives is revoked

Time comes before the event: an answer that arrives after the end of what is held
finds it gone, whether or not a Tick has said so first.

Replaced leases live on in ``Retired`` until requests in flight are done, and are
then revoked by calls of their own.

Times are seconds on a clock that counts through sleep, and TTLs count from before
the call was sent, so an answer that was long on its way is believed for less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

from vaultauthz.core import events
from vaultauthz.core.grant import DELETED, ENDED_ON_ITS_WAY, OLDER, Failure, Grant, Verdict, Version
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Command,
    Failed,
    Issued,
    LoginLost,
    Note,
    NotRevoked,
    Publish,
    Rejected,
    Release,
    Renewed,
    Revoke,
    Revoked,
    Rotate,
    Stop,
    Tick,
    Unusable,
    Withdraw,
)
from vaultauthz.core.lease_state import Held, Old, Standing, State
from vaultauthz.core.pace import Pace


class LeaseMachine(Standing):
    """Runs one credential by the rules at the top of this file.

    Not safe for threads: the keeper calls it under its lock.
    """

    def __init__(self, pace: Pace = Pace(), start_at: float = 0.0) -> None:
        super().__init__(pace, start_at)
        self._rhythm = inf  # how often the last credential was to be renewed or read
        self._again = False  # … and was asked for while another was on its way
        self._locked_until = -inf  # another issue would do harm, unless somebody asks for it
        self._replace_failed = False  # the last call that failed was an issue
        self._rejected_at = -inf  # when the upstream's 401 last led to a replacement
        self._seen = Version()  # the newest edition of a static secret there was
        self._anew = False  # the next issue comes from another place
        self._gone_at = -inf  # when Vault last said that nothing is stored there
        self._out: list[Command] = []

    def handle(self, event: Any, now: float, jitter: float) -> list[Command]:
        """Take one event in; return the commands it leads to, in order."""
        self._out = []
        self._end_lease(now)
        _HANDLERS[type(event)](self, event, now, jitter)
        if self.state is not State.STOPPED:
            self._act(now)
        for old in self.retired.ended(now):
            self._say(old.obituary(now, stopped=self.state is State.STOPPED))
        for old in self.retired.due(now):
            if old.login.leaving and not old.at_once:
                # One call revokes the token, as soon as nothing drains on it any more.
                self.retired.forget(old.lease_id)
                self._say(old.revoked("with its token"))
            else:
                self._say(CallRevoke(old.lease_id))
        return self._out

    # --- time ---

    def _end_lease(self, now: float) -> None:
        if self.held and now >= self.held.ends_at:
            self._drop(events.EXPIRED, "its time is over", now)
            self.due = now

    def _act(self, now: float) -> None:
        """Do what the time asks for: drop what has ended, make the call that is due."""
        self._end_lease(now)
        if self.held and now >= self.held.grant.login.ends_at:
            self._drop(events.LOST, "its login token has ended", now)
            self.due = now
        if now < max(self.due, self.not_before) or self.state not in (State.EMPTY, State.HELD):
            return
        if self.held and self._renews(self.held, now):
            self.state = State.RENEWING
            self._say(CallRenew(self.held.lease_id, self.pace.asked(self.held.grant.ttl)))
        elif now < self._locked_until:
            self.due = self._locked_until
        else:
            self.state = State.REPLACING if self.held else State.ISSUING
            self._again = False
            if self._anew:
                self._anew, self._seen, self._gone_at = False, Version(), -inf
            self._say(CallIssue())

    def _renews(self, held: Held, now: float) -> bool:
        """Whether the next call renews what is held instead of replacing it.

        A renewal that fails may lead to a replacement only in the last share of
        the lease; there the two take turns, as either may be what still works.
        A replacement that fails does not keep the held lease from its renewal.
        """
        if not held.renewable:
            return False
        if now < self._locked_until:
            return True
        if self.wanted:
            in_window = held.ends_at - now <= held.ttl * (1 - self.pace.renew_from)
            return self._replace_failed and in_window
        if self.last_failure and self.last_failure.away:
            return True  # Vault answers nothing: a mint would fare no better than a renewal
        if not self.failures or held.ends_at - now > held.ttl * self.pace.last_share:
            return True
        return self._replace_failed

    def _say(self, command: Command) -> None:
        self._out.append(command)

    # --- answers ---

    def _on_tick(self, _event: Tick, now: float, jitter: float) -> None:
        """Nothing of its own: ``handle`` acts on the time after every event."""

    def _on_issued(self, event: Issued, now: float, jitter: float) -> None:
        grant, ends_at = event.grant, event.sent_at + event.grant.life
        if self.state is State.STOPPED:
            self._discard(grant, ends_at, now)
        elif now >= min(ends_at, grant.login.ends_at):
            self._discard(grant, event.sent_at + self._lasts(grant), now)
            self._fail(ENDED_ON_ITS_WAY, now, jitter)
        elif grant.version.older_than(self._seen):
            self._fail(OLDER, now, jitter)
        elif self._deleted(grant.version, now):
            self._fail(DELETED, now, jitter)
        else:
            self._adopt(grant, event.sent_at, now, jitter)

    def _lasts(self, grant: Grant) -> float:
        """For how long Vault holds the lease; of one without a time nobody knows."""
        return grant.ttl if grant.ttl > 0.0 else self.pace.drain

    def _deleted(self, version: Version, now: float) -> bool:
        """Whether this is a node that lags; later, somebody has undeleted the version."""
        known = bool(version.number) and version == self._seen
        return known and now - self._gone_at < self.pace.standby_lag

    def _adopt(self, grant: Grant, sent_at: float, now: float, jitter: float) -> None:
        before, held = self.held, Held.of(grant, sent_at, now, self.held, self.pace)
        self._seen, self._gone_at = grant.version, -inf  # what was deleted is older than this
        if before is None or not before.grant.same_as(grant):
            self._announce(before, grant)
            if before:
                self._retire(before, now, now + self.pace.drain)
        elif self.failures:  # no other event tells that it works again
            self._say(Note(events.RECOVERED, held.lease_id, held.grant.credential_id))
        self.retired.forget(grant.lease_id)  # a token file may bring an earlier token back
        self.held, self.state, self._locked_until = held, State.HELD, -inf
        self._succeeded()
        self.wanted, self._again = self._again, False
        self.due = now if self.wanted else held.next_call(self.pace, sent_at, jitter)
        self._say(Publish(held.grant, held.ends_at))

    def _announce(self, before: Held | None, grant: Grant) -> None:
        name = events.ROTATED if before else events.ISSUED
        self._say(Note(name, grant.lease_id, grant.credential_id, grant.request_id))

    def _on_renewed(self, event: Renewed, now: float, jitter: float) -> None:
        if self.held is None or self.state is not State.RENEWING:
            self._leave_limbo(event.sent_at + event.renewal.ttl, now)
            return
        held = self.held = self.held.renewed(event.renewal, event.sent_at, self.pace)
        self.state = State.HELD
        self._succeeded()
        named, request_id = held.grant.credential_id, event.renewal.request_id
        self._say(Note(events.RENEWED, held.lease_id, named, request_id=request_id))
        self._say(Publish(held.grant, held.ends_at))
        again = held.call_after_renewal(self.pace, event.sent_at, jitter)
        self.due = now if self.wanted else again

    def _leave_limbo(self, ends_at: float, now: float) -> None:
        """A renewal came back for a lease that was withdrawn meanwhile: revoke it."""
        if self.limbo:
            self.limbo.ends_at = ends_at
            self.limbo.revoke_at = max(now, self.limbo.revoke_at)
            self.retired.add(self.limbo)
            self.limbo = None
        if self.state is State.LAPSED:
            self.state = State.EMPTY

    def _succeeded(self) -> None:
        if self.held:
            again = self.held.grant.read_again
            self._rhythm = self.held.ttl / 3 if again is None else again
        self.failures, self.last_failure, self._replace_failed = 0, None, False
        self.not_before = -inf

    def _on_failed(self, event: Failed, now: float, jitter: float) -> None:
        if self.state is State.RENEWING and event.failure.verdict is Verdict.LEASE_GONE:
            self._drop(events.LOST, event.failure.reason, now)
        if self.limbo:
            if event.failure.verdict is Verdict.LEASE_GONE:
                self.limbo = None
            self._leave_limbo(self.limbo.ends_at if self.limbo else now, now)
        if self.state is not State.STOPPED:
            self._fail(event.failure, now, jitter)

    def _on_unusable(self, event: Unusable, now: float, jitter: float) -> None:
        self._discard(event.grant, event.sent_at + event.grant.ttl, now)
        if self.state is not State.STOPPED:
            self._fail(event.failure, now, jitter)

    def _fail(self, failure: Failure, now: float, jitter: float) -> None:
        """Back to waiting, with the time of the next try."""
        self.failures += 1
        self.last_failure = failure
        asked = min(failure.retry_after, self.pace.retry_after_cap)
        self.not_before = now + max(self.pace.backoff_floor, asked)
        self.due = max(
            self.not_before, now + self.pace.retry_in(self.failures, self._rhythm, jitter)
        )
        if failure.verdict is Verdict.LEASE_GONE:
            self.due = self.not_before  # Vault is well: nothing is won by waiting longer
        elif self.held:
            # However short the lease, there is time for another try before it ends.
            left = self.held.ends_at - now
            self.due = min(self.due, max(self.not_before, now + left / 2))
        self._say(Note(events.FAILED, reason=failure.reason, failure=failure.word))
        self._replace_failed = self.state in (State.ISSUING, State.REPLACING)
        if self._replace_failed:
            self._issue_failed(failure, now, jitter)
        elif self.held:
            self._renewal_failed(self.held, failure)
        self.state = State.HELD if self.held else State.EMPTY

    def _issue_failed(self, failure: Failure, now: float, jitter: float) -> None:
        held = self.held
        if failure.verdict is Verdict.SECRET_GONE:
            self._gone_at = now
            if held and not held.lease_id:
                # A static secret that somebody deleted must not be served on. A leased
                # one stays good at its service although its role is gone.
                self._drop(events.LOST, failure.reason, now)
        elif failure.verdict is Verdict.LOCKED and not self._again:
            self._locked_until, self.wanted = now + failure.again_in, False
            if held and held.renewable:  # what is held lives on meanwhile
                sent_at = held.ends_at - held.ttl
                self.due = max(self.due, sent_at + self.pace.renew_in(held.ttl, jitter))

    def _renewal_failed(self, held: Held, failure: Failure) -> None:
        if failure.verdict not in (Verdict.REFUSED, Verdict.LOCKED):
            return
        self.held = replace(held, renewable=False)
        if not self.wanted:  # use what is left, and replace it in its last share
            last = held.ends_at - held.ttl * self.pace.last_share
            self.due = max(self.not_before, last)

    # --- wishes and losses ---

    def _on_rotate(self, event: Rotate, now: float, jitter: float) -> None:
        if self.state is State.STOPPED:
            return
        self._locked_until = -inf
        self._anew |= event.anew
        if self.state in (State.ISSUING, State.REPLACING):
            self._again = True  # what is on its way may have been read before the wish
        if self.held:
            self.wanted = True
        if self.state is State.EMPTY or self.held:
            self.due = min(self.due, now + event.within * jitter) if event.within else now

    def _on_rejected(self, event: Rejected, now: float, jitter: float) -> None:
        held, hindered = self.held, self.failures or now < self._locked_until
        if self.state is not State.HELD or held is None or hindered:
            return
        if held.grant.credential_id != event.credential_id:
            return  # a request that was in flight with the credential before this one
        if now - max(held.since, self._rejected_at) >= self.pace.rejected_gap:
            self._rejected_at = now
            self._on_rotate(Rotate(), now, jitter)

    def _on_revoke(self, _event: Revoke, now: float, jitter: float) -> None:
        if self.state is State.STOPPED:
            return
        if self.held:
            self._drop(events.LOST, "revoked by an operator", now, revoke=True)
        self.retired.hurry(now)
        self._locked_until, self.due = -inf, now

    def _on_login_lost(self, event: LoginLost, now: float, jitter: float) -> None:
        if self.held and self.held.grant.login.ends_at <= now:
            self._drop(events.LOST, "its login token is gone", now)
            self.due = now + event.after + event.within * jitter

    def _on_release(self, event: Release, now: float, jitter: float) -> None:
        if self.state is not State.STOPPED:  # its end is decided then
            self.retired.hurry(now, event.lease_id)

    def _on_revoked(self, event: Revoked, now: float, jitter: float) -> None:
        old = self.retired.forget(event.lease_id)
        self._say(Note(events.REVOKED, event.lease_id, old.credential_id if old else ""))

    def _on_not_revoked(self, event: NotRevoked, now: float, jitter: float) -> None:
        if old := self.retired.failed(event.lease_id, event.failure, now, jitter):
            reason, word = old.last_failure, event.failure.word
            self._say(Note(events.NOT_REVOKED, old.lease_id, old.credential_id, "", reason, word))

    def _on_stop(self, event: Stop, now: float, jitter: float) -> None:
        revoke_at = now + event.drain
        if self.held and not event.drain:
            self._say(Withdraw())
        if self.held and event.revoke and self.state is State.RENEWING:
            self.limbo = self.held.old(revoke_at)  # revoked when its renewal is back
        elif self.held and event.revoke:
            self._retire(self.held, now, revoke_at)
        elif self.held:
            self._retire(self.held, now, inf)  # ends with its token
        if event.revoke:
            self.retired.hurry(revoke_at)
            if self.limbo:
                self.limbo.revoke_at = min(self.limbo.revoke_at, revoke_at)
        self.held, self.due, self.state = None, inf, State.STOPPED

    # --- leaving a credential ---

    def _drop(self, name: str, reason: str, now: float, *, revoke: bool = False) -> None:
        """Stop using what is held; with ``revoke``, see that Vault ends it too."""
        held = self.held
        if held is None:
            return
        self.held = None
        self._say(Withdraw())
        self._say(Note(name, held.lease_id, held.grant.credential_id, reason=reason))
        if self.state is State.RENEWING:
            self.state = State.LAPSED
            self.limbo = held.old(now) if held.lease_id else None
            return
        self.state = State.ISSUING if self.state is State.REPLACING else State.EMPTY
        if revoke:
            self._retire(held, now, now)
            self.retired.hurry(now)

    def _retire(self, held: Held, now: float, revoke_at: float) -> None:
        if held.lease_id and held.grant.login.ends_at > now:
            self.retired.add(held.old(revoke_at))

    def _discard(self, grant: Grant, ends_at: float, now: float) -> None:
        """A lease that was issued and will not be used: revoke it."""
        if grant.lease_id:
            self.retired.add(Old(grant.lease_id, ends_at, now, grant.ttl, grant.login))


_HANDLERS: dict[type, Callable[[LeaseMachine, Any, float, float], None]] = {
    Tick: LeaseMachine._on_tick,
    Issued: LeaseMachine._on_issued,
    Unusable: LeaseMachine._on_unusable,
    Renewed: LeaseMachine._on_renewed,
    Failed: LeaseMachine._on_failed,
    Rotate: LeaseMachine._on_rotate,
    Rejected: LeaseMachine._on_rejected,
    Revoke: LeaseMachine._on_revoke,
    LoginLost: LeaseMachine._on_login_lost,
    Release: LeaseMachine._on_release,
    Revoked: LeaseMachine._on_revoked,
    NotRevoked: LeaseMachine._on_not_revoked,
    Stop: LeaseMachine._on_stop,
}
