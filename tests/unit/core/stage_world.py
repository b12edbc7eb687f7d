"""A whole stage on a clock of ours: its machines, its queue of calls, and a Vault that answers.

What the keeper does with a lock and workers is done here step by step, and after each step
nothing may be served that Vault has ended.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from tests.unit.core.stage_life import Lease, Source, StageLife, token_grant
from vaultauthz.core.calls import TOO_LATE, CallQueue, Next, Out
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict
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
    NotRevoked,
    Renewed,
    Revoked,
)
from vaultauthz.core.pace import Pace

WORKERS = 3
DEAD = Failure(Verdict.TOKEN_DEAD, "Vault knows the token no more")
GONE = Failure(Verdict.LEASE_GONE, "gone")


@dataclass
class Known:
    """What Vault knows of a token or a lease."""

    ends_at: float
    max_at: float
    token: str = ""  # of a lease: its token's accessor

    def renew(self, now: float, ttl: float) -> float:
        """Prolong it; what is left then."""
        self.ends_at = min(now + ttl, self.max_at)
        return self.ends_at - now


# How a call goes: after how many seconds it is answered, and as what failure if it fails.
Course = Callable[[str, Call], tuple[float, Failure | None]]


class StageWorld(StageLife):
    """Runs by itself; ``course`` says how the call for an upstream ("" for the login) goes."""

    def __init__(
        self,
        *names: str,
        course: Course = lambda name, call: (0.01, None),
        ttl: float = 60.0,
        token_ttl: float = 60.0,
        token_max: float = inf,
        owned: bool = True,
        pace: Pace = Pace(drain=2.0),
        seed: int = 1,
    ) -> None:
        super().__init__(*names, source=Source(owned), pace=pace)
        self.course = course
        self.ttl, self.token_ttl, self.token_max = ttl, token_ttl, token_max
        self.known_tokens: dict[str, Known] = {}
        self.known_leases: dict[str, Known] = {}
        self.draw = random.Random(seed).random
        self.queue: CallQueue[Any] = CallQueue(inf, WORKERS, self.now, 0.0)
        self.free = {True: 1, False: WORKERS}
        self.login = Lease("", self.tokens)
        self.gaps: list[tuple[str, float]] = []  # an upstream that had one had none, and when
        self.issued: list[str] = []  # whose, in order
        self.renewed: list[str] = []
        self._had: set[str] = set()
        self._killed = ""  # by an operator, which nobody could know at once
        self._answers: list[tuple[float, int, Out, Any, Any]] = []
        self._count = itertools.count()
        self._look_at = 1.0

    # --- running ---

    def run(self, until: float) -> None:
        """Let everything happen that happens by then."""
        self._settle()
        while (first := self._first()) <= until:
            self.now = max(self.now, first)
            self._step()
            self._settle()
            self._check()
        self.now = until

    def _first(self) -> float:
        wakes = [machine.wake_at for machine in self._machines()]
        answers = [self._answers[0][0]] if self._answers else []
        return min(*wakes, *answers, self._look_at, self._ready_at())

    def _ready_at(self) -> float:
        waits = (self.queue.of_login and self.free[True]) or (
            self.queue.waiting and self.free[False]
        )
        ready_at = self.queue.flow.ready_at()
        return ready_at if waits and ready_at > self.now else inf

    def _step(self) -> None:
        while self._answers and self._answers[0][0] <= self.now:
            _, _, out, token, answer = heapq.heappop(self._answers)
            self._answered(out, token, answer)
        if self.now >= self._look_at:
            self._look_at = self.now + 1.0
            self.tell(LookRound(self.queue.out), self.draw())
            self.leases.forget_gone()
        self._wake()

    def _settle(self) -> None:
        """Queue what the machines want, and send what may go."""
        for lease in (self.login, *self.leases):
            waiting = self.out if lease is self.login else lease.out
            for call in waiting:
                self.queue.put(lease, call, of_login=lease is self.login)
            waiting.clear()
        for of_login in (True, False):
            while self.free[of_login]:
                token = self.tokens.token is not None
                found = self.queue.next(self.now, of_login=of_login, token=token)
                if not isinstance(found, Next):
                    break
                self._send(found)

    def _send(self, made: Next[Any]) -> None:
        lease, call = made.whose, made.call
        if lease.machine.too_late(call):
            lease.calls -= 1
            self.tell_lease(lease, TOO_LATE)
            return
        token = self.tokens.token_for(lease.machine, call)
        out = self.queue.sent(made, token.accessor if token else "", self.now)
        self.free[made.of_login] -= 1
        seconds, failure = self.course(lease.name, call)
        answer = (
            self._login_call(call, failure)
            if made.of_login
            else self._lease_call(lease, call, token, failure)
        )
        entry = (self.now + max(seconds, 1e-6), next(self._count), out, token, answer)
        heapq.heappush(self._answers, entry)

    def _answered(self, out: Out, token: Any, answer: Any) -> None:
        lease, of_login = out.made.whose, out.made.of_login
        self.free[of_login] += 1
        self.queue.answered(out, answer, self.now, self.draw())
        if of_login:
            self.tell(answer, self.draw())
            return
        if isinstance(answer, (Failed, NotRevoked)) and answer.failure is DEAD:
            self.tell(FoundDead(token), self.draw())
        self.tell_lease(lease, answer, self.draw())
        self.tell(Answered(lease), self.draw())

    # --- Vault ---

    def _login_call(self, call: Call, failure: Failure | None) -> Any:
        if failure:
            return _not_made(call, failure)
        if isinstance(call, CallIssue):
            self.made += 1
            name = f"t{self.made}"
            known = self.known_tokens[name] = Known(0.0, self.now + self.token_max)
            ttl = known.renew(self.now, self.token_ttl)
            return Issued(
                token_grant(name, self.now, ttl, self.tokens.source, renewable=True), self.now
            )
        known = self.known_tokens[call.lease_id]
        if self.now >= known.ends_at:
            return _not_made(call, GONE)
        if isinstance(call, CallRenew):
            return Renewed(Renewal(known.renew(self.now, self.token_ttl)), self.now)
        known.ends_at = self.now
        return Revoked(call.lease_id)

    def _lease_call(self, lease: Lease, call: Call, token: Any, failure: Failure | None) -> Any:
        if token is None or not self._alive(self.known_tokens[token.accessor]):
            failure = failure or DEAD
        if failure:
            return _not_made(call, failure)
        if isinstance(call, CallIssue):
            self.made += 1
            name = f"{lease.name}-{self.made}"
            self.known_leases[name] = Known(self.now + self.ttl, inf, token.accessor)
            self.issued.append(lease.name)
            return Issued(
                Grant(None, self.ttl, name, True, credential_id=name, login=token.login), self.now
            )
        known = self.known_leases[call.lease_id]
        if isinstance(call, CallRevoke):
            known.ends_at = min(known.ends_at, self.now)
            return Revoked(call.lease_id)
        if not self.lease_alive(call.lease_id):
            return Failed(GONE)
        self.renewed.append(lease.name)
        return Renewed(Renewal(known.renew(self.now, self.ttl)), self.now)

    def _alive(self, known: Known) -> bool:
        return self.now < known.ends_at

    def lease_alive(self, lease_id: str) -> bool:
        """Whether Vault has not ended it."""
        known = self.known_leases[lease_id]
        return self._alive(known) and self._alive(self.known_tokens[known.token])

    def kill_token(self) -> None:
        """An operator revokes the token in use."""
        if self.tokens.token:
            self.known_tokens[self.tokens.token.accessor].ends_at = self.now
            self._killed = self.tokens.token.accessor

    def living(self) -> list[str]:
        """What Vault still has: tokens' accessors and leases' ids."""
        tokens = [name for name, known in self.known_tokens.items() if self._alive(known)]
        return [*tokens, *(name for name in self.known_leases if self.lease_alive(name))]

    # --- what must hold ---

    def _check(self) -> None:
        for lease in self.leases:
            shown = lease.shown
            if shown is None or not shown.usable(self.now):
                if lease.name in self._had:
                    self._had.remove(lease.name)
                    self.gaps.append((lease.name, self.now))
                continue
            self._had.add(lease.name)
            killed = self.known_leases[shown.lease_id].token == self._killed
            assert self.lease_alive(shown.lease_id) or killed, f"{lease.name} is served dead"


def _not_made(call: Call, failure: Failure) -> Any:
    return NotRevoked(call.lease_id, failure) if isinstance(call, CallRevoke) else Failed(failure)
