"""One stage: its login and the queue of calls to its Vault."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

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
from vaultauthz.vault.session import Session

if TYPE_CHECKING:
    from vaultauthz.leases.lease_runner import LeaseRunner
    from vaultauthz.leases.login_runner import LoginRunner
    from vaultauthz.leases.runner import Runner
    from vaultauthz.leases.scopes import Scope

Call = CallIssue | CallRenew | CallRevoke


@dataclass(frozen=True, slots=True)
class Token:
    """A login token in use, with the life that its leases share."""

    secret: Secret
    accessor: str
    login: Login
    session: Session  # which logged in with it; a reload may have brought another since


class Stage:
    """The login, the leases taken with it, and the calls that wait to be made.

    Everything here is guarded by the keeper's lock, which ``todo`` shares.
    Calls for leases, but for revocations, wait until there is a token; those for the
    login itself have a queue and a thread of their own, so that they never stand behind
    a lease.
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
        self.lease_calls: deque[tuple[Runner, Call]] = deque()
        self.login_calls: deque[tuple[Runner, Call]] = deque()
        self._revocations = 0  # of `lease_calls`
        self.in_flight: Counter[str] = Counter()  # calls that are out, by their token's accessor
        self.closed = False
        self.moved = False  # to another Vault, where it has yet to log in
        self.wants_login = False  # the file that logins read has changed
        self._seen_files = self._stat_files()

    def enqueue(self, runner: Runner, call: Call) -> None:
        """Have the call made as soon as a worker is free (and a token is there)."""
        queue = self.login_calls if runner is self.login else self.lease_calls
        queue.append((runner, call))
        self._revocations += queue is self.lease_calls and isinstance(call, CallRevoke)
        runner.calls += 1
        self.todo.notify_all()

    def forget_calls(self, unwanted: Callable[[Runner, Call], bool]) -> list[Runner]:
        """Do not make these calls; returns whose they were, as their machines wait for an answer."""
        forgotten = []
        for queue in (self.lease_calls, self.login_calls):
            entries = tuple(queue)
            queue.clear()
            for entry in entries:
                if unwanted(*entry):
                    forgotten.append(entry[0])
                    entry[0].calls -= 1
                else:
                    queue.append(entry)
        self._revocations = sum(isinstance(call, CallRevoke) for _, call in self.lease_calls)
        return forgotten

    def _take(
        self, queue: deque[tuple[Runner, Call]], *, needs_token: bool
    ) -> tuple[Runner, Call] | None:
        """The first call that can be made now."""
        entry = None
        if queue and (self.token or not needs_token):
            entry = queue.popleft()
        elif needs_token and self._revocations:  # with the token that the lease was taken with
            entry = next(entry for entry in queue if isinstance(entry[1], CallRevoke))
            queue.remove(entry)
        if entry and needs_token and isinstance(entry[1], CallRevoke):
            self._revocations -= 1
        return entry

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
        calls = len(self.lease_calls) if self.token else self._revocations
        return not (self.in_flight.total() or self.login_calls or calls)

    def work(self, queue: deque[tuple[Runner, Call]], *, needs_token: bool) -> None:
        """A worker's life: take a call, make it without the lock, hand the answer in."""
        while True:
            with self.todo:
                entry = self._next(queue, needs_token=needs_token)
                if entry is None:
                    return
                runner, call = entry
                if runner.too_late(call):
                    continue
                token = runner.token_for(call)
                exchange = runner.exchange(call, token)
                accessor = token.accessor if token else ""
                self.in_flight[accessor] += 1
                sent_at, flow = self.clock(), self._flow_of(runner, call, token)
                flow.sent(sent_at)
            answer = exchange()
            with self.todo:
                self.in_flight -= Counter([accessor])  # which drops what comes to nothing
                away = isinstance(answer, (Failed, NotRevoked)) and answer.failure.away
                flow.answered(sent_at, self.clock(), self.draw(), pushback=away)
                runner.calls -= 1
                runner.answered(answer)
                self.todo.notify_all()

    def _flow_of(self, runner: Runner, call: Call, token: Token | None) -> Flow:
        """What the call counts for: a Vault that was left, and fails, must not slow the next."""
        if runner is self.login:
            token = None if isinstance(call, CallIssue) else self.login.token(call.lease_id)
        here = token is None or token.session is self.session
        return self.flow if here else self._flow_before

    def _next(
        self, queue: deque[tuple[Runner, Call]], *, needs_token: bool
    ) -> tuple[Runner, Call] | None:
        """Wait until a call of the queue may be made; None at the end."""
        while not self.closed:
            wait = 0.0 if self.stopping else self.flow.ready_at() - self.clock()
            login_first = needs_token and bool(self.login_calls) and not self.stopping
            if wait <= 0 and not login_first:
                entry = self._take(queue, needs_token=needs_token)
                if entry:
                    return entry
            self.todo.wait(wait if queue and 0 < wait < inf else None)
        return None

    def threads(self, workers: int) -> list[threading.Thread]:
        """``workers`` threads for the leases' calls and one for the login's."""

        def thread(name: str, target: Callable[[], None]) -> threading.Thread:
            return threading.Thread(target=target, name=f"{self.name}-{name}", daemon=True)

        lease = [
            thread(f"vault-{n}", lambda: self.work(self.lease_calls, needs_token=True))
            for n in range(workers)
        ]
        return [*lease, thread("login", lambda: self.work(self.login_calls, needs_token=False))]

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

    def _stat_files(self) -> dict[Path, tuple[int, int] | None]:
        return {path: _stat(path) for path in self.session.watched}


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino
