"""One stage: its login, its leases and the threads that make its calls to Vault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from vaultauthz.core.calls import CallQueue, Next
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease_messages import (
    Call,
    CallIssue,
    CallRevoke,
    Failed,
    LeaveToLapse,
    LookRound,
    Stop,
)
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.core.lease_state import StageLeases
from vaultauthz.core.pace import Pace
from vaultauthz.core.token import TokenMachine
from vaultauthz.leases.lease_runner import LeaseRunner
from vaultauthz.leases.runner import Driver, LoginRunner, Runner, StageToken
from vaultauthz.leases.scopes import Scope
from vaultauthz.vault.session import Session
from vaultauthz.watching import Stamp, stamp_if_any

WORKERS: Final = 4  # calls to Vault at once, for each stage: the login's and the leases'
_NOT_MADE: Final = Failure(Verdict.RETRY, "it was not asked for any more")


@dataclass(frozen=True, slots=True)
class Ended:
    """A stage that was told to end; ``left``: its token lapses by itself, with leases in use."""

    stage: StageRunner
    revoking: tuple[Runner, ...]  # whose revocations there are to wait for
    left: bool


class StageRunner:
    """The login, the leases taken with it, and the calls that wait to be made.

    Everything here is guarded by the keeper's lock, which ``todo`` shares.
    """

    def __init__(
        self,
        driver: Driver,
        name: str,
        session: Session,
        pace: Pace,
        draw: Callable[[], float],
    ) -> None:
        self.name = name
        self.clock = driver.clock
        self._draw = draw
        self._driver = driver
        self.leases: StageLeases[LeaseRunner] = StageLeases()
        self.scopes: list[Scope] = []  # upstreams with a lease for each caller or request
        self.tokens = TokenMachine(session, self.leases, pace, self.clock())
        self.login = LoginRunner(driver, self, self.tokens)
        # One of the calls at once is the login's.
        rate, workers = session.calls_per_second, WORKERS - 1
        self.calls: CallQueue[Runner] = CallQueue(rate, workers, self.clock(), draw())
        self.todo = threading.Condition(driver.lock)
        self.closed = False
        self._seen_files = _stat_files(session)

    def has(self, upstream: str) -> bool:
        """Whether there is such an upstream here."""
        return upstream in self.leases.shared or any(
            scope.name == upstream for scope in self.scopes
        )

    def rows(self, now: float) -> list[LeaseRow]:
        """The login and every lease."""
        return [runner.row(now) for runner in (self.login, *self.leases.active)]

    def lacking(self, now: float) -> list[LeaseRow]:
        """The shared leases without a credential for a request sent at ``now``."""
        return [r.row(now) for r in self.leases.shared.values() if not r.slot.usable(now)]

    # --- calls ---

    def enqueue(self, runner: Runner, call: Call) -> None:
        """Have the call made as soon as a worker is free (and a token is there)."""
        self.calls.put(runner, call, of_login=runner is self.login)
        self.todo.notify_all()

    @property
    def idle(self) -> bool:
        """Whether no call is out or waiting that could be made."""
        return self.calls.idle(token=self.tokens.token is not None)

    def threads(self) -> list[threading.Thread]:
        """The workers for the leases' calls and the one for the login's."""

        def thread(name: str, *, of_login: bool) -> threading.Thread:
            return threading.Thread(
                target=lambda: self.work(of_login=of_login), name=f"{self.name}-{name}", daemon=True
            )

        lease = [thread(f"vault-{n}", of_login=False) for n in range(WORKERS - 1)]
        return [*lease, thread("login", of_login=True)]

    def work(self, *, of_login: bool) -> None:
        """A worker's life: take a call, make it without the lock, hand the answer in."""
        while True:
            with self.todo:
                made = self._next(of_login=of_login)
                if made is None:
                    return
                runner, call = made.whose, made.call
                if runner.too_late(call):
                    continue
                token = runner.token_for(call)
                exchange = runner.exchange(call, token)
                here = self._leads_here(runner, call, token)
                accessor = token.accessor if token else ""
                out = self.calls.sent(made, accessor, self.clock(), here=here)
            answer = exchange()
            with self.todo:
                self.calls.answered(out, answer, self.clock(), self._draw())
                runner.answered(answer)
                self.todo.notify_all()

    def _next(self, *, of_login: bool) -> Next[Runner] | None:
        """Wait until a call may be made; None at the end."""
        while not self.closed:
            token = self.tokens.token is not None
            found = self.calls.next(self.clock(), of_login=of_login, token=token)
            if isinstance(found, Next):
                return found
            self.todo.wait(found if found < inf else None)
        return None

    def _leads_here(self, runner: Runner, call: Call, token: StageToken | None) -> bool:
        """Whether the call goes to the Vault of now, not to one that a reload has left."""
        if runner is self.login:
            token = None if isinstance(call, CallIssue) else self.tokens.token_by(call.lease_id)
        return token is None or token.source is self.tokens.source

    def change(self, session: Session, *, moved: bool) -> None:
        """Follow ``session``'s pace and files from now on; ``moved``: it is another Vault's."""
        rate = session.calls_per_second
        if moved or self.tokens.source.calls_per_second != rate:
            self.calls.change_rate(rate, self.clock(), self._draw())
        self._seen_files = _stat_files(session)

    # --- the end, and what is done until then ---

    def look_round(self, *, log_in: bool) -> None:
        """Done every second: scopes, files and tokens looked at."""
        for scope in self.scopes:
            scope.look_round(self.clock())
        changed = self.files_changed()
        look = LookRound(self.calls.out, files_changed=changed, log_in=log_in)
        self._driver.deliver(self.login, look)

    def let_go(self, runner: Runner, drain: float) -> None:
        """End a lease in ``drain`` seconds."""
        assert isinstance(runner, LeaseRunner)
        self.leases.leaving.append(runner)
        forgotten = self.calls.forget(
            lambda whose, call: whose is runner and not isinstance(call, CallRevoke)
        )
        self._driver.deliver(runner, Stop(revoke=True, drain=drain))
        self._answer_for(forgotten)

    def end(self, leave: Collection[str]) -> Ended:
        """Revoke the stage's tokens, and by themselves the leases that none of them takes along.

        Those of the upstreams in ``leave`` live on; see ``TokenMachine.ending``.
        """
        self.calls.stopping = True
        for scope in self.scopes:
            scope.refuse()
        ending = self.tokens.ending(leave)
        kept: set[Runner] = {*ending.alone, *(() if ending.left else (self.login,))}
        forgotten = self.calls.forget(
            lambda whose, call: whose not in kept or not isinstance(call, CallRevoke)
        )
        for runner in tuple(self.leases):
            self._driver.deliver(runner, Stop(revoke=runner in ending.alone))
        if ending.left:
            self._driver.deliver(self.login, LeaveToLapse(ending.left))
        self._driver.deliver(self.login, Stop(revoke=not ending.left))
        self._answer_for(runner for runner in forgotten if runner in kept)
        return Ended(self, tuple(kept), bool(ending.left))

    def _answer_for(self, forgotten: Iterable[Runner]) -> None:
        """A lease whose renewal is not even sent is revoked without waiting for it."""
        for runner in forgotten:
            self._driver.deliver(runner, Failed(_NOT_MADE))

    def settled(self, revoking: Iterable[Runner], deadline: float) -> bool:
        """Wait until these have nothing left to revoke; whether that was so by ``deadline``."""
        with self.todo:
            while not self.idle or any(len(runner.machine.retired) for runner in revoking):
                wait = deadline - self.clock()
                if wait <= 0:
                    return False
                self.todo.wait(min(wait, 0.1))
        return True

    def close(self) -> None:
        """End the workers, each after the call that it is in."""
        self.closed = True
        self.todo.notify_all()

    def files_changed(self) -> bool:
        """Whether a file that logins read has changed, or come to be, since the last look."""
        before, self._seen_files = self._seen_files, _stat_files(self.tokens.source)
        return any(now not in (None, before.get(path)) for path, now in self._seen_files.items())


def _stat_files(session: Session) -> dict[Path, Stamp | None]:
    return {path: stamp_if_any(path) for path in session.watched}
