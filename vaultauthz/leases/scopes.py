"""Leases that are not shared by all: one for each caller, or for each request.

A check that finds no credential here gets a ``Later``: it is answered when Vault
has answered, or at its deadline. Checks of one caller that come meanwhile share the
one call to Vault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from typing import Final, Protocol

from vaultauthz.config.values import Upstream
from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import Allowed, Decision, Denied, Reason
from vaultauthz.core.lease_messages import Rotate
from vaultauthz.core.request import Identity, Request
from vaultauthz.leases.later import Later
from vaultauthz.leases.lease_runner import LeaseDriver, LeaseRunner

MAX_WAITING: Final = 1000  # checks that wait for Vault at once, for each upstream and stage
MAX_OUTSTANDING: Final = 1000  # leases of `per: request` that are not revoked yet
# A scope that a reload has replaced drains beside its successor, which then has room for as
# many; whatever reloads follow, all of them together never hold more than this many times.
_TOGETHER: Final = 2
_LOOK_AGAIN: Final = 1.0  # seconds at most, after a look for room that found none

Answer = Decision | Later[Decision]


def _nobody_waits() -> None:
    """Nothing to do when a lease has gone."""


@dataclass(slots=True)
class Tally:
    """How many leases of their own the callers of an upstream have, in one stage.

    Over all scopes of the upstream: one that a reload has replaced still drains.
    """

    alive: int = 0  # at Vault, or being asked for
    freed: Callable[[], None] = _nobody_waits  # told when there is one less


class Lessor(LeaseDriver, Protocol):
    """Who makes and ends leases for a scope: the keeper. All but ``clock`` under its lock."""

    @property
    def drain(self) -> float:
        """Seconds that requests in flight are given before their credential is revoked."""

    def tally(self, stage: str, upstream: str) -> Tally:
        """The upstream's count, whatever scopes reloads make of it."""

    def lease_for(self, stage: str, upstream: Upstream, caller: str, scope: Scope) -> LeaseRunner:
        """A lease in a scope, to ``begin`` when there is room for it."""

    def begin(self, runner: LeaseRunner) -> None:
        """Fetch it."""

    def let_go(self, runner: LeaseRunner, drain: float) -> None:
        """Revoke it in ``drain`` seconds."""

    def call_in(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it so much later, under the lock."""


class _WaitingCheck:
    """Where a check waits. Empty once it is answered, whatever timer still points here."""

    __slots__ = ("later", "runner")

    def __init__(self, runner: LeaseRunner) -> None:
        self.runner: LeaseRunner | None = runner
        self.later: Later[Decision] = Later()

    def leave(self) -> Later[Decision]:
        """What was promised, to be answered now."""
        promised, self.runner, self.later = self.later, None, _NOTHING
        return promised


_NOTHING: Final[Later[Decision]] = Later()


class _Scope:
    """What both kinds share; everything but the quick look is under the keeper's lock."""

    def __init__(self, lessor: Lessor, stage: str, upstream: Upstream) -> None:
        self._lessor = lessor
        self._stage = stage
        self._upstream = upstream
        self._waiting: dict[LeaseRunner, list[_WaitingCheck]] = {}
        self._waiters = 0
        self.name = upstream.name
        self._closed = False
        self.alive = 0  # leases that exist at Vault, or are being asked for
        self._tally = lessor.tally(stage, upstream.name)
        self._tally.freed = self.freed

    def recount(self, runner: LeaseRunner) -> None:
        """Take over how many leases ``runner`` has now; the keeper tells after each event."""
        more = runner.alive - runner.counted
        if more:
            runner.counted += more
            self.alive += more
            self._tally.alive += more
        if more < 0:
            self._tally.freed()
        self.moved(runner)

    def moved(self, runner: LeaseRunner) -> None:
        """Something has happened to this one's lease."""

    def freed(self) -> None:
        """There is one lease less."""

    def rotate(self, runner: LeaseRunner, wish: Rotate) -> None:
        """Have its lease replaced."""
        self._lessor.deliver(runner, wish)

    def postpones(self, runner: LeaseRunner) -> bool:
        """Whether its replacement waits for room."""
        return False

    def _holds(self, most: int) -> bool:
        """Whether another lease is within the bound."""
        return self.alive < most and self._tally.alive < _TOGETHER * most

    def _allowed(self, credential: Credential) -> Allowed:
        return Allowed(self._upstream.name, self._stage, credential)

    def _denied(self, reason: Reason, retry_after: int = 0) -> Denied:
        return Denied(reason, self._upstream.name, self._stage, retry_after)

    def _wait(self, runner: LeaseRunner, seconds: float) -> Answer:
        """A place in the queue for what ``runner`` fetches, for at most so long."""
        if self._waiters >= MAX_WAITING:
            return self._denied(Reason.OVERLOADED, 1)
        waiter = _WaitingCheck(runner)
        promised = waiter.later
        self._waiting.setdefault(runner, []).append(waiter)
        self._waiters += 1
        self._lessor.call_in(seconds, lambda: self._give_up(waiter))
        return promised

    def _give_up(self, waiter: _WaitingCheck) -> None:
        """The deadline: nothing, for one that has its answer."""
        if waiter.runner is None:
            return
        runner, waiting = waiter.runner, self._waiting[waiter.runner]
        waiting.remove(waiter)
        if not waiting:
            del self._waiting[runner]
        self._settle(waiter, self._denied(Reason.NO_CREDENTIAL, 1))
        if not waiting:
            self._unwanted(runner)

    def _unwanted(self, runner: LeaseRunner) -> None:
        """Nobody waits any more for what ``runner`` fetches."""

    def _answer(self, runner: LeaseRunner, decision: Decision) -> None:
        for waiter in self._waiting.pop(runner, ()):
            self._settle(waiter, decision)

    def _settle(self, waiter: _WaitingCheck, decision: Decision) -> None:
        self._waiters -= 1
        later = waiter.leave()
        later.answer(decision)

    def failed(self, runner: LeaseRunner) -> None:
        """Vault has given nothing: who waits is told so at once."""
        wait = runner.retry_after if runner.machine.resting else 1
        self._answer(runner, self._denied(Reason.NO_CREDENTIAL, wait))

    def refuse(self) -> None:
        """The end: who waits, or still comes, is denied."""
        self._closed = True
        for runner in tuple(self._waiting):
            self.failed(runner)


class PerCaller(_Scope):
    """One lease for each caller that the gateway has authenticated.

    At most ``max_callers`` are alive at Vault: those count that still drain, and those
    that could not be revoked. One that is not used for ``idle`` seconds is given back.
    One that came and did not come back makes room as soon as no request can be using it;
    regulars don't, so that a flood of strangers cannot drive them out.
    """

    def __init__(self, lessor: Lessor, stage: str, upstream: Upstream) -> None:
        super().__init__(lessor, stage, upstream)
        self._runners: dict[Identity, LeaseRunner] = {}
        self._pending: dict[LeaseRunner, Identity] = {}  # begun when another's is revoked
        self._old: dict[LeaseRunner, Rotate] = {}  # to be replaced when those before are revoked
        self._no_room_until = -inf

    def take(self, request: Request, wait: float) -> Answer:
        """The caller's own credential, or a promise of it within ``wait`` seconds."""
        identity = request.identity
        if not identity:
            return self._denied(Reason.CALLER_DENIED)  # nobody's lease is nobody's to use
        runner = self._runners.get(identity)
        if runner is not None:
            runner.used_at = now = self._lessor.clock()
            credential = runner.slot.credential
            if credential is not None and credential.usable(now):
                return self._allowed(credential)
        with self._lessor.lock:
            return self._take(identity, request.caller, wait)

    def _take(self, identity: Identity, caller: str, wait: float) -> Answer:
        if self._closed:
            return self._denied(Reason.NO_CREDENTIAL, 1)
        runner = self._runners.get(identity)
        if runner is None:
            if self._waiters >= MAX_WAITING or not self._make_room():
                return self._denied(Reason.OVERLOADED, 1)
            runner = self._lessor.lease_for(self._stage, self._upstream, caller, self)
            self._runners[identity] = runner
            self._pending[runner] = identity
            self.freed()
        runner.used_at = now = self._lessor.clock()
        credential = runner.slot.credential
        if credential is not None and credential.usable(now):
            return self._allowed(credential)
        if runner.machine.resting:  # Vault has just said no: its answer is the same for all who ask
            return self._denied(Reason.NO_CREDENTIAL, runner.retry_after)
        return self._wait(runner, wait)

    def freed(self) -> None:
        """Have those begin that there is room for now."""
        while self._pending and self._holds(self._upstream.max_callers):
            runner = next(iter(self._pending))
            del self._pending[runner]
            self._lessor.begin(runner)
        for runner in tuple(self._old) if self._has_room_to_replace() else ():
            if not self._has_room_to_replace():
                break
            self.moved(runner)

    def rotate(self, runner: LeaseRunner, wish: Rotate) -> None:
        """Have its lease replaced, as soon as there is room for two and no call is out for it."""
        self._old[runner] = wish
        self.moved(runner)

    def postpones(self, runner: LeaseRunner) -> bool:
        return runner in self._old

    def moved(self, runner: LeaseRunner) -> None:
        if runner in self._old and self._has_room_to_replace() and not runner.machine.calling:
            super().rotate(runner, self._old.pop(runner))

    def _has_room_to_replace(self) -> bool:
        return self._tally.alive < _TOGETHER * self._upstream.max_callers

    def _make_room(self) -> bool:
        """Whether there is room for another, or will be as soon as Vault has revoked one."""
        most = self._upstream.max_callers
        if self._holds(most) and not self._pending:
            return True
        leaving = self.alive - (len(self._runners) - len(self._pending))
        if leaving > len(self._pending) and len(self._runners) < most:
            return True
        now = self._lessor.clock()
        if now < self._no_room_until:
            return False
        guests = [(self._until(r), k) for k, r in self._runners.items() if r not in self._waiting]
        until, guest = min(guests, key=itemgetter(0), default=(inf, None))
        if guest is None or until > now:
            self._no_room_until = min(until, now + _LOOK_AGAIN)
            return False
        self._drop(guest)
        return True

    def _until(self, runner: LeaseRunner) -> float:
        """The time from which this one makes room for another."""
        if runner.machine.resting:
            return -inf  # it holds nothing
        idle = self._upstream.idle
        return runner.used_at + (idle if self._regular(runner) else min(idle, self._lessor.drain))

    def _regular(self, runner: LeaseRunner) -> bool:
        """Whether its caller came back, later than a request of the first time can last."""
        return runner.used_at - runner.came_at >= self._lessor.drain

    def adjust(self, upstream: Upstream) -> None:
        """Go on by another ``max_callers`` and ``idle``; the longest unused of too many go."""
        self._upstream, self._no_room_until = upstream, -inf
        begun = [k for k, r in self._runners.items() if r not in self._pending]
        begun.sort(key=lambda known: self._runners[known].used_at)
        for identity in begun[: max(0, len(begun) - upstream.max_callers)]:
            self._drop(identity)
        self.freed()

    def published(self, runner: LeaseRunner, credential: Credential) -> None:
        """Answer who waits for this."""
        if runner in self._waiting:
            first, runner.used_at = not self._regular(runner), self._lessor.clock()
            if first:  # to wait for Vault is not to come back
                runner.came_at = runner.used_at
        self._answer(runner, self._allowed(credential))

    def failed(self, runner: LeaseRunner) -> None:
        super().failed(runner)
        self._no_room_until = -inf

    def _unwanted(self, runner: LeaseRunner) -> None:
        if runner in self._pending:
            self._drop(self._pending[runner])

    def look_round(self, now: float) -> None:
        """Give back what nobody has used for long."""
        idle = self._upstream.idle
        for identity, runner in tuple(self._runners.items()):
            if now - runner.used_at > idle and runner not in self._waiting:
                self._drop(identity)

    def _drop(self, identity: Identity) -> None:
        runner = self._runners.pop(identity)
        self._pending.pop(runner, None)
        self._old.pop(runner, None)
        self._no_room_until = -inf
        super().failed(runner)
        # Out of sight first: a check that saw it still has said so in `used_at` before.
        runner.slot.credential = None
        # What a request may still be using drains; what has long been idle need not.
        unused = self._lessor.clock() - runner.used_at
        self._lessor.let_go(runner, max(0.0, self._lessor.drain - unused))

    def close(self) -> None:
        """Deny who waits or still comes, and give all leases back."""
        self.refuse()
        for identity in tuple(self._runners):
            self._drop(identity)


class PerRequest(_Scope):
    """One lease for each request, given back ``hold`` seconds after it was issued."""

    def __init__(self, lessor: Lessor, stage: str, upstream: Upstream) -> None:
        super().__init__(lessor, stage, upstream)
        self._rest_until = -inf  # what Vault refused to one request, it need not be asked by all

    def take(self, request: Request, wait: float) -> Answer:
        """A promise of a credential within ``wait`` seconds; never one that is there."""
        with self._lessor.lock:
            if self._closed:
                return self._denied(Reason.NO_CREDENTIAL, 1)
            if self._waiters >= MAX_WAITING or not self._holds(MAX_OUTSTANDING):
                return self._denied(Reason.OVERLOADED, 1)
            rest = self._rest_until - self._lessor.clock()
            if rest > 0:
                return self._denied(Reason.NO_CREDENTIAL, math.ceil(min(rest, 60.0)))
            runner = self._lessor.lease_for(self._stage, self._upstream, request.caller, self)
            self._lessor.begin(runner)
            return self._wait(runner, wait)

    def _unwanted(self, runner: LeaseRunner) -> None:
        self._lessor.let_go(runner, 0.0)

    def published(self, runner: LeaseRunner, credential: Credential) -> None:
        """Answer the request that this is for; from now on the lease only ends."""
        self._rest_until = -inf
        self._answer(runner, self._allowed(credential))
        runner.slot.credential = None  # it is not kept in memory for longer than it is used
        self._lessor.let_go(runner, self._upstream.hold)

    def failed(self, runner: LeaseRunner) -> None:
        if runner.machine.resting:
            self._rest_until = runner.machine.due
        super().failed(runner)
        self._lessor.let_go(runner, 0.0)

    def adjust(self, upstream: Upstream) -> None:
        """Go on by another ``hold``, for the leases that come from now on."""
        self._upstream = upstream

    def close(self) -> None:
        """Deny who waits or still comes; what was given out is on its way to its end."""
        self.refuse()

    def look_round(self, now: float) -> None:
        """Nothing grows old here."""


Scope = PerCaller | PerRequest
KINDS: Final[dict[str, Callable[[Lessor, str, Upstream], Scope]]] = {
    "caller": PerCaller,
    "request": PerRequest,
}
