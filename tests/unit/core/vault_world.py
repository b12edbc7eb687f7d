"""A model of Vault and of the keeper around one lease machine, with the rules it must keep.

The world knows from the outside alone (what it answered, what it was asked) what the
machine may do next, and fails as soon as the machine does otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from vaultauthz.core.credential import Credential, Login
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict
from vaultauthz.core.injection import Mutation
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Command,
    Failed,
    Issued,
    LoginLost,
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
from vaultauthz.core.pace import Pace

EPS = 1e-6
# The longest that a failure may hold the next call up: the backoff's cap.
LONGEST_WAIT = 60.0

Event = (
    Tick
    | Issued
    | Unusable
    | Renewed
    | Failed
    | Revoked
    | NotRevoked
    | Rotate
    | Rejected
    | Revoke
    | LoginLost
    | Release
    | Stop
)


@dataclass
class Shown:
    """What requests get now, and what Vault said of its time."""

    credential: Credential
    grant: Grant
    ttl: float
    sent_at: float
    renewable: bool


@dataclass
class Lease:
    """A lease that Vault made; ``over`` once Vault said that it is no more."""

    ends_at: float
    login: Login
    over: bool = False
    revoking: bool = False
    revoke_by: float = inf
    not_before: float = -inf

    def gone(self, now: float) -> bool:
        """Whether nothing of it is left in Vault, by what was answered."""
        return self.over or now >= min(self.ends_at, self.login.ends_at)


@dataclass
class Out:
    """A call that is out."""

    command: CallIssue | CallRenew | CallRevoke
    sent_at: float
    wished: bool = False  # a Rotate came while it was out


@dataclass
class World:
    """Drives one machine; every attribute is the model's own knowledge."""

    pace: Pace = field(default_factory=Pace)
    of_tokens: bool = False  # the machine holds a login token, as LoginRunner runs it
    now: float = 1000.0
    jitter: float = 0.5
    shown: Shown | None = None
    call: Out | None = None
    revokes: dict[str, Out] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    stopped: bool = False
    handed_on: str = ""
    wished: bool = False
    wished_again: bool = False  # … and the call that was just answered is from before it
    locked: bool = False
    renew_refused: bool = False
    not_before: float = -inf
    away: bool = False  # the last failure says that no other call would fare better
    call_by: float = 1000.0
    rotate_at: float = -inf
    issue_sent_at: float = -inf
    reject_issue_at: float = -inf
    minted: int = 0

    def __post_init__(self) -> None:
        self.machine = LeaseMachine(self.pace, start_at=self.now)

    @property
    def held_id(self) -> str:
        """The lease that requests get now."""
        return self.shown.grant.lease_id if self.shown else ""

    # --- driving ---

    def tell(self, event: Event) -> list[Command]:
        """Hand the event in, do what the machine says, and hold it to the rules."""
        before = self.shown
        self._learn(event)
        commands = self.machine.handle(event, self.now, self.jitter)
        for command in commands:
            self._carry_out(command, event, before)
        self._check()
        return commands

    def advance(self, seconds: float) -> None:
        """Let time pass, with a Tick whenever the machine wants one and never else."""
        target = self.now + seconds
        for _ in range(2000):
            if self.machine.wake_at > target:
                break
            self.now = max(self.now, self.machine.wake_at)
            self.tell(Tick())
            self._check_punctual()
        else:
            raise AssertionError("it wants to be woken without end")
        self.now = target
        self._check_punctual()

    def sleep(self, seconds: float) -> None:
        """The clock jumps; whoever drives the machine notices only afterwards."""
        self.now += seconds
        self.call_by = max(self.call_by, self.now)
        for lease in self.leases.values():
            lease.revoke_by = max(lease.revoke_by, self.now)
        self.tell(Tick())

    # --- answers ---

    def issue(self, grant: Grant, *, unusable: bool = False) -> list[Command]:
        """Answer the issue call that is out with a grant."""
        out = self._answered(CallIssue)
        self.minted += 1
        if grant.lease_id:
            lease = self.leases.setdefault(grant.lease_id, Lease(0.0, grant.login))
            lease.ends_at = out.sent_at + grant.ttl
        if unusable:
            failure = Failure(Verdict.REFUSED, "it does not fit")
            self._failed(failure, issue=True, wished=out.wished)
            if grant.lease_id:
                self.leases[grant.lease_id].revoke_by = self.now
            return self.tell(Unusable(grant, out.sent_at, failure))
        if self.stopped and grant.lease_id:
            self.leases[grant.lease_id].revoke_by = self.now
        return self.tell(Issued(grant, out.sent_at))

    def renew(self, renewal: Renewal) -> list[Command]:
        """Answer the renew call that is out."""
        out = self._answered(CallRenew)
        assert isinstance(out.command, CallRenew)
        lease = self.leases[out.command.lease_id]
        lease.ends_at = out.sent_at + renewal.ttl
        if out.command.lease_id not in (self.held_id, self.handed_on):
            lease.revoke_by = self.now
        return self.tell(Renewed(renewal, out.sent_at))

    def fail(self, failure: Failure) -> list[Command]:
        """Answer the issue or renew call that is out with a failure."""
        out = self.call
        assert out is not None
        self.call = None
        issue = isinstance(out.command, CallIssue)
        if isinstance(out.command, CallRenew):
            lease = self.leases[out.command.lease_id]
            lease.over |= failure.verdict is Verdict.LEASE_GONE
            if out.command.lease_id not in (self.held_id, self.handed_on):
                lease.revoke_by = self.now
        self._failed(failure, issue=issue, wished=out.wished)
        return self.tell(Failed(failure))

    def revoked(self, lease_id: str, failure: Failure | None = None) -> list[Command]:
        """Answer a revoke call that is out."""
        del self.revokes[lease_id]
        lease = self.leases[lease_id]
        lease.revoking = False
        if failure is None:
            lease.over = True
            return self.tell(Revoked(lease_id))
        lease.over |= failure.verdict in (Verdict.LEASE_GONE, Verdict.TOKEN_DEAD)
        lease.not_before = self.now + self.pace.backoff_floor
        lease.revoke_by = self.now + max(LONGEST_WAIT, failure.retry_after)
        return self.tell(NotRevoked(lease_id, failure))

    def _answered(self, kind: type[CallIssue | CallRenew]) -> Out:
        out, self.call = self.call, None
        assert out is not None
        self.wished_again = out.wished
        assert isinstance(out.command, kind)
        return out

    def _failed(self, failure: Failure, *, issue: bool, wished: bool) -> None:
        asked = min(failure.retry_after, self.pace.retry_after_cap)
        self.not_before = self.now + max(self.pace.backoff_floor, asked)
        self.away = failure.away
        if self.stopped:
            return
        self.call_by = self.now + max(LONGEST_WAIT, failure.retry_after)
        if issue and failure.verdict is Verdict.LOCKED and not wished:
            self.locked, self.wished, self.call_by = True, False, inf
            if self.shown and self.shown.renewable and not self.renew_refused:
                renewal = self.shown.sent_at + self.pace.renew_to * self.shown.ttl
                self.call_by = max(renewal, self.now + LONGEST_WAIT, self.now + failure.retry_after)
        if self.locked and self.shown is None:
            self.call_by = inf
        refused = failure.verdict in (Verdict.REFUSED, Verdict.LOCKED)
        if not issue and refused and self.shown:
            self.renew_refused = True
            last = self.shown.credential.ends_at - self.shown.ttl * self.pace.last_share
            self.call_by = inf if self.locked else max(self.call_by, last)
            # A 401 asks for another only when the credential is no longer new.
            if self.rotate_at > self.issue_sent_at:
                self.call_by = self.now + max(LONGEST_WAIT, failure.retry_after)

    # --- what the world knows of an event before the machine has it ---

    def _learn(self, event: Event) -> None:
        if isinstance(event, (Rotate, Rejected)) and not self.stopped:
            self._learn_wish(event)
        elif isinstance(event, Revoke) and not self.stopped:
            self.locked = False
            self.call_by = min(self.call_by, self.now) if self.call is None else self.call_by
            for lease_id, lease in self.leases.items():
                self._hurry(lease_id, lease)
        elif isinstance(event, Release) and not self.stopped:
            self._hurry(event.lease_id, self.leases[event.lease_id])
        elif isinstance(event, Stop):
            self.stopped, self.call_by = True, inf
            if not event.revoke:
                self.handed_on = self.handed_on or self.held_id

    def _hurry(self, lease_id: str, lease: Lease) -> None:
        if (
            lease_id not in (self.held_id, self.handed_on)
            and not lease.revoking
            and lease.not_before == -inf
        ):
            lease.revoke_by = min(lease.revoke_by, self.now)

    def _learn_wish(self, event: Rotate | Rejected) -> None:
        self.wished = True
        if isinstance(event, Rejected):
            return
        self.rotate_at = self.now
        self.locked = False
        if self.call is not None:
            self.call.wished = True
        else:
            self.call_by = min(self.call_by, self.now + event.within)

    # --- commands ---

    def _carry_out(self, command: Command, event: Event, before: Shown | None) -> None:
        if isinstance(command, (CallIssue, CallRenew)):
            self._send(command, event)
        elif isinstance(command, CallRevoke):
            self._send_revoke(command)
        elif isinstance(command, Publish):
            self._publish(command, event, before)
        elif isinstance(command, Withdraw):
            self._withdraw(event)

    def _send(self, command: CallIssue | CallRenew, event: Event) -> None:
        assert self.call is None, "two calls at once"
        assert not self.stopped, "a call after the stop"
        assert self.now >= self.not_before - EPS, "sooner than the floor, or than Vault asked"
        if isinstance(command, CallRenew):
            assert self.shown is not None
            assert command.lease_id == self.shown.grant.lease_id, "renews what is not in use"
            assert command.lease_id not in self.revokes, "renews what is being revoked"
            assert not self.renew_refused, "renews what Vault refused to renew"
        else:
            self._may_mint(event)
            self.issue_sent_at = self.now
        self.call, self.call_by = Out(command, self.now), inf

    def _may_mint(self, event: Event) -> None:
        assert not self.locked, "LOCKED was tried again by itself"
        if isinstance(event, Rejected):
            gap = self.now - self.reject_issue_at
            assert gap >= self.pace.rejected_gap, "401s asked for two rotations in the gap"
            self.reject_issue_at = self.now
        shown = self.shown
        if shown and shown.renewable and not self.wished:
            left = shown.credential.ends_at - self.now
            assert left <= shown.ttl * self.pace.last_share + EPS, "minted too early"
            assert self.renew_refused or not self.away, "minted though Vault is away"
            assert self.not_before > -inf, "minted though its renewal would have worked"

    def _send_revoke(self, command: CallRevoke) -> None:
        lease = self.leases[command.lease_id]
        assert command.lease_id not in self.revokes, "two revocations at once"
        assert self.now >= lease.not_before - EPS, "failed revocations closer than the floor"
        assert not self.renews(command.lease_id), "revokes while it renews"
        assert command.lease_id != self.held_id, "revokes what requests still get"
        assert not lease.over, "revokes what is gone"
        lease.revoking, lease.revoke_by = True, inf
        self.revokes[command.lease_id] = Out(command, self.now)

    def _publish(self, command: Publish, event: Event, before: Shown | None) -> None:
        assert not self.stopped, "published after the stop"
        grant = command.grant
        assert not grant.lease_id or not self.leases[grant.lease_id].revoking, "published dying"
        if isinstance(event, Issued):
            ttl, sent_at, renewable = grant.ttl, event.sent_at, grant.renewable
            self._replaced(before, grant)
        else:
            assert isinstance(event, Renewed)
            assert before is not None
            asked = self.pace.asked(before.grant.ttl)
            ttl, sent_at = event.renewal.ttl, event.sent_at
            renewable = event.renewal.renewable and not self.pace.shorter(ttl, asked)
        assert command.ends_at == sent_at + ttl, "TTLs count from before the call"
        if self.of_tokens:
            grant.login.ends_at = command.ends_at
        credential = Credential(
            Mutation(), grant.credential_id, grant.lease_id, command.ends_at, grant.login
        )
        self.shown = Shown(credential, grant, ttl, sent_at, renewable)
        self._planned(grant, sent_at, ttl)

    def _replaced(self, before: Shown | None, grant: Grant) -> None:
        self.renew_refused = False
        self.wished = self.wished_again
        old = before.grant.lease_id if before else ""
        if old and old != grant.lease_id:
            self.leases[old].revoke_by = self.now + self.pace.drain

    def _planned(self, grant: Grant, sent_at: float, ttl: float) -> None:
        self.not_before = -inf
        if grant.read_again is not None:
            self.call_by = sent_at + grant.read_again
        else:
            self.call_by = sent_at + ttl * self.pace.renew_to
        if self.wished_again:
            self.call_by, self.wished_again = self.now, False
        if self.locked and not (self.shown and self.shown.renewable):
            self.call_by = inf

    def _withdraw(self, event: Event) -> None:
        shown, self.shown = self.shown, None
        assert shown is not None, "withdrawn twice"
        if isinstance(event, (Revoke, Stop)):
            if isinstance(event, Revoke) or event.revoke:
                self._revoke_soon(shown)
        else:
            assert self._lost(shown, event), "a valid credential was given up"
        self.renew_refused = False
        if self.of_tokens:
            shown.grant.login.ends_at = -inf
        if self.stopped or self.locked:
            self.call_by = inf
        elif self.call is None and not isinstance(event, Failed):
            within = event.within if isinstance(event, LoginLost) else 0.0
            self.call_by = max(self.now, self.not_before) + within

    def _revoke_soon(self, shown: Shown) -> None:
        lease_id = shown.grant.lease_id
        if lease_id and not self.renews(lease_id):
            self.leases[lease_id].revoke_by = self.now

    def _lost(self, shown: Shown, event: Event) -> bool:
        if not shown.credential.usable(self.now):
            return True
        if not isinstance(event, Failed):
            return False
        verdict, leased = event.failure.verdict, bool(shown.grant.lease_id)
        return verdict is (Verdict.LEASE_GONE if leased else Verdict.SECRET_GONE)

    # --- the rules that hold after every event ---

    def _check(self) -> None:
        assert self.machine.wake_at > self.now, "it wants a Tick that it has just had"
        if self.shown:
            credential = self.shown.credential
            assert credential.usable(self.now), "requests get what is dead"
            assert not credential.usable(credential.ends_at)
            assert not credential.usable(credential.login.ends_at)
            assert self.machine.wake_at <= credential.ends_at, "it would sleep past the end"

    def _check_punctual(self) -> None:
        floor = self.pace.backoff_floor
        if self.call is None:
            latest = max(self.call_by + floor, self.not_before)
            assert self.now <= latest + EPS, "a call is overdue"
        for lease_id, lease in self.leases.items():
            if lease.gone(self.now) or self.renews(lease_id):
                continue
            assert self.now <= lease.revoke_by + floor + EPS, "a revocation is overdue"

    def renews(self, lease_id: str) -> bool:
        """Whether the renewal that is out is for this lease."""
        return (
            self.call is not None
            and isinstance(self.call.command, CallRenew)
            and self.call.command.lease_id == lease_id
        )

    def unsettled(self) -> list[str]:
        """The leases that Vault still has and that nothing shows any more."""
        kept = (self.held_id, self.handed_on)
        return [i for i, lease in self.leases.items() if i not in kept and not lease.gone(self.now)]
