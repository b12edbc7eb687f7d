"""The one place that runs all machines: their time, their calls, their outcome.

One lock guards every machine, queue and heap; no call to Vault is made under it.
A machine's commands are carried out under the lock, calls by the stages' workers
without it. Requests never come here: they read their upstream's ``Slot``.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from vaultauthz.config.values import Upstream
from vaultauthz.core.credential import Slot
from vaultauthz.core.events import Event, Listener
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    LogInBy,
    ReachBy,
    Rejected,
    Revoke,
    Rotate,
    Stop,
    Tick,
)
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.core.lease_state import State
from vaultauthz.core.pace import Pace
from vaultauthz.core.redaction import where
from vaultauthz.core.routing import StageUpstream
from vaultauthz.core.secret import Secret
from vaultauthz.leases.clock import Timer, Waker, boottime
from vaultauthz.leases.lease_runner import LeaseRunner, fingerprint
from vaultauthz.leases.runner import Runner
from vaultauthz.leases.scopes import KINDS, Scope, Tally
from vaultauthz.leases.stage import StageRunner
from vaultauthz.vault.session import Session

log = logging.getLogger(__name__)

_JOIN_FOR: Final = 0.5  # seconds, for all threads together

Watcher = Callable[[str, str], None]  # stage, upstream


class Keeper:
    """Holds the credentials of all stages; ``start`` it, read the slots, ``stop`` it.

    ``clock`` counts through sleep; ``draw`` gives jitter in [0, 1). ``listener``
    is called under the lock: it must be quick and must not call back.
    """

    def __init__(
        self,
        listener: Listener,
        pace: Pace = Pace(),
        clock: Callable[[], float] = boottime,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self._listener = listener
        self._watchers: tuple[Watcher, ...] = ()
        self._pace = pace
        self._draw = draw
        self._key = os.urandom(32)
        self._waker = Waker(self.lock, clock, self._look_round)
        self._stages: dict[str, StageRunner] = {}
        self._tallies: dict[StageUpstream, Tally] = {}
        self._departing: list[StageRunner] = []  # dropped; they end when their leases have drained
        self._threads: list[threading.Thread] = []
        self._running = False
        self._awaited: set[LeaseRunner] = set()  # not optional, and has had no credential yet
        self._complete = False  # none is awaited, or none was once
        self._stopping = False
        self.left = False  # at the end: a token, to lapse

    # --- putting together, before ``start`` and at a reload ---

    def add_stage(self, name: str, session: Session) -> None:
        """A stage, which logs in by ``session``."""
        stage = self._stages[name] = StageRunner(self, name, session, self._pace, self._draw)
        if self._running:
            self._start_stage(stage)

    def session(self, stage: str) -> Session:
        """By which the stage logs in now."""
        return self._stages[stage].tokens.source

    def change_stage(self, name: str, session: Session, *, moved: bool = False) -> None:
        """Log in by another ``session``; the leases move over as after any new login.

        ``moved``: it is another Vault's, so that static secrets must be read anew.
        """
        with self.lock:
            stage = self._stages[name]
            stage.change(session, moved=moved)
            self.deliver(stage.login, LogInBy(session, moved))

    def adjust_stage(self, name: str, session: Session) -> None:
        """Reach the same Vault by ``session`` from now on; the login and the leases stay."""
        with self.lock:
            stage = self._stages[name]
            stage.change(session, moved=False)
            self.deliver(stage.login, ReachBy(session))

    def drop_stage(self, name: str) -> None:
        """Let a stage go, with all its leases, when those have drained."""
        with self.lock:
            stage = self._stages[name]
            for upstream in tuple(stage.leases.shared):
                self.drop(name, upstream)
            for scope in tuple(stage.scopes):
                self.drop_scope(name, scope)
            # Its name is free from now on: the next reload may bring it back.
            self._departing.append(self._stages.pop(name))

    def add(self, stage: str, upstream: Upstream) -> Slot:
        """An upstream; its credential will be in the slot returned."""
        runner = self.lease_for(stage, upstream)
        self._stages[stage].leases.shared[upstream.name] = runner
        self._await(runner)
        if self._running:
            self.deliver(runner, Tick())
        return runner.slot

    def add_scope(self, stage: str, upstream: Upstream) -> Scope:
        """An upstream with a lease for each caller, or for each request."""
        with self.lock:
            scope = KINDS[upstream.per](self, stage, upstream)
            self._stages[stage].scopes.append(scope)
            return scope

    def tally(self, stage: str, upstream: str) -> Tally:
        """What counts an upstream's leases of their own, whatever scopes reloads make of it."""
        return self._tallies.setdefault((stage, upstream), Tally())

    def tallies(self) -> list[tuple[str, str, int]]:
        """Stage, upstream and how many leases its callers or requests have alive at Vault."""
        with self.lock:
            return [(*key, tally.alive) for key, tally in self._tallies.items()]

    def lease_for(
        self, stage: str, upstream: Upstream, caller: str = "", scope: Scope | None = None
    ) -> LeaseRunner:
        """A lease; one of ``caller``'s in a scope, to ``begin`` when there is room for it."""
        machine = LeaseMachine(self._pace, self.clock())
        return LeaseRunner(self, self._stages[stage], upstream, machine, scope=scope, caller=caller)

    def begin(self, runner: LeaseRunner) -> None:
        """Fetch a lease of a scope."""
        runner.stage.tokens.leases.scoped.add(runner)
        self.deliver(runner, Tick())

    def let_go(self, runner: LeaseRunner, drain: float) -> None:
        """Revoke a lease of a scope in ``drain`` seconds."""
        scoped = runner.stage.tokens.leases.scoped
        if runner in scoped:
            scoped.remove(runner)
            runner.stage.let_go(runner, drain)

    def change(self, stage: str, upstream: Upstream, *, anew: bool) -> Slot:
        """An upstream's new configuration; with ``anew`` its credential is fetched anew.

        The credential in use stays so until the new one is there.
        """
        with self.lock:
            runner = self._stages[stage].leases.shared[upstream.name]
            before = runner.upstream
            if anew:
                runner.change(upstream)
            else:
                runner.upstream = upstream
            if before.optional != upstream.optional:
                self._await(runner)
            return runner.slot

    def drop(self, stage: str, upstream: str) -> None:
        """Let an upstream go: its lease drains and is revoked."""
        with self.lock:
            runner = self._stages[stage].leases.shared.pop(upstream)
            self._await_no_more(runner)
            runner.stage.let_go(runner, self._pace.drain)

    def adjust_scope(self, scope: Scope, upstream: Upstream) -> None:
        """A scope's other bounds; its leases stay, as far as those allow."""
        with self.lock:
            scope.adjust(upstream)

    def drop_scope(self, stage: str, scope: Scope) -> None:
        """Let a scope go with all its leases."""
        with self.lock:
            self._stages[stage].scopes.remove(scope)
            scope.close()

    def start(self) -> None:
        """Log in and fetch, in threads of the keeper's own."""
        with self.lock:
            self._running = True
            self._complete = not self._awaited
            clock = threading.Thread(target=self._waker.run, name="lease-clock", daemon=True)
            self._threads.append(clock)
            clock.start()
            for stage in self._stages.values():
                self._start_stage(stage)

    def _start_stage(self, stage: StageRunner) -> None:
        threads = stage.threads()
        self._threads += threads
        for runner in (stage.login, *stage.leases.shared.values()):
            self.deliver(runner, Tick())
        for thread in threads:
            thread.start()

    def _all_stages(self) -> list[StageRunner]:
        return [*self._stages.values(), *self._departing]

    # --- running ---

    def deliver(self, runner: Runner, event: Any) -> None:
        """Hand an event to a machine and carry out what it says."""
        with self.lock:
            try:
                self._handle(runner, event)
            except Exception as exc:  # noqa: BLE001
                # A bug of ours must not end the thread that all the others live by.
                log.error("%s: %s went wrong: %s", runner.label, type(event).__name__, where(exc))  # noqa: TRY400

    def _handle(self, runner: Runner, event: Any) -> None:
        for command in runner.machine.handle(event, self.clock(), self._draw()):
            runner.do(command)
        if isinstance(runner, LeaseRunner):
            runner.slot.retry_at = runner.machine.due
            if runner.scope:
                runner.scope.recount(runner)
        self._waker.plan(runner, runner.machine.wake_at)

    def call_in(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it from the clock's thread, under the lock."""
        with self.lock:
            self._waker.plan(Timer(call), self.clock() + seconds)

    def _look_round(self) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for stage in self._all_stages():
            stage.leases.forget_gone()
            if stage in self._departing and not self._stopping:
                self._see_off(stage)
            stage.look_round(log_in=not self._stopping)

    def _see_off(self, stage: StageRunner) -> None:
        """End a dropped stage when nothing of it is left."""
        if stage.leases.leaving:
            return
        if stage.tokens.state is not State.STOPPED:
            self.deliver(stage.login, Stop(revoke=True))
        elif stage.idle and not stage.tokens.retired:
            stage.close()
            self._departing.remove(stage)

    @property
    def drain(self) -> float:
        """Seconds that requests in flight are given before their credential is revoked."""
        return self._pace.drain

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher`` with stage and upstream after a shared credential came, changed or went.

        Under the lock: it must be quick and must not call back.
        """
        self._watchers = (*self._watchers, watcher)

    def changed(self, runner: LeaseRunner) -> None:
        """Tell the watchers; their failure is not the lease's."""
        for watcher in self._watchers:
            try:
                watcher(runner.stage.name, runner.upstream.name)
            except Exception as exc:  # noqa: BLE001 - whatever a watcher raises
                log.error("a watcher failed on %s: %s", runner.label, where(exc))  # noqa: TRY400

    def announce(self, event: Event) -> None:
        """Tell the listener; its failure is not the lease's."""
        try:
            self._listener(event)
        except Exception as exc:  # noqa: BLE001 - whatever a listener raises
            log.error("a listener failed on %s: %s", event.name, where(exc))  # noqa: TRY400

    def fingerprint(self, place: str, lease_id: str, fields: dict[str, Secret]) -> str:
        """The ``credential_id``: a keyed hash, with a key of this process."""
        return fingerprint(self._key, place, lease_id, fields)

    # --- asking ---

    def arrived(self, runner: LeaseRunner) -> None:
        """Called when a credential arrives; the start, once it is over, stays so."""
        self._awaited.discard(runner)
        self._complete = self._complete or not self._awaited

    def _await(self, runner: LeaseRunner) -> None:
        """Have the start wait for it or not, by its configuration of now."""
        if runner.upstream.optional or runner.slot.credential:
            self._await_no_more(runner)
        elif not self._complete:
            self._awaited.add(runner)

    def _await_no_more(self, runner: LeaseRunner) -> None:
        self._awaited.discard(runner)
        if self._running:
            self.arrived(runner)

    @property
    def started(self) -> bool:
        """Whether each upstream that is not optional has had its credential; stays so to the end."""
        return self._complete and not self._stopping

    @property
    def ready(self) -> bool:
        """Whether it has started, and each of these has a usable credential now."""
        return self.started and all(row.optional for row in self.waiting())

    def waiting(self) -> list[LeaseRow]:
        """The shared leases without a credential for a request of now, optional ones too."""
        with self.lock:
            now, stages = self.clock(), self._stages.values()
            return [row for stage in stages for row in stage.lacking(now)]

    def rows(self) -> list[LeaseRow]:
        """Every login and lease."""
        with self.lock:
            now, stages = self.clock(), self._stages.values()
            return [row for stage in stages for row in stage.rows(now)]

    def rotate(self, upstream: str, stage: str | None = None) -> tuple[str, ...]:
        """Ask for a replacement; the present one is used until then.

        ``stage`` is None for all. Returns the stages where that was asked.
        """
        return self._tell(upstream, stage, Rotate())

    def revoke(self, upstream: str, stage: str | None = None) -> tuple[str, ...]:
        """End the present credential now and get another; returns as ``rotate`` does."""
        return self._tell(upstream, stage, Revoke())

    def rejected(self, upstream: str, stage: str, credential_id: str) -> None:
        """The upstream answered 401 to this credential."""
        self._tell(upstream, stage, Rejected(credential_id))

    def _tell(self, upstream: str, stage: str | None, event: Any) -> tuple[str, ...]:
        with self.lock:
            found = [
                name
                for name, home in self._stages.items()
                if stage in (None, name) and home.has(upstream)
            ]
            for name in found:
                active = self._stages[name].leases.active
                for runner in [each for each in active if each.upstream.name == upstream]:
                    if isinstance(event, Rotate):
                        runner.rotate(event)
                    else:
                        self.deliver(runner, event)
            return tuple(found)

    # --- the end ---

    def stop(self, timeout: float = 5.0, leave: Collection[StageUpstream] = ()) -> bool:
        """Revoke everything and end the threads; whether all was revoked in ``timeout`` s.

        A token of our own is revoked and takes its leases along; under somebody
        else's each lease is revoked by itself. So it is where the leases of an upstream
        (stage, name) in ``leave`` are to live on: then their token is left to lapse.
        """
        deadline = self.clock() + timeout
        with self.lock:
            self._stopping, self._complete = True, False
            ended = [
                stage.end({upstream for name, upstream in leave if name == stage.name})
                for stage in self._all_stages()
            ]
            self.left = any(stage.left for stage in ended)
        late = [e for e in ended if not e.stage.settled(e.revoking, deadline)]
        self._close()
        return not late

    def _close(self) -> None:
        with self.lock:
            self._waker.close()
            for stage in self._all_stages():
                stage.close()
        until = time.monotonic() + _JOIN_FOR
        for thread in self._threads:
            # A worker may be in a call that has its own time limit; it is a daemon.
            thread.join(timeout=max(0.0, until - time.monotonic()))
