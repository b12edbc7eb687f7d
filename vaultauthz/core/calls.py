"""The calls of one stage to Vault: which is made next, and when.

Pure, like ``core.lease``: times and jitter in, times out. Each call is told when it is sent
and when it is answered. ``CallQueue`` has the order:

- Calls for leases, but for revocations, wait until there is a token; those for the login
  itself have a queue and a worker of their own, so that they never stand behind a lease.
- Of the leases' calls those come first that keep a credential which is in use and is well;
  then what has none yet, then what failed the last time. These two never take the last
  worker when they are slow: each may take as long as a call can.

``Flow`` has the pace, and the manners when Vault is ill. Two things are bounded:

- The pace. Calls are at least ``1 / rate`` seconds apart, so a fleet makes at most
  gateways times rate calls a second, whatever happens to it.
- The pressure on a Vault that does not cope. The gap between calls doubles, up to
  ``LONGEST``, after ``STRIKES`` calls in a row that Vault itself turned away or left
  unanswered, and then one call at a time tries whether it is back. A slow answer widens
  the gap too, before calls time out and their work is wasted, but to no more than the
  answer took: some engines are slow and well. A quick answer halves the gap.

What fails for one credential only says nothing of the others, and slows none of them
down, as that credential has a backoff: an engine's own error never does, and what may be
Vault's trouble or an engine's (no answer in time, a quota) does not while other calls
work.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Generic, TypeVar

from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease_messages import Call, CallRevoke, Failed, NotRevoked
from vaultauthz.core.lease_state import Caller

STRIKES: Final = 3  # fewer may be the fault of what is behind Vault
SHORTEST: Final = 0.5  # seconds between calls when Vault begins to fail
LONGEST: Final = 5.0  # … and when it has been failing for long
LATELY: Final = 10.0  # seconds for which a call that worked speaks for Vault
SLOW: Final = 1.0  # seconds; an answer that took longer has stood in a queue, most likely


class Flow:
    """The pace of one stage's calls. ``rate`` is in calls a second; infinity for no bound."""

    __slots__ = ("_base", "_gap", "_next_at", "_out", "_strikes", "_widened_at", "_worked_at")

    def __init__(self, rate: float, start_at: float, jitter: float) -> None:
        self._base = 1.0 / rate
        self._gap = self._base
        # Gateways that start together must not keep step for ever.
        self._next_at = start_at + self._base * jitter
        self._out = 0
        self._strikes = 0
        self._widened_at = -inf
        self._worked_at = -inf

    def ready_at(self) -> float:
        """When the next call may go; infinity for: not before an answer is in."""
        if self._strikes >= STRIKES and self._out:
            return inf
        return self._next_at

    def sent(self, now: float) -> None:
        """A call has gone."""
        self._out += 1
        self._next_at = now + self._gap

    def answered(
        self, sent_at: float, now: float, jitter: float, *, pushback: bool, failed: bool = False
    ) -> None:
        """A call is over. ``pushback``: Vault did not answer it, or asked for fewer.

        ``failed``: it answered, that what is behind it does not work, or with a no.
        """
        self._out -= 1
        if not pushback and not failed:
            self._worked_at = now
        if pushback and self._strikes < STRIKES and now - self._worked_at < LATELY:
            return
        self._strikes = self._strikes + 1 if pushback else 0
        took = now - sent_at
        if self._strikes >= STRIKES:
            self._widen(self._gap * 2, LONGEST, sent_at, now, jitter)
        elif failed and took > SLOW:
            return  # by no fault of Vault's
        elif not pushback and took > SLOW:
            self._widen(self._gap * 1.5, took, sent_at, now, jitter)
        elif not pushback:
            self._gap = max(self._base, self._gap / 2) if self._gap > SHORTEST else self._base
            self._next_at = min(self._next_at, now + self._gap)

    def _widen(self, gap: float, most: float, sent_at: float, now: float, jitter: float) -> None:
        if sent_at < self._widened_at:
            return  # calls that were out together count once
        self._widened_at = now
        self._gap = max(self._gap, min(most, max(SHORTEST, gap)))
        self._next_at = now + self._gap * (0.5 + 0.5 * jitter)


# The answer to a call that waited until the lease which it was to renew had ended.
TOO_LATE: Final = Failed(
    Failure(Verdict.LEASE_GONE, "its lease ended before the call could be made")
)

_TURN: Final = 4  # of so many calls one keeps no credential, if any such wait
_QUICK: Final = 0.25  # seconds; a call that takes longer may take all its time


C = TypeVar("C", bound=Caller)
_Entries = deque[tuple[C, Call]]


@dataclass(frozen=True, slots=True)
class Next(Generic[C]):
    """A call that is made next; ``keeps``: a credential that is in use."""

    whose: C
    call: Call
    of_login: bool
    keeps: bool = False


@dataclass(frozen=True, slots=True)
class Out:
    """A call that is out since ``at``, with the token of this accessor."""

    made: Next[Any]
    accessor: str
    at: float
    flow: Flow


class CallQueue(Generic[C]):
    """The calls that wait and those that are out, by the rules at the top of this file.

    ``workers`` make the leases' calls, and one the login's. ``rate`` is in calls a second.
    """

    def __init__(self, rate: float, workers: int, now: float, jitter: float) -> None:
        self.flow = self.flow_before = Flow(rate, now, jitter)
        self.stopping = False  # from then on only revocations are made, and at once
        self.out: Counter[str] = Counter()  # how many, by their token's accessor
        self.of_login: _Entries[C] = deque()
        self._keeping: _Entries[C] = deque()  # of credentials that are in use
        self._others: _Entries[C] = deque()
        self._again: _Entries[C] = deque()  # of what failed the last time
        self._workers = workers
        self._others_out: list[float] = []  # since when, of those that keep none
        self._others_slow = False  # the last of those that was answered
        self._turns = 0
        self._revocations = 0  # that wait

    def change_rate(self, rate: float, now: float, jitter: float) -> None:
        """Begin with a flow of its own: another Vault, or another pace."""
        self.flow_before, self.flow = self.flow, Flow(rate, now, jitter)

    # --- what waits ---

    def put(self, whose: C, call: Call, *, of_login: bool) -> None:
        """Have the call made."""
        whose.calls += 1
        if of_login:
            self.of_login.append((whose, call))
            return
        self._revocations += isinstance(call, CallRevoke)
        if whose.machine.failed_before(call):
            self._again.append((whose, call))
        elif whose.machine.held is not None and not isinstance(call, CallRevoke):
            self._keeping.append((whose, call))
        else:
            self._others.append((whose, call))

    @property
    def waiting(self) -> int:
        """How many calls of leases wait."""
        return len(self._keeping) + len(self._others) + len(self._again)

    def idle(self, *, token: bool) -> bool:
        """Whether no call is out or waits that could be made; ``token``: whether there is one."""
        calls = self.waiting if token else self._revocations
        return not (self.out.total() or self.of_login or calls)

    def forget(self, unwanted: Callable[[C, Call], bool]) -> list[C]:
        """Do not make these calls; returns whose they were, as their machines wait for an answer."""
        forgotten = []
        for queue in (self._keeping, self._others, self._again, self.of_login):
            entries = tuple(queue)
            queue.clear()
            for entry in entries:
                if unwanted(*entry):
                    forgotten.append(entry[0])
                    entry[0].calls -= 1
                else:
                    queue.append(entry)
        waiting = (*self._keeping, *self._others, *self._again)
        self._revocations = sum(isinstance(call, CallRevoke) for _, call in waiting)
        return forgotten

    # --- what is made ---

    def next(self, now: float, *, of_login: bool, token: bool) -> Next[C] | float:
        """The call to make now; or how long there is none, infinity: until something happens."""
        wait = 0.0 if self.stopping else self.flow.ready_at() - now
        login_first = not of_login and bool(self.of_login) and not self.stopping
        if wait <= 0 and not login_first:
            taken = self._take_login() if of_login else self._take_lease(now, token=token)
            if taken:
                return taken
        waiting = len(self.of_login) if of_login else self.waiting
        return wait if waiting and wait > 0 else inf

    def _take_login(self) -> Next[C] | None:
        return Next(*self.of_login.popleft(), of_login=True) if self.of_login else None

    def _take_lease(self, now: float, *, token: bool) -> Next[C] | None:
        for queue in self._order(now):
            entry = None
            if queue and token:
                entry = queue.popleft()
            elif self._revocations:  # with the token that the lease was taken with
                entry = next((e for e in queue if isinstance(e[1], CallRevoke)), None)
                if entry:
                    queue.remove(entry)
            if entry:
                self._turns += 1
                self._revocations -= isinstance(entry[1], CallRevoke)
                return Next(*entry, of_login=False, keeps=queue is self._keeping)
        return None

    def _order(self, now: float) -> tuple[_Entries[C], ...]:
        """The queues that may be taken from now, in their turn."""
        slow = any(now - since > _QUICK for since in self._others_out)
        spared = len(self._others_out) >= max(1, self._workers - 1) and not self.stopping
        if spared and (slow or self._others_slow):
            return (self._keeping,)
        # Now and then the others first: what works may keep all workers busy for ever.
        turn = self._turns % (2 * _TURN)
        if turn == _TURN - 1:
            return (self._others, self._again, self._keeping)
        if turn == 2 * _TURN - 1:
            return (self._again, self._others, self._keeping)
        return (self._keeping, self._others, self._again)

    def sent(self, made: Next[C], accessor: str, now: float, *, here: bool = True) -> Out:
        """It has gone. ``here``: to the Vault of now; one that was left must not slow it."""
        out = Out(made, accessor, now, self.flow if here else self.flow_before)
        self.out[accessor] += 1
        out.flow.sent(now)
        if not (made.of_login or made.keeps):
            self._others_out.append(now)
        return out

    def answered(self, out: Out, answer: Any, now: float, jitter: float) -> None:
        """It is over, with this event for the machine."""
        self.out -= Counter([out.accessor])  # which drops what comes to nothing
        if not (out.made.of_login or out.made.keeps):
            self._others_out.remove(out.at)
            self._others_slow = now - out.at > _QUICK
        failed = isinstance(answer, (Failed, NotRevoked))
        away = failed and answer.failure.away
        out.flow.answered(out.at, now, jitter, pushback=away, failed=failed)
        out.made.whose.calls -= 1
