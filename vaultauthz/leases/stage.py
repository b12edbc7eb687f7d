"""One stage: its login and the queue of calls to its Vault."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vaultauthz.core.credential import Login
from vaultauthz.core.flow import Flow
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Failed,
    NotRevoked,
)
from vaultauthz.core.secret import Secret
from vaultauthz.stamps import Stamp, stamp_if_any
from vaultauthz.vault.session import Session

if TYPE_CHECKING:
    from vaultauthz.leases.lease_runner import LeaseRunner
    from vaultauthz.leases.login_runner import LoginRunner
    from vaultauthz.leases.runner import Runner
    from vaultauthz.leases.scopes import Scope

Call = CallIssue | CallRenew | CallRevoke

_Queue = deque[tuple["Runner", Call]]

_TURN: Final = 4  # of so many calls one keeps no credential, if any such wait
_QUICK: Final = 0.25  # seconds; a call that takes longer may take all its time


@dataclass(frozen=True, slots=True)
class Token:
    """A login token in use, with the life that its leases share."""

    secret: Secret
    accessor: str
    login: Login
    session: Session  # which logged in with it; a reload may have brought another since


@dataclass(frozen=True, slots=True)
class _Taken:
    """A call that is made next; ``keeps``: a credential that is in use."""

    runner: Runner
    call: Call
    keeps: bool = False


class Stage:
    """The login, the leases taken with it, and the calls that wait to be made.

    Everything here is guarded by the keeper's lock, which ``todo`` shares.
    Calls for leases, but for revocations, wait until there is a token; those for the
    login itself have a queue and a thread of their own, so that they never stand behind
    a lease. Of the leases' calls those come first that keep a credential which is in use
    and is well; then what has none yet, then what failed the last time. These two never
    take the last worker when they are slow: each may take as long as a call can.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        lock: threading.RLock,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self.name = name
        self.session = session
        self.clock = clock
        self.draw = draw
        self.flow = self._flow_before = Flow(session.calls_per_second, clock(), draw())
        self.stopping = False  # from then on only revocations are made, and at once
        self.token: Token | None = None
        self.login: LoginRunner
        self.leases: dict[str, LeaseRunner] = {}
        self.scopes: list[Scope] = []  # upstreams with a lease for each caller or request
        self.scoped: set[LeaseRunner] = set()  # these leases
        self.leaving: list[LeaseRunner] = []  # stopped, with leases that drain
        self.todo = threading.Condition(lock)
        self.keep_calls: _Queue = deque()  # of credentials that are in use
        self.lease_calls: _Queue = deque()
        self.again_calls: _Queue = deque()  # of what failed the last time
        self.login_calls: _Queue = deque()
        self._workers = 0  # for all but the login's
        self._other_out: list[float] = []  # since when, of those that keep none
        self._others_slow = False  # the last of those that was answered
        self._turns = 0
        self._revocations = 0  # that wait
        self.in_flight: Counter[str] = Counter()  # calls that are out, by their token's accessor
        self.closed = False
        self.moved = False  # to another Vault, where it has yet to log in
        self.wants_login = False  # the file that logins read has changed
        self._seen_files = self._stat_files()

    def enqueue(self, runner: Runner, call: Call) -> None:
        """Have the call made as soon as a worker is free (and a token is there)."""
        queue = self._queue_of(runner, call)
        queue.append((runner, call))
        self._revocations += runner is not self.login and isinstance(call, CallRevoke)
        runner.calls += 1
        self.todo.notify_all()

    def _queue_of(self, runner: Runner, call: Call) -> _Queue:
        if runner is self.login:
            return self.login_calls
        if runner.failed_before(call):
            return self.again_calls
        keeps = runner.machine.held is not None and not isinstance(call, CallRevoke)
        return self.keep_calls if keeps else self.lease_calls

    @property
    def waiting(self) -> int:
        """The leases' calls that wait to be made."""
        return len(self.keep_calls) + len(self.lease_calls) + len(self.again_calls)

    def forget_calls(self, unwanted: Callable[[Runner, Call], bool]) -> list[Runner]:
        """Do not make these calls; returns whose they were, as their machines wait for an answer."""
        forgotten = []
        for queue in (self.keep_calls, self.lease_calls, self.again_calls, self.login_calls):
            entries = tuple(queue)
            queue.clear()
            for entry in entries:
                if unwanted(*entry):
                    forgotten.append(entry[0])
                    entry[0].calls -= 1
                else:
                    queue.append(entry)
        waiting = (*self.keep_calls, *self.lease_calls, *self.again_calls)
        self._revocations = sum(isinstance(call, CallRevoke) for _, call in waiting)
        return forgotten

    def _take_login(self) -> _Taken | None:
        return _Taken(*self.login_calls.popleft()) if self.login_calls else None

    def _take_lease(self) -> _Taken | None:
        """The first call that can be made now."""
        for queue in self._order():
            entry = None
            if queue and self.token:
                entry = queue.popleft()
            elif self._revocations:  # with the token that the lease was taken with
                entry = next((e for e in queue if isinstance(e[1], CallRevoke)), None)
                if entry:
                    queue.remove(entry)
            if entry:
                self._turns += 1
                self._revocations -= isinstance(entry[1], CallRevoke)
                return _Taken(*entry, keeps=queue is self.keep_calls)
        return None

    def _order(self) -> tuple[_Queue, ...]:
        """The queues that may be taken from now, in their turn."""
        slow = any(self.clock() - since > _QUICK for since in self._other_out)
        spared = len(self._other_out) >= max(1, self._workers - 1) and not self.stopping
        if spared and (slow or self._others_slow):
            return (self.keep_calls,)
        # Now and then the others first: what works may keep all workers busy for ever.
        turn = self._turns % (2 * _TURN)
        if turn == _TURN - 1:
            return (self.lease_calls, self.again_calls, self.keep_calls)
        if turn == 2 * _TURN - 1:
            return (self.again_calls, self.lease_calls, self.keep_calls)
        return (self.keep_calls, self.lease_calls, self.again_calls)

    @property
    def runners(self) -> Iterator[LeaseRunner]:
        """Every lease's runner, those that leave too."""
        yield from self.active
        yield from self.leaving

    @property
    def active(self) -> Iterator[LeaseRunner]:
        """The runners of the leases that requests may be given."""
        yield from self.leases.values()
        yield from self.scoped

    def has(self, upstream: str) -> bool:
        """Whether there is such an upstream here."""
        return upstream in self.leases or any(scope.name == upstream for scope in self.scopes)

    @property
    def idle(self) -> bool:
        """Whether no call is out or waiting that could be made."""
        calls = self.waiting if self.token else self._revocations
        return not (self.in_flight.total() or self.login_calls or calls)

    def work(self, *, leases: bool) -> None:
        """A worker's life: take a call, make it without the lock, hand the answer in.

        ``leases``: it makes their calls; else the login's.
        """
        while True:
            with self.todo:
                taken = self._next(leases=leases)
                if taken is None:
                    return
                runner, call = taken.runner, taken.call
                if runner.too_late(call):
                    continue
                token = runner.token_for(call)
                exchange = runner.exchange(call, token)
                accessor = token.accessor if token else ""
                self.in_flight[accessor] += 1
                sent_at, flow = self.clock(), self._flow_of(runner, call, token)
                flow.sent(sent_at)
                if leases and not taken.keeps:
                    self._other_out.append(sent_at)
            answer = exchange()
            with self.todo:
                self.in_flight -= Counter([accessor])  # which drops what comes to nothing
                if leases and not taken.keeps:
                    self._other_out.remove(sent_at)
                    self._others_slow = self.clock() - sent_at > _QUICK
                failed = isinstance(answer, (Failed, NotRevoked))
                away = failed and answer.failure.away
                flow.answered(sent_at, self.clock(), self.draw(), pushback=away, failed=failed)
                runner.calls -= 1
                runner.answered(answer)
                self.todo.notify_all()

    def _flow_of(self, runner: Runner, call: Call, token: Token | None) -> Flow:
        """What the call counts for: a Vault that was left, and fails, must not slow the next."""
        if runner is self.login:
            token = None if isinstance(call, CallIssue) else self.login.token(call.lease_id)
        here = token is None or token.session is self.session
        return self.flow if here else self._flow_before

    def _next(self, *, leases: bool) -> _Taken | None:
        """Wait until a call may be made; None at the end."""
        while not self.closed:
            wait = 0.0 if self.stopping else self.flow.ready_at() - self.clock()
            login_first = leases and bool(self.login_calls) and not self.stopping
            if wait <= 0 and not login_first:
                taken = self._take_lease() if leases else self._take_login()
                if taken:
                    return taken
            waiting = self.waiting if leases else len(self.login_calls)
            self.todo.wait(wait if waiting and 0 < wait < inf else None)
        return None

    def threads(self, workers: int) -> list[threading.Thread]:
        """``workers`` threads for the leases' calls and one for the login's."""
        self._workers = workers

        def thread(name: str, *, leases: bool) -> threading.Thread:
            return threading.Thread(
                target=lambda: self.work(leases=leases), name=f"{self.name}-{name}", daemon=True
            )

        lease = [thread(f"vault-{n}", leases=True) for n in range(workers)]
        return [*lease, thread("login", leases=False)]

    def change(self, session: Session, *, moved: bool) -> None:
        """Log in by ``session`` from now on; ``moved``: it is another Vault's."""
        before, self.session = self.session, session
        self.moved |= moved
        if moved or before.calls_per_second != session.calls_per_second:
            self._flow_before = self.flow
            self.flow = Flow(session.calls_per_second, self.clock(), self.draw())
        self._seen_files = self._stat_files()

    def settled(self, revoking: Iterable[Runner], deadline: float) -> bool:
        """Wait until these have nothing left to revoke; whether that was so by ``deadline``."""
        with self.todo:
            while not self.idle or any(len(runner.machine.retired) for runner in revoking):
                wait = deadline - self.clock()
                if wait <= 0:
                    return False
                self.todo.wait(min(wait, 0.1))
        return True

    def forget_gone(self) -> None:
        """Let go of the leases that have left and have nothing to revoke any more."""
        self.leaving = [r for r in self.leaving if len(r.machine.retired) or r.calls]

    def close(self) -> None:
        """End the workers, each after the call that it is in."""
        self.closed = True
        self.todo.notify_all()

    def look_at_files(self) -> None:
        """Set ``wants_login`` if a file that logins read has changed, or come to be."""
        before, self._seen_files = self._seen_files, self._stat_files()
        if any(self._seen_files[path] not in (None, before.get(path)) for path in self._seen_files):
            self.wants_login = True

    def _stat_files(self) -> dict[Path, Stamp | None]:
        return {path: stamp_if_any(path) for path in self.session.watched}
