"""One gateway of the fleet: what ``leases.keeper`` does around the machines, without threads.

Kept like ``vaultauthz/leases/{keeper,stage,runner}.py``: at most three calls for leases
at once, first come, first served; they wait for a login; logins have a worker of their
own and go before; ``Flow`` says when; a new token has its predecessor's leases move, a
dead one has them fetched again.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from math import inf
from typing import Any, Final

from fleet_model.runner import (
    LOOK_ROUND,
    TICK,
    Call,
    LeaseRunner,
    LoginRunner,
    Runner,
    Token,
)
from fleet_model.tally import Tally
from fleet_model.timeline import Timeline
from fleet_model.vault import Vault
from vaultauthz.core.calls import Flow
from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Failure, Grant, Verdict
from vaultauthz.core.lease import LeaseMachine, State
from vaultauthz.core.lease_messages import (
    Failed,
    Issued,
    NotRevoked,
    Release,
    Rotate,
)
from vaultauthz.core.pace import Pace
from vaultauthz.leases.stage import WORKERS

_PACE: Final = Pace()
_TOKEN_PACE: Final = replace(_PACE, drain=inf)
_TOO_LATE: Final = Failed(Failure(Verdict.LEASE_GONE, "its lease ended before the call"))

Queue = deque[tuple[Runner, Call]]


class Gateway:
    """The keeper of one gateway with one stage; ``rate`` is its ``calls_per_second``."""

    def __init__(
        self, timeline: Timeline, vault: Vault, tally: Tally, rate: float, upstreams: int
    ) -> None:
        self.timeline = timeline
        self.vault = vault
        self.tally = tally
        self.token: Token | None = None
        self.flow = Flow(rate, timeline.now, timeline.draw())
        self.login_calls: Queue = deque()
        self.lease_calls: Queue = deque()
        self.login = LoginRunner(self, LeaseMachine(_TOKEN_PACE))
        self.leases = [LeaseRunner(self, LeaseMachine(_PACE)) for _ in range(upstreams)]
        self._free = WORKERS - 1  # one is the login's
        self._login_free = True
        self._out: Counter[Token | None] = Counter()  # calls that are out, by their token
        self._go_at = inf  # when the next look at the queues is planned

    # --- beginning ---

    def start(self) -> None:
        """As ``Keeper.start``: everything is due at once."""
        for runner in (self.login, *self.leases):
            self.deliver(runner, TICK)
        self.go()

    def take_over(self, ends_in: float | None = None) -> None:
        """Hold a token and every lease, as in a fleet that has long run.

        ``ends_in``: seconds until the max TTL of the token, which was just renewed
        for the last time; None for far away.
        """
        vault, pace, nature = self.vault, self.login.machine.pace, self.vault.nature
        age, jitter = self._ago(pace, nature.token_ttl) if ends_in is None else (0.0, None)
        grant = vault.token_grant(-age, -age, inf if ends_in is None else ends_in)
        self._hold(self.login, replace(grant, renewable=ends_in is None), age, jitter)
        assert self.token is not None
        for runner in self.leases:
            age, jitter = self._ago(pace, nature.lease_ttl)
            self._hold(runner, vault.grant(self.token.truth, self.login_now(), -age), age, jitter)

    def _ago(self, pace: Pace, ttl: float) -> tuple[float, float]:
        """When the last renewal was, in seconds, and with which jitter the next was planned."""
        draw = self.timeline.draw
        while True:  # a longer interval is more likely to be the one that is found
            age, jitter = ttl * pace.renew_to * draw(), draw()
            if age < pace.renew_in(ttl, jitter):
                return age, jitter

    def _hold(self, runner: Runner, grant: Grant, age: float, jitter: float | None) -> None:
        machine = runner.machine
        machine.due = -age
        machine.handle(TICK, -age, 0.0)
        drawn = self.timeline.draw() if jitter is None else jitter
        for command in machine.handle(Issued(grant, -age), -age, drawn):
            runner.do(command)
        self._schedule(runner)

    def login_now(self) -> Login:
        """The login of new leases. There must be one."""
        assert self.token is not None
        return self.token.grant.login

    # --- running ---

    def deliver(self, runner: Runner, event: Any) -> None:
        """Hand an event to a machine and carry out what it says."""
        timeline = self.timeline
        for command in runner.machine.handle(event, timeline.now, timeline.draw()):
            runner.do(command)
        self._schedule(runner)

    def _schedule(self, runner: Runner) -> None:
        at = runner.machine.wake_at
        if at != runner.scheduled:
            runner.scheduled = at
            if at < inf:
                self.timeline.at(at, self._wake, runner, at)

    def _wake(self, runner: Runner, at: float) -> None:
        if at == runner.scheduled:  # else it was planned anew meanwhile
            runner.scheduled = inf
            self.deliver(runner, TICK)
            self.go()

    def go(self) -> None:
        """Make the calls that can be made now; the login's are first."""
        if not self.login_calls and not self.lease_calls:
            return
        now = self.timeline.now
        while (queue := self._next_queue()) is not None:
            ready_at = self.flow.ready_at()
            if ready_at > now:
                self._go_later(ready_at)
                return
            runner, call = queue.popleft()
            if runner.too_late(call):
                self.deliver(runner, _TOO_LATE)
                continue
            self._send(runner, call, now)

    def _next_queue(self) -> Queue | None:
        if self.login_calls:
            return self.login_calls if self._login_free else None
        if self.lease_calls and self._free and self.token:
            return self.lease_calls
        return None

    def _go_later(self, at: float) -> None:
        if at < self._go_at:
            self._go_at = at
            self.timeline.at(at, self._go_now, at)

    def _go_now(self, at: float, _: None) -> None:
        if at == self._go_at:
            self._go_at = inf
            self.go()

    def _send(self, runner: Runner, call: Call, now: float) -> None:
        if runner is self.login:
            self._login_free = False
        else:
            self._free -= 1
        token = runner.token_for(call)
        self._out[token] += 1
        self.flow.sent(now)
        self.tally.call(now)
        back_at, answer = runner.make(call)
        self.timeline.at(back_at, self._answered, runner, (answer, now, token))

    def _answered(self, runner: Runner, outcome: tuple[Any, float, Token | None]) -> None:
        answer, sent_at, token = outcome
        self._out[token] -= 1
        failure = answer.failure if type(answer) in (Failed, NotRevoked) else None
        away = failure is not None and failure.away
        self.flow.answered(sent_at, self.timeline.now, self.timeline.draw(), pushback=away)
        if runner is self.login:
            self._login_free = True
        else:
            self._free += 1
            if failure and failure.verdict is Verdict.TOKEN_DEAD and token:
                self.login.found_dead(token)
        self.deliver(runner, answer)
        if runner is not self.login:
            self._leave_old_login(runner.machine, runner)
        self.go()

    def _leave_old_login(self, machine: LeaseMachine, runner: Runner) -> None:
        """Rotate what was fetched with a token that was replaced while the call was out."""
        if machine.state is not State.HELD or machine.held is None or self.token is None:
            return
        moved = machine.held.grant.login is self.token.grant.login
        if not moved and machine.due > self.timeline.now:
            self.deliver(runner, Rotate())

    def look_round(self, _: None, __: None) -> None:
        """Let go of old tokens that nothing hangs on any more."""
        retired = self.login.machine.retired
        for old in retired:
            used = self._out[self.login.token_of(old.login)]
            if not used and not any(runner.hangs_on(old.login) for runner in self.leases):
                self.deliver(self.login, Release(old.lease_id))
        self.go()
        if len(retired):
            self.timeline.at(self.timeline.now + LOOK_ROUND, self.look_round)

    def leases_of(self, token: Token) -> list[LeaseRunner]:
        """The leases that hang on ``token``."""
        login = token.grant.login
        return [r for r in self.leases if r.machine.held and r.machine.held.grant.login is login]
