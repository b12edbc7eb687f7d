"""One gateway of the fleet: the product's machines and queue, driven without threads.

What ``leases.keeper`` and ``leases.stage`` do with a lock, a clock and workers is done here on
the timeline: commands are carried out, machines woken, calls made by as many workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nextafter
from typing import Any, Final

from fleet_model.tally import Tally
from fleet_model.timeline import Timeline
from fleet_model.vault import Answer, Vault, VaultToken
from vaultauthz.core.calls import TOO_LATE, CallQueue, Next, Out
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    Answered,
    Call,
    CallIssue,
    CallRenew,
    CallRevoke,
    Failed,
    FoundDead,
    Issued,
    LookRound,
    Move,
    NotRevoked,
    Publish,
    Tell,
    Tick,
    Withdraw,
)
from vaultauthz.core.lease_state import StageLeases, State
from vaultauthz.core.pace import Pace
from vaultauthz.core.token import Token, TokenMachine
from vaultauthz.leases.clock import LOOK_ROUND
from vaultauthz.leases.stage import WORKERS

_PACE: Final = Pace()
_TICK: Final = Tick()


class Runner:
    """A machine, and what is planned for it."""

    uses = 0  # nobody's is busier than another's

    def __init__(self, gateway: Gateway, machine: LeaseMachine) -> None:
        self.gateway = gateway
        self.machine = machine
        self.calls = 0  # that are out, or wait to be made
        self.scheduled = inf  # the wake-up that is planned
        self.left_at: float | None = None  # since when there is none, after there was one

    @property
    def ailing(self) -> bool:
        """Whether it waits for Vault, or for its next try."""
        return self.machine.state is not State.HELD or self.machine.failures > 0


class Gateway:
    """The keeper of one gateway with one stage; ``rate`` is its ``calls_per_second``."""

    def __init__(
        self, timeline: Timeline, vault: Vault, tally: Tally, rate: float, upstreams: int
    ) -> None:
        self.timeline = timeline
        self.vault = vault
        self.tally = tally
        self._leases: StageLeases[Runner] = StageLeases()
        self.tokens = TokenMachine(vault, self._leases, _PACE)
        self._login = Runner(self, self.tokens)
        for number in range(upstreams):
            self._leases.shared[str(number)] = Runner(self, LeaseMachine(_PACE))
        self._queue: CallQueue[Runner] = CallQueue(rate, WORKERS - 1, timeline.now, timeline.draw())
        self._free = {True: 1, False: WORKERS - 1}  # workers, by whether they are the login's
        self._go_at = inf  # when the next look at the queues is planned
        self._looks = False  # a look round is planned
        self._doing: dict[type, Callable[[Runner, Any], None]] = {
            CallIssue: self._put,
            CallRenew: self._put,
            CallRevoke: self._put,
            Publish: self._publish,
            Withdraw: self._withdraw,
            Tell: self._tell,
            Move: self._move,
        }

    @property
    def leases(self) -> list[Runner]:
        """One for each upstream."""
        return list(self._leases.shared.values())

    @property
    def token(self) -> Token[Vault]:
        """The token in use. There must be one."""
        assert self.tokens.token is not None
        return self.tokens.token

    # --- beginning ---

    def start(self) -> None:
        """As ``Keeper.start``: everything is due at once."""
        for runner in (self._login, *self.leases):
            self._deliver(runner, _TICK)
        self._go()

    def take_over(self, ends_in: float | None = None) -> None:
        """Hold a token and every lease, as in a fleet that has long run.

        ``ends_in``: seconds until the max TTL of the token, which was just renewed
        for the last time; None for far away.
        """
        vault, nature = self.vault, self.vault.nature
        age, jitter = self._ago(nature.token_ttl) if ends_in is None else (0.0, None)
        grant = vault.token_grant(-age, -age, inf if ends_in is None else ends_in)
        self._hold(self._login, replace(grant, renewable=ends_in is None), age, jitter)
        for runner in self.leases:
            age, jitter = self._ago(nature.lease_ttl)
            self._hold(runner, vault.grant(self.token.secret, self.token.login, -age), age, jitter)

    def _ago(self, ttl: float) -> tuple[float, float]:
        """When the last renewal was, in seconds, and with which jitter the next was planned."""
        draw = self.timeline.draw
        while True:  # a longer interval is more likely to be the one that is found
            age, jitter = ttl * _PACE.renew_to * draw(), draw()
            if age < _PACE.renew_in(ttl, jitter):
                return age, jitter

    def _hold(self, runner: Runner, grant: Grant, age: float, jitter: float | None) -> None:
        machine = runner.machine
        machine.due = -age
        machine.handle(_TICK, -age, 0.0)
        drawn = self.timeline.draw() if jitter is None else jitter
        for command in machine.handle(Issued(grant, -age), -age, drawn):
            self._do(runner, command)
        self._schedule(runner)

    # --- running ---

    def _deliver(self, runner: Runner, event: Any) -> None:
        """Hand an event to a machine and carry out what it says."""
        timeline = self.timeline
        for command in runner.machine.handle(event, timeline.now, timeline.draw()):
            self._do(runner, command)
        self._schedule(runner)
        # While a replaced token waits to be given back; else there is nothing to see.
        if runner is self._login and self.tokens.retired and not self._looks:
            self._looks = True
            timeline.at(timeline.now + LOOK_ROUND, self._look_round)

    def _do(self, runner: Runner, command: Any) -> None:
        do = self._doing.get(type(command))
        if do:
            do(runner, command)

    def _schedule(self, runner: Runner) -> None:
        at = runner.machine.wake_at
        if at != runner.scheduled:
            runner.scheduled = at
            if at < inf:
                self.timeline.at(at, self._wake, runner, at)

    def _wake(self, runner: Runner, at: float) -> None:
        if at == runner.scheduled:  # else it was planned anew meanwhile
            runner.scheduled = inf
            self._deliver(runner, _TICK)
            self._go()

    def _look_round(self, _: None, __: None) -> None:
        self._looks = False
        self._deliver(self._login, LookRound(self._queue.out))
        self._go()

    # --- commands ---

    def _put(self, runner: Runner, call: Call) -> None:
        self._queue.put(runner, call, of_login=runner is self._login)

    def _publish(self, runner: Runner, command: Publish) -> None:
        now, tally = self.timeline.now, self.tally
        if runner.left_at is not None:
            tally.without += now - runner.left_at
            runner.left_at = None
        tally.well(runner, command.grant.login, now)

    def _withdraw(self, runner: Runner, _command: Withdraw) -> None:
        runner.left_at = self.timeline.now
        self.tally.over(self.vault.nature.lease_ttl, runner.left_at)

    def _tell(self, _runner: Runner, command: Tell) -> None:
        self._deliver(command.lease, command.event)

    def _move(self, _runner: Runner, command: Move) -> None:
        self.tally.began_at = self.tally.began_at or self.timeline.now
        self._deliver(command.lease, command.wish)

    # --- calls ---

    def _go(self) -> None:
        """Make the calls that can be made now."""
        if not (self._queue.of_login or self._queue.waiting):
            return
        now = self.timeline.now
        for of_login in (True, False):
            while self._free[of_login]:
                token = self.tokens.token is not None
                found = self._queue.next(now, of_login=of_login, token=token)
                if not isinstance(found, Next):
                    self._go_later(max(now + found, nextafter(now, inf)))
                    break
                self._send(found, now)

    def _go_later(self, at: float) -> None:
        if at < self._go_at:
            self._go_at = at
            self.timeline.at(at, self._go_now, at)

    def _go_now(self, at: float, _: None) -> None:
        if at == self._go_at:
            self._go_at = inf
            self._go()

    def _send(self, made: Next[Runner], now: float) -> None:
        runner, call = made.whose, made.call
        if runner.machine.too_late(call):
            runner.calls -= 1
            self._deliver(runner, TOO_LATE)
            return
        self._free[made.of_login] -= 1
        token = self.tokens.token_for(runner.machine, call)
        out = self._queue.sent(made, token.accessor if token else "", now)
        self.tally.call(now)
        back_at, answer = self._made(made, token)
        self.timeline.at(back_at, self._answered, (out, token), answer)

    def _made(self, made: Next[Runner], token: Token[Vault] | None) -> Answer:
        vault, call = self.vault, made.call
        if made.of_login:
            return self._login_made(call)
        assert token is not None
        truth: VaultToken = token.secret
        if isinstance(call, CallRenew):
            return vault.renew(truth, call.lease_id)
        if isinstance(call, CallRevoke):
            return vault.revoke(truth, call.lease_id)
        return vault.issue(truth, token.login)

    def _login_made(self, call: Call) -> Answer:
        if isinstance(call, CallIssue):
            return self.vault.login()
        token = self.tokens.token_by(call.lease_id)
        assert token is not None
        ends = isinstance(call, CallRevoke)
        return (
            self.vault.revoke_token(token.secret) if ends else self.vault.renew_token(token.secret)
        )

    def _answered(self, of: tuple[Out, Token[Vault] | None], answer: Any) -> None:
        out, token = of
        runner, of_login = out.made.whose, out.made.of_login
        self._free[of_login] += 1
        self._queue.answered(out, answer, self.timeline.now, self.timeline.draw())
        failed = isinstance(answer, (Failed, NotRevoked))
        if failed and not of_login and answer.failure.verdict is Verdict.TOKEN_DEAD:
            self._deliver(self._login, FoundDead(token))
        self._deliver(runner, answer)
        if not of_login:
            self._deliver(self._login, Answered(runner))
        self._go()
