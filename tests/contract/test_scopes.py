"""Leases of each caller's and each request's own, with real threads against the fake Vault.

The rules of time and number by themselves: tests/unit/leases/test_scopes.py.
"""

from __future__ import annotations

import base64
import gc
import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import pytest

from tests.contract import faults
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import FAST, ROLE, STAGE, House, database, write
from tests.patience import PATIENCE
from vaultauthz import config
from vaultauthz._pb.ext_authz_pb2 import CheckRequest, CheckResponse
from vaultauthz.broker import Binding, BindingTable, Broker
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.changes import Changes
from vaultauthz.config.values import Listen
from vaultauthz.core import events
from vaultauthz.core.callers import Callers
from vaultauthz.core.decision import Allowed, Decision, Denied, Reason
from vaultauthz.core.lease_messages import Rotate, Tick
from vaultauthz.core.pace import Pace
from vaultauthz.core.request import Request
from vaultauthz.core.routing import Routes
from vaultauthz.engine import Engine
from vaultauthz.envoy.server import GrpcServer
from vaultauthz.leases import clock, scopes
from vaultauthz.leases.clock import Timer, boottime
from vaultauthz.leases.later import Later
from vaultauthz.leases.lease_runner import LeaseRunner

CREDS = "database/creds/pay"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
LONG = PATIENCE
ENDLESS = 3600.0  # seconds; a test that waits for that is ended by pytest
QUICK = replace(FAST, drain=0.1)
SLOW = Pace(drain=0.4, backoff_floor=30.0, backoff_cap=60.0)  # what fails is not tried again


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a keeper does once a second it does twenty times, so that tests don't wait for it."""
    monkeypatch.setattr(clock, "LOOK_ROUND", 0.05)


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role and the databases ``pay`` and ``geo``."""
    with FakeVault() as fake:
        fake.set_approle()
        fake.set_creds(CREDS)
        fake.set_creds("database/creds/geo")
        yield fake


class Bed:
    """A keeper whose upstream ``pay`` has leases of its own; ``geo`` is shared."""

    def __init__(
        self,
        vault: FakeVault,
        per: str,
        *,
        auth: AuthMethod = ROLE,
        pace: Pace = QUICK,
        timeout: float = PATIENCE,
        **more: Any,
    ) -> None:
        self.vault = vault
        self.house = House(vault, [database("geo")], auth=auth, pace=pace, timeout=timeout)
        self.keeper = self.house.keeper
        self.scope: Any = self.keeper.add_scope(STAGE, replace(database("pay"), per=per, **more))
        self.recorded: list[tuple[Request, Decision]] = []
        bindings = [
            Binding("pay", STAGE, Callers(None), self.scope),
            Binding("geo", STAGE, Callers(None), self.house.slot("geo")),
        ]
        self.broker = Broker(BindingTable(bindings, Routes()), self._record, boottime)

    def _record(self, request: Request, decision: Decision) -> bool:
        self.recorded.append((request, decision))
        return True

    @property
    def stage(self) -> Any:
        """The stage itself."""
        return self.keeper._stages[STAGE]

    def ask(self, principal: str = "ann", wait: float = LONG) -> Decision:
        """A check of this caller's, which may block."""
        return self.broker.check(request_of(principal, wait))

    def start(self, principal: str = "ann", wait: float = LONG) -> Decision | Later[Decision]:
        """The same, and what blocks is promised."""
        return self.broker.start(request_of(principal, wait))

    def user(self, principal: str = "ann") -> str:
        """The database user that this caller's request is sent with."""
        return user_of(self.ask(principal))

    def nothing_left(self) -> bool:
        """Whether everything that was kept for leases of their own is gone."""
        stage = self.stage
        return not (
            stage.leases.scoped
            or stage.leases.leaving
            or self.scope._waiting
            or self.scope._waiters
        )

    def __enter__(self) -> Self:
        self.house.__enter__()
        assert wait_until(lambda: self.keeper.ready)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.vault.stop()  # so that no call hangs
        self.keeper.stop(0.0)


def request_of(principal: str = "ann", wait: float = LONG, upstream: str = "pay") -> Request:
    return Request("test", upstream=upstream, stage=STAGE, principal=principal, wait=wait)


def user_of(decision: Decision) -> str:
    """The database user that goes with the request."""
    assert isinstance(decision, Allowed), decision
    assert decision.credential is not None
    ((_, value),) = decision.credential.mutation.headers
    return base64.b64decode(value.removeprefix("Basic ")).decode().split(":")[0]


def reason_of(decision: Decision) -> str:
    assert isinstance(decision, Denied), decision
    return decision.reason.value


def retry_after_of(decision: Decision) -> int:
    assert isinstance(decision, Denied), decision
    return decision.retry_after


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What ``act`` returns on so many threads that begin together."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def issued(vault: FakeVault) -> int:
    """How often Vault was asked for a login to ``pay``."""
    return len(vault.calls(CREDS))


def allowed(bed: Bed, principal: str) -> bool:
    """Whether this caller's request goes through."""
    return bed.ask(principal).allowed


def alive(vault: FakeVault) -> set[str]:
    """The users of ``pay`` that exist."""
    return {lease.username for lease in vault.live_leases() if lease.id.startswith(CREDS)}


# --- per caller: whose is whose ---


def test_first_requests_of_one_caller_share_one_call(vault: FakeVault) -> None:
    """Twenty at once, one login in Vault, the same for all; the next doesn't wait at all."""
    with Bed(vault, "caller") as bed:
        vault.fault(faults.latency(0.2), CREDS)
        users = at_once(20, lambda _: bed.user())
        assert len(set(users)) == 1
        assert isinstance(bed.start(), Allowed)
        assert issued(vault) == 1
        assert bed.scope._waiters == 0
        assert len(bed.recorded) == 21


@dataclass(frozen=True)
class Person:
    """A caller, as something that compares right whatever `Request.identity` does."""

    principal: str = ""
    consumer: str = ""
    tokens: frozenset[tuple[str, str]] = frozenset()

    def request(self, rng: random.Random) -> Request:
        """A request of this caller, with the tokens in any order."""
        claims = [{"iss": iss, "sub": sub} for iss, sub in self.tokens]
        rng.shuffle(claims)
        return Request(
            "test",
            upstream="pay",
            principal=self.principal,
            consumer=self.consumer,
            claims=tuple(claims),
            wait=LONG,
        )


def people() -> list[Person]:
    """Callers that are easily taken for one another."""
    words = ["", "a", "b", "a\x00b"]
    tokens = [
        frozenset[tuple[str, str]](),
        frozenset({("", "a")}),
        frozenset({("a", "b")}),
        frozenset({("b", "a")}),
        frozenset({("a", "b"), ("b", "a")}),
        frozenset({("a", "a"), ("b", "b")}),
    ]
    found = [Person(p, c, t) for p in words for c in words[:3] for t in tokens]
    return [person for person in found if person != Person()]


@pytest.mark.parametrize("room", [1000, 8])
def test_no_caller_ever_gets_the_credential_of_another(vault: FakeVault, room: int) -> None:
    """Twelve threads, seventy callers, none's login sent for another, nor after its end."""
    callers = people()
    seen: dict[str, set[Person]] = defaultdict(set)
    dead: list[str] = []
    with Bed(vault, "caller", max_callers=room) as bed:

        def run(number: int) -> None:
            rng = random.Random(number)
            for _ in range(60):
                person = rng.choice(callers)
                decision = bed.broker.check(person.request(rng))
                if isinstance(decision, Denied):  # room for eight, twelve who want in
                    assert (room, decision.reason) == (8, Reason.OVERLOADED)
                    continue
                user = user_of(decision)
                seen[user].add(person)
                if not vault.is_alive(user):
                    dead.append(user)

        at_once(12, run)
        shared = {user: whose for user, whose in seen.items() if len(whose) > 1}
        assert (shared, dead) == ({}, [])
        if room == 1000:
            assert len(seen) == len({p for whose in seen.values() for p in whose}) > 60
        assert wait_until(lambda: len(alive(vault)) <= room)
        assert len(bed.scope._runners) <= room


def test_nobody_in_particular_has_no_lease_to_use(vault: FakeVault) -> None:
    """Denied at once, and Vault is not asked for anything."""
    with Bed(vault, "caller") as bed:
        assert reason_of(bed.ask("")) == "caller_denied"
        anonymous = replace(request_of(""), claims=({"iss": "x", "scope": "all"}, {"sub": ""}))
        assert reason_of(bed.broker.check(anonymous)) == "caller_denied"
        assert issued(vault) == 0


def test_the_audit_log_hears_whose_lease_it_was(vault: FakeVault) -> None:
    """From issue to revocation; those of the shared lease name nobody."""
    with Bed(vault, "caller", idle=0.1) as bed:
        users = {caller: bed.user(caller) for caller in ("ann", "bob")}
        assert len(set(users.values())) == 2
        assert wait_until(lambda: len(bed.house.named(events.REVOKED, "pay")) == 2)
        for name in (events.ISSUED, events.REVOKED):
            found = bed.house.named(name, "pay")
            assert sorted(event.caller for event in found) == ["ann", "bob"]
        assert len({(e.caller, e.lease_id) for e in bed.house.events if e.upstream == "pay"}) == 2
        assert {event.caller for event in bed.house.events if event.upstream != "pay"} == {""}


# --- per caller: how many, how long ---


def test_what_was_just_used_does_not_make_room(vault: FakeVault) -> None:
    """One more than may be is told so, without a call; the others keep theirs."""
    with Bed(vault, "caller", max_callers=3, pace=replace(FAST, drain=300.0)) as bed:
        users = {caller: bed.user(caller) for caller in ("ann", "bob", "cid")}
        denied = bed.ask("dan")
        assert (reason_of(denied), issued(vault)) == ("overloaded", 3)
        assert retry_after_of(denied) >= 1
        assert {caller: bed.user(caller) for caller in users} == users
        assert alive(vault) == set(users.values())


def test_who_came_and_did_not_come_back_makes_room(vault: FakeVault) -> None:
    """Once no request can be using it; it is revoked before the other's is asked for."""
    with Bed(vault, "caller", max_callers=2, pace=replace(FAST, drain=0.3)) as bed:
        old = {bed.user("ann"), bed.user("bob")}
        assert wait_until(lambda: bed.ask("cid").allowed)
        assert len(alive(vault) & old) == 1
        assert bed.user("cid") in alive(vault)
        assert bed.keeper.tallies() == [(STAGE, "pay", 2)]


def test_strangers_do_not_drive_regulars_out(vault: FakeVault) -> None:
    """However many come, those that come back now and then keep the lease that they have."""
    with Bed(vault, "caller", max_callers=5, pace=replace(FAST, drain=0.2)) as bed:
        regulars = {name: bed.user(name) for name in ("ann", "bob")}
        runners = [bed.scope._runners[request_of(name).identity] for name in regulars]
        assert wait_until(
            lambda: (
                {name: bed.user(name) for name in regulars} == regulars
                and all(r.used_at - r.came_at >= 0.2 for r in runners)
            )
        )
        strangers = itertools.count()
        came_in = 0
        while came_in < 12:  # they have made room for one another four times over
            came_in += bed.ask(f"stranger {next(strangers)}").allowed
            assert len(alive(vault)) <= 5
        assert {name: bed.user(name) for name in regulars} == regulars


def test_rotation_after_rotation_does_not_add_up(vault: FakeVault) -> None:
    """Twice the bound is the most there is; the wish is kept until there is room."""
    with Bed(vault, "caller", max_callers=3, pace=replace(FAST, drain=300.0)) as bed:
        first = {bed.user(f"p{number}") for number in range(3)}
        assert alive(vault) == first
        for _ in range(10):
            bed.keeper.rotate("pay")
        assert wait_until(lambda: not first & {bed.user(f"p{number}") for number in range(3)})
        second = {bed.user(f"p{number}") for number in range(3)}
        assert alive(vault) == first | second
        for _ in range(10):
            bed.keeper.rotate("pay")
        assert wait_until(lambda: bed.stage.idle)
        assert {bed.user(f"p{number}") for number in range(3)} == second
        assert alive(vault) == first | second
        with bed.keeper.lock:  # as when their time to drain is over
            for runner in bed.stage.leases.scoped:
                runner.machine.retired.hurry(bed.keeper.clock())
                bed.keeper.deliver(runner, Tick())
        assert wait_until(lambda: not first & alive(vault))
        assert wait_until(lambda: not second & {bed.user(f"p{number}") for number in range(3)})
        assert len(alive(vault)) == 6


def test_who_waits_for_room_gets_it_as_soon_as_there_is_some(vault: FakeVault) -> None:
    """The lease that makes room takes long to be revoked: the check waits, and is answered."""
    with Bed(vault, "caller", max_callers=1, pace=replace(FAST, drain=0.05)) as bed:
        ann = bed.user("ann")
        vault.fault(faults.latency(0.4), "sys/leases/revoke")
        seen: list[Decision | Later[Decision]] = []

        def waits() -> bool:
            seen.append(bed.start("bob"))
            return isinstance(seen[-1], Later)

        assert wait_until(waits)
        promised = seen[-1]
        assert isinstance(promised, Later)
        assert vault.is_alive(ann)
        assert issued(vault) == 1
        assert user_of(promised.wait()) != ann
        assert len(alive(vault)) == 1


def test_a_lease_that_is_let_go_is_out_of_sight_before_its_last_use_is_read(
    vault: FakeVault,
) -> None:
    """A check that takes it at this very moment has said so: then it drains after all."""
    with Bed(vault, "caller") as bed:
        bed.user()
        (runner,) = bed.stage.leases.scoped
        seen: list[object] = []

        def clock() -> float:
            seen.append(runner.slot.credential)
            return boottime()

        with bed.keeper.lock:
            bed.keeper.clock = clock
            bed.scope._drop(next(iter(bed.scope._runners)))
            bed.keeper.clock = boottime
        assert seen
        assert set(seen) == {None}


def test_thousands_of_callers_come_and_go_without_a_trace(vault: FakeVault) -> None:
    """Twelve hundred through room for twenty: threads, timers, leases and objects stay few."""
    with Bed(vault, "caller", max_callers=20, pace=replace(FAST, drain=0.05)) as bed:
        numbers = itertools.count()

        def come_in(caller: str) -> None:
            assert wait_until(lambda: bed.ask(caller).allowed)  # else there is no room just now

        def some(count: int) -> None:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: come_in(f"p{next(numbers)}"), range(count)))
            assert wait_until(lambda: not bed.stage.leases.leaving)

        def kept() -> Counter[str]:
            gc.collect()
            kinds = (LeaseRunner, Later, threading.Thread)
            return Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, kinds))

        some(300)
        before = kept()
        some(900)
        after = kept()
        stage, scope = bed.stage, bed.scope
        planned = [e for e in bed.keeper._waker.agenda._heap if isinstance(e[2], LeaseRunner)]
        assert after["LeaseRunner"] <= len(planned) + 50
        assert len(planned) <= 1500  # those that were planned anew are swept out now and then
        assert after["Thread"] <= before["Thread"] + 4  # the fake's, one for each connection
        assert len(stage.leases.scoped) == len(scope._runners) == len(alive(vault)) == 20
        assert (scope._waiters, scope._waiting) == (0, {})
        # The waits' timers stand there until their time, LONG seconds; and no more than that.
        timers = [entry for entry in bed.keeper._waker.agenda._heap if isinstance(entry[2], Timer)]
        assert len(timers) <= 1200
        assert len(bed.house.named(events.ISSUED, "pay")) == 1200
        assert len(bed.house.named(events.REVOKED, "pay")) == 1180


def test_the_timers_of_answered_requests_go_when_their_time_comes(
    vault: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether or not their answer came before."""
    with Bed(vault, "caller", idle=0.1) as bed:
        at_once(10, lambda number: [bed.ask(f"p{number}-{n}", 0.3) for n in range(10)])
        assert wait_until(lambda: bed.nothing_left() and not alive(vault))
        heap = bed.keeper._waker.agenda._heap
        assert wait_until(lambda: not [e for e in tuple(heap) if isinstance(e[2], Timer)])
    assert "went wrong" not in caplog.text


# --- waiting ---


@pytest.mark.parametrize("per", ["caller", "request"])
def test_a_request_waits_until_its_deadline_and_no_longer(vault: FakeVault, per: str) -> None:
    """Then it is 503 no_credential, with a Retry-After; Vault is as slow as ever."""
    vault.fault(faults.hang(), CREDS)
    with Bed(vault, per) as bed:
        answers = at_once(5, lambda _: bed.ask(wait=0.1))
        assert bed.house.named(events.FAILED, "pay") == []  # nobody has waited for that call
        assert {reason_of(answer) for answer in answers} == {"no_credential"}
        assert all(retry_after_of(answer) >= 1 for answer in answers)
        assert bed.scope._waiters == 0
        assert len(bed.recorded) == 5


def test_who_comes_later_waits_for_the_call_that_is_out(vault: FakeVault) -> None:
    """One gives up, the next gets what the first had asked for, from the same call."""
    go = threading.Event()
    vault.fault(faults.held(go), CREDS)
    with Bed(vault, "caller") as bed:
        assert reason_of(bed.ask(wait=0.1)) == "no_credential"
        later = bed.start()
        go.set()
        assert isinstance(later, Later)
        assert user_of(later.wait())
        assert issued(vault) == 1


@pytest.mark.parametrize("per", ["caller", "request"])
def test_deadline_and_answer_race_to_one_answer(vault: FakeVault, per: str) -> None:
    """They come within milliseconds of each other: each check is answered and recorded once."""
    vault.fault(faults.latency(0.06), CREDS)
    with Bed(vault, per, hold=0.1, idle=0.1) as bed:
        seen: Counter[str] = Counter()

        turns = itertools.count()

        def ask(turn: int, number: int) -> Decision:
            slower = 2 ** max(0, turn - 2)  # on a slow machine the race is a longer one
            return bed.ask(f"p{turn}-{number}", slower * (0.05 + number / 60))

        def both_came() -> bool:
            turn = next(turns)
            answers = at_once(12, partial(ask, turn))
            seen.update("allowed" if a.allowed else reason_of(a) for a in answers)
            return turn >= 2 and set(seen) == {"allowed", "no_credential"}

        assert wait_until(both_came)
        assert len(bed.recorded) == 12 * next(turns)
        users = [user_of(d) for _, d in bed.recorded if isinstance(d, Allowed)]
        assert len(users) == len(set(users))
        assert wait_until(bed.nothing_left)
        assert wait_until(lambda: not alive(vault))


@pytest.mark.parametrize("per", ["caller", "request"])
def test_no_more_wait_than_may(vault: FakeVault, per: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told so at once, and Vault is not asked on its behalf; then there is room."""
    monkeypatch.setattr(scopes, "MAX_WAITING", 5)
    go = threading.Event()
    vault.fault(faults.held(go), CREDS)
    with Bed(vault, per) as bed:
        promised = [bed.start(f"p{number}") for number in range(5)]
        assert reason_of(bed.ask("late")) == "overloaded"
        assert len(bed.stage.leases.scoped) == 5
        go.set()
        assert all(isinstance(each, Later) for each in promised)
        assert len({user_of(p.wait()) for p in promised if isinstance(p, Later)}) == 5
        assert issued(vault) == 5
        assert bed.user("late")


@pytest.mark.parametrize("per", ["caller", "request"])
def test_a_recorder_that_breaks_denies_its_check_and_no_other(vault: FakeVault, per: str) -> None:
    """Nobody waits for ever, and who waits beside it gets the answer."""
    with Bed(vault, per) as bed:
        record = bed._record

        def clumsy(request: Request, decision: Decision) -> bool:
            if request.request_id == "bad":
                raise RuntimeError("hvs.T0KEN")
            return record(request, decision)

        bed.broker._record = clumsy
        go = threading.Event()
        vault.fault(faults.held(go), CREDS)
        promised = [
            bed.broker.start(replace(request_of(), request_id=name)) for name in ("bad", "good")
        ]
        go.set()
        bad, good = [each.wait() for each in promised if isinstance(each, Later)]
        assert reason_of(bad) == "internal"
        assert user_of(good)
        assert bed.scope._waiters == 0


# --- when Vault does not do its part ---


def test_a_refused_caller_is_told_at_once_and_vault_left_alone(vault: FakeVault) -> None:
    """All that wait hear it, those that come after it too; one call until the backoff is over."""
    with Bed(vault, "caller", pace=SLOW) as bed:
        vault.deny(CREDS)
        answers = at_once(8, lambda _: bed.ask(wait=ENDLESS))
        answers += [bed.ask(wait=ENDLESS) for _ in range(50)]
        assert {reason_of(answer) for answer in answers} == {"no_credential"}
        assert all(1 < retry_after_of(answer) <= 60 for answer in answers)
        assert issued(vault) == 1


def test_requests_are_not_passed_on_one_by_one_to_a_vault_that_refuses(vault: FakeVault) -> None:
    """What it refused to one request it is not asked for the next, until the backoff is over."""
    with Bed(vault, "request", pace=SLOW) as bed:
        vault.fault(faults.status(429, headers={"Retry-After": "40"}), CREDS)
        answers = [bed.ask() for _ in range(50)]
        assert {reason_of(answer) for answer in answers} == {"no_credential"}
        assert all(1 < retry_after_of(answer) <= 60 for answer in answers)
        assert issued(vault) == 1


@pytest.mark.parametrize("per", ["caller", "request"])
@pytest.mark.parametrize("how", ["denied", "away", "500", "unfit"])
def test_when_vault_gives_again_there_are_credentials_again(
    vault: FakeVault, per: str, how: str
) -> None:
    """Denied, unreachable, failing or with a field missing: the first request after it works."""
    with Bed(vault, per, hold=2.0) as bed:
        if how == "denied":
            vault.deny(CREDS)
        elif how == "away":
            vault.stop()
        elif how == "500":
            vault.fault(faults.status(500), CREDS)
        else:
            vault.set_creds(CREDS, fields={"password": ...})
        for _ in range(3):
            assert reason_of(bed.ask(wait=1.0)) == "no_credential"
        assert bed.recorded[0][1].allowed is False
        if how == "away":
            vault.start()
        vault.allow(CREDS)
        vault.heal()
        vault.set_creds(CREDS)
        assert wait_until(lambda: bed.ask().allowed)
        assert vault.is_alive(bed.user())
        if per == "request":
            assert wait_until(bed.nothing_left)
            assert wait_until(lambda: not alive(vault))  # the unfit ones are revoked, too


def test_a_caller_keeps_his_credential_while_vault_is_away(vault: FakeVault) -> None:
    """Only who is new is told to come again."""
    with Bed(vault, "caller") as bed:
        user = bed.user()
        vault.stop()
        assert reason_of(bed.ask("bob", wait=1.0)) == "no_credential"
        assert bed.user() == user
        vault.start()
        assert wait_until(lambda: bed.ask("bob").allowed)
        assert bed.user() == user


# --- the login ---


def test_callers_leases_move_to_a_new_login(vault: FakeVault) -> None:
    """Nobody is without one meanwhile, and the old token ends when nothing hangs on it."""
    with Bed(vault, "caller") as bed:
        names = [f"p{number}" for number in range(5)]
        before = {name: bed.user(name) for name in names}
        (old,) = vault.live_tokens()
        bed.keeper.deliver(bed.stage.login, Rotate())
        assert wait_until(lambda: len(vault.live_tokens()) == 2)
        with bed.keeper.lock:  # they would move some time within a minute
            for runner in bed.stage.leases.active:
                bed.keeper.deliver(runner, Rotate())
        dead: list[str] = []

        def moved() -> bool:
            users = {name: bed.user(name) for name in names}
            dead.extend(user for user in users.values() if not vault.is_alive(user))
            return not set(users.values()) & set(before.values())

        assert wait_until(moved)
        assert wait_until(lambda: old.accessor not in {t.accessor for t in vault.live_tokens()})
        assert moved()
        assert dead == []


def test_a_request_s_lease_outlives_the_login_that_is_replaced(vault: FakeVault) -> None:
    """The old token is kept until `hold` is over."""
    with Bed(vault, "request", hold=4.0) as bed:
        user = bed.user()
        bed.keeper.deliver(bed.stage.login, Rotate())
        assert wait_until(lambda: len(vault.live_tokens()) == 2)
        bed.keeper.rotate("geo")  # else it would move some time within a minute
        assert wait_until(lambda: bool(bed.house.named(events.REVOKED, "geo")))
        assert vault.is_alive(user)
        assert wait_until(lambda: not vault.is_alive(user) and len(vault.live_tokens()) == 1)


@pytest.mark.parametrize("per", ["caller", "request"])
def test_after_a_login_was_lost_each_gets_another_credential(vault: FakeVault, per: str) -> None:
    """An operator revokes the token: once that is known, none of its leases is sent."""
    with Bed(vault, per) as bed:
        names = [f"p{number}" for number in range(4)]
        before = {bed.user(name) for name in names}
        (token,) = vault.live_tokens()
        vault.kill_token(token.accessor)
        bed.ask("somebody new", wait=2.0)  # by whose call it shows
        assert wait_until(lambda: bool(bed.house.named(events.TOKEN_LOST)))
        for name in names:
            assert wait_until(partial(allowed, bed, name))
            assert vault.is_alive(bed.user(name))
        assert not before & alive(vault)


# --- the end, and changes ---


@pytest.mark.parametrize("whose", ["own", "foreign"])
@pytest.mark.parametrize("per", ["caller", "request"])
def test_at_the_end_who_waits_is_answered_and_everything_revoked(
    vault: FakeVault, tmp_path: Path, per: str, whose: str
) -> None:
    """Also what is issued only then, and under a token that is not ours to revoke."""
    auth: AuthMethod = ROLE
    if whose == "foreign":
        vault.add_token("hvs.agent")
        auth = TokenFile(write(tmp_path / "token", "hvs.agent"))
    with Bed(vault, per, auth=auth, hold=60.0) as bed:
        for number in range(5):
            bed.user(f"p{number}")
        go = threading.Event()
        vault.fault(faults.held(go), CREDS)
        promised = [bed.start(f"w{number}") for number in range(10)]
        assert wait_until(lambda: issued(vault) >= 8)

        def answer_then() -> None:
            wait_until(lambda: bed.keeper._stopping)
            with bed.keeper.lock:  # which the stop has until everybody is told
                go.set()

        threading.Thread(target=answer_then).start()
        assert bed.keeper.stop(PATIENCE)
        answers = [each.wait() for each in promised if isinstance(each, Later)]
        assert [reason_of(answer) for answer in answers] == ["no_credential"] * 10
        assert wait_until(lambda: vault.live_leases() == [])
        assert reason_of(bed.ask("p0")) == reason_of(bed.ask("new")) == "no_credential"
        assert wait_until(lambda: bed.house.alive() == [])
    assert len(vault.live_tokens()) == (0 if whose == "own" else 1)


ENGINE = """
vault: {{address: "{address}", timeout: 60s}}
stages:
  production: {{auth: {{method: approle, role_id: gateway, secret_id_file: secret_id}}}}
upstreams:
  pay:
    secret: {{path: "{path}"}}
    inject: [{{basic: {{username: "{{username}}", password: "{{password}}"}}}}]
    callers: {callers}
    {scope}
"""


class Reloads:
    """An engine at the fake, with configurations that differ in a few words."""

    def __init__(
        self,
        vault: FakeVault,
        folder: Path,
        scope: str = "per: caller",
        pace: Pace = replace(FAST, drain=0.3),
    ) -> None:
        self._vault, self._folder = vault, folder
        secret_id = folder / "secret_id"
        secret_id.touch(0o600)
        secret_id.write_text("s3cr3t-id")
        self.engine = Engine(self.config(scope))
        self.engine.keeper._pace = pace

    def config(self, scope: str, path: str = CREDS, callers: str = "any") -> config.Config:
        text = ENGINE.format(address=self._vault.address, path=path, scope=scope, callers=callers)
        return config.parse(text, "x.yaml", self._folder, {})

    def reload(self, scope: str, **more: str) -> Changes:
        return self.engine.reload(self.config(scope, **more))

    def ask(self, principal: str = "ann", wait: float = LONG) -> Decision:
        return self.engine.check(request_of(principal, wait))


def test_a_reload_that_leaves_a_scope_alone_keeps_its_leases(
    vault: FakeVault, tmp_path: Path
) -> None:
    """Whoever may use it, and nothing else, has changed: then that holds, at once."""
    bed = Reloads(vault, tmp_path)
    with bed.engine:
        user = user_of(bed.ask())
        bed.reload("per: caller")
        bed.reload("per: caller", callers="[{principal: ann}]")
        assert user_of(bed.ask()) == user
        assert reason_of(bed.ask("bob")) == "caller_denied"
        assert issued(vault) == 1


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ("per: instance", CREDS),
        ("per: request", CREDS),
        ("per: caller", "database/creds/geo"),
    ],
)
def test_a_reload_that_changes_a_scope_gives_its_leases_back(
    vault: FakeVault, tmp_path: Path, scope: str, path: str
) -> None:
    """The first check after it gets a new one, the old ones drain and are revoked."""
    bed = Reloads(vault, tmp_path)
    words = scope.strip("{}").replace(", ", "\n    ")
    with bed.engine:
        old = {user_of(bed.ask(name)) for name in ("ann", "bob")}
        bed.reload(words, path=path)
        assert old <= alive(vault)  # requests in flight
        assert wait_until(lambda: bed.ask().allowed)
        new = user_of(bed.ask())
        assert new not in old
        assert vault.is_alive(new)
        assert wait_until(lambda: not old & alive(vault))
        bed.reload("per: caller")  # and back
        assert user_of(bed.ask()) not in {new, *old}
    assert vault.live_leases() == []


def test_a_reload_that_changes_the_bounds_keeps_what_is_within_them(
    vault: FakeVault, tmp_path: Path
) -> None:
    """More room at once; with less, those go that were not used for longest."""
    slow = replace(FAST, drain=300.0)  # so that nobody who was here makes room by slowness alone
    bed = Reloads(vault, tmp_path, "per: caller\n    max_callers: 3", pace=slow)
    with bed.engine:
        users = {name: user_of(bed.ask(name)) for name in ("ann", "bob", "cid")}
        assert reason_of(bed.ask("dan")) == "overloaded"
        changes = bed.reload("per: caller\n    max_callers: 4\n    idle: 20m")
        assert str(changes) == "rules changed"
        users["dan"] = user_of(bed.ask("dan"))
        assert {name: user_of(bed.ask(name)) for name in users} == users
        bed.engine.keeper._pace = QUICK
        bed.reload("per: caller\n    max_callers: 2")
        assert wait_until(lambda: alive(vault) == {users["cid"], users["dan"]})
        bed.engine.keeper._pace = slow
        assert {name: user_of(bed.ask(name)) for name in ("cid", "dan")} == {
            name: users[name] for name in ("cid", "dan")
        }
        assert reason_of(bed.ask("ann")) == "overloaded"


@pytest.mark.parametrize("more", ["caller\n    max_callers: 3", "request\n    hold: 1h"])
def test_reload_after_reload_does_not_add_up(
    vault: FakeVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    """What replaced scopes still have draining counts: twice the bound is the most there is."""
    monkeypatch.setattr(scopes, "MAX_OUTSTANDING", 3)
    bed = Reloads(vault, tmp_path, f"per: {more}", pace=replace(QUICK, drain=300.0))
    with bed.engine:
        assert wait_until(lambda: bed.ask("first").allowed)
        for turn in range(4):
            bed.reload(f"per: {more}", path=("database/creds/geo", CREDS)[turn % 2])
            answers = [bed.ask(f"p{number}") for number in range(5)]
            assert any(answer.allowed for answer in answers) or turn
            assert len([lease for lease in vault.live_leases() if lease.id.count("creds")]) <= 6
        assert reason_of(bed.ask("last")) == "overloaded"


@pytest.mark.parametrize("per", ["caller", "request"])
def test_a_reload_answers_who_waits_for_what_it_drops(
    vault: FakeVault, tmp_path: Path, per: str
) -> None:
    """At once, not at the deadline; and what still comes is revoked."""
    bed = Reloads(vault, tmp_path, f"per: {per}")
    with bed.engine:
        assert wait_until(lambda: bed.ask("first").allowed)
        go = threading.Event()
        vault.fault(faults.held(go), CREDS)
        promised = bed.engine.start_check(request_of(wait=ENDLESS))
        assert wait_until(lambda: issued(vault) == 2)
        bed.reload(f"per: {per}", path="database/creds/geo")
        assert isinstance(promised, Later)
        promised.wait()
        go.set()
        assert wait_until(lambda: not alive(vault) or per == "request")
        assert user_of(bed.ask())
    assert vault.live_leases() == []


@pytest.mark.parametrize("per", ["caller", "request"])
def test_a_check_that_comes_late_to_a_dropped_scope_gets_nothing(
    vault: FakeVault, per: str
) -> None:
    """It read the table before a reload: denied, and no lease is made that nobody would end."""
    with Bed(vault, per, hold=0.1) as bed:
        bed.user()
        bed.keeper.drop_scope(STAGE, bed.scope)
        assert reason_of(bed.ask()) == reason_of(bed.ask("bob")) == "no_credential"
        assert issued(vault) == 1
        assert wait_until(bed.nothing_left)
        assert not bed.stage.leases.scoped


# --- per request ---


def test_each_request_has_its_own(vault: FakeVault) -> None:
    """Also of one caller, also of nobody in particular, also at the same time."""
    with Bed(vault, "request") as bed:
        users = at_once(10, lambda number: [bed.user("ann" * (number % 2)) for _ in range(10)])
        flat = list(itertools.chain(*users))
        assert len(flat) == len(set(flat)) == issued(vault) == 100
        callers = Counter(event.caller for event in bed.house.named(events.ISSUED, "pay"))
        assert callers == {"ann": 50, "": 50}


def test_a_request_s_lease_is_revoked_when_hold_is_over(vault: FakeVault) -> None:
    """Not before it: the request may be under way; and not renewed meanwhile."""
    vault.set_creds(CREDS, ttl=60.0)
    with Bed(vault, "request", hold=0.6) as bed:
        began = time.monotonic()
        user = bed.user()
        assert wait_until(lambda: not vault.is_alive(user))
        assert time.monotonic() - began > 0.55
        assert vault.calls("sys/leases/renew") == []
        assert wait_until(bed.nothing_left)
        (revoked,) = bed.house.named(events.REVOKED, "pay")
        assert revoked.caller == "ann"


def test_a_request_that_gave_up_leaves_no_lease_behind(vault: FakeVault) -> None:
    """It comes when nobody wants it any more, and is revoked."""
    go = threading.Event()
    vault.fault(faults.held(go), CREDS)
    with Bed(vault, "request", hold=60.0) as bed:
        assert reason_of(bed.ask(wait=0.1)) == "no_credential"
        go.set()
        assert wait_until(lambda: len(vault.issued) == 2)  # geo's, and this
        assert wait_until(lambda: not alive(vault))
        assert wait_until(bed.nothing_left)
        assert bed.scope.alive == 0


def test_requests_that_gave_up_before_their_turn_are_not_asked_for(vault: FakeVault) -> None:
    """Of a hundred that gave up, Vault hears of those that were out, and of no other."""
    go = threading.Event()
    vault.fault(faults.held(go), CREDS)
    with Bed(vault, "request") as bed:
        promised = [bed.start(wait=0.2) for _ in range(100)]
        for each in promised:
            assert isinstance(each, Later)
            assert reason_of(each.wait()) == "no_credential"
        go.set()
        assert wait_until(bed.nothing_left)
        assert issued(vault) <= 3


def test_many_requests_leave_nothing_behind(vault: FakeVault) -> None:
    """Hundreds of them: no lease, no runner, no count, and no thread more."""
    with Bed(vault, "request", hold=0.05) as bed:
        threads = threading.active_count()
        users = at_once(8, lambda _: [bed.user() for _ in range(60)])
        assert len(set(itertools.chain(*users))) == 480
        assert wait_until(bed.nothing_left)
        assert wait_until(lambda: not alive(vault))
        assert (bed.scope.alive, bed.scope._waiters) == (0, 0)
        assert threading.active_count() <= threads + 4  # the fake's, one for each connection
        assert len(bed.house.named(events.REVOKED, "pay")) == 480


# --- over sockets ---


class Door:
    """The broker behind a real server, and a client."""

    def __init__(self, bed: Bed, transport: str, server: GrpcServer, channel: grpc.Channel) -> None:
        self.bed, self.transport, self.server = bed, transport, server
        self.call = channel.unary_unary(
            CHECK, request_serializer=bytes, response_deserializer=CheckResponse.FromString
        )

    def future(self, upstream: str, principal: str = "", timeout: float = LONG) -> Any:
        return self.call.future(message(upstream, principal), timeout=timeout)

    def status(self, upstream: str, principal: str = "", timeout: float = LONG) -> int:
        return status_of(self.future(upstream, principal, timeout).result())

    def promised(self) -> int:
        """How many calls wait in the transport."""
        transport: Any = self.server._transport
        return len((transport if self.transport == "native" else transport._desk)._promised)


def message(upstream: str, principal: str = "") -> bytes:
    request = CheckRequest()
    request.attributes.request.http.method = b"GET"
    request.attributes.source.principal = principal
    request.attributes.context_extensions["upstream"] = upstream
    return request.SerializeToString()


def status_of(response: CheckResponse) -> int:
    ok = response.HasField("ok_response")
    return 200 if ok else int(response.denied_response.status.code)


def error_of(response: CheckResponse) -> str:
    return response.dynamic_metadata.fields["reason"].string_value


@contextmanager
def door(bed: Bed, transport: str, *, stopped: bool = False) -> Iterator[Door]:
    """A server on a port, with ``transport``; ``stopped``: the test stops it."""
    server = GrpcServer(
        Listen(grpc="127.0.0.1:0", transport=transport), bed.broker.start, lambda: True,
        deadlines=True,
    )  # fmt: skip
    server.start()
    with ExitStack() as parts:
        if not stopped:
            parts.callback(server.stop, 1.0)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options)
        parts.callback(channel.close)
        yield Door(bed, transport, server, channel)


both = pytest.mark.parametrize("transport", ["native", "grpcio"])


@both
@pytest.mark.parametrize("per", ["caller", "request"])
def test_others_are_answered_while_a_hundred_wait(
    vault: FakeVault, transport: str, per: str
) -> None:
    """The shared upstream's checks go on as if nothing were; the hundred are told at the deadline."""
    with Bed(vault, per) as bed, door(bed, transport) as gateway:
        vault.fault(faults.hang(), CREDS)
        gateway.status("geo")
        for deadline in (4.0, 16.0, 48.0):  # the later ones are for a machine that is busy
            assert wait_until(lambda: gateway.promised() == 0)  # none is left of the one before
            waiting = [gateway.future("pay", f"p{number}", deadline) for number in range(100)]
            wait_until(lambda: gateway.promised() >= 64, deadline)
            served = 0
            while gateway.promised() >= 64:
                assert gateway.status("geo") == 200
                served += 1
            if served >= 5 and not any(future.exception() for future in waiting):
                break
        assert served >= 5
        answers = [future.result() for future in waiting]
        assert {status_of(answer) for answer in answers} == {503}
        late = Counter(error_of(answer) for answer in answers)
        # grpcio has a thread for each that waits, and refuses when those are used up.
        assert late["no_credential"] >= (100 if transport == "native" else 64)
        assert late.total() == late["no_credential"] + late["overloaded"]
        assert wait_until(lambda: gateway.promised() == bed.scope._waiters == 0)
        assert gateway.status("geo") == 200


@both
def test_each_caller_gets_its_own_over_a_socket(vault: FakeVault, transport: str) -> None:
    """Forty at once: the answers, made once for each credential, are not mixed up."""
    vault.fault(faults.latency(0.02), CREDS)
    with Bed(vault, "caller") as bed, door(bed, transport) as gateway:
        users: dict[str, set[str]] = defaultdict(set)
        for _ in range(5):
            futures = {name: gateway.future("pay", name) for name in (f"p{n}" for n in range(40))}
            for name, future in futures.items():
                (option,) = future.result().ok_response.headers
                users[name].add(option.header.value.decode())
        assert {len(values) for values in users.values()} == {1}
        assert len(set.union(*users.values())) == 40


@both
def test_a_client_that_goes_away_hurts_nobody(vault: FakeVault, transport: str) -> None:
    """Calls are cancelled or their channel closed while they wait; the next are answered."""
    with Bed(vault, "caller") as bed, door(bed, transport) as gateway:
        for turn in range(3):
            vault.heal()
            go = threading.Event()
            vault.fault(faults.held(go), CREDS)
            futures = [gateway.future("pay", f"p{turn}") for _ in range(10)]
            assert wait_until(lambda: gateway.promised() > 0)
            for future in futures[turn:]:
                future.cancel()
            go.set()
            assert [status_of(future.result()) for future in futures[:turn]] == [200] * turn
        go = threading.Event()
        vault.fault(faults.held(go), CREDS)
        with grpc.insecure_channel(f"127.0.0.1:{gateway.server.port}") as brief:
            call = brief.unary_unary(CHECK, bytes, bytes)
            futures = [call.future(message("pay", f"q{number}")) for number in range(3)]
            assert wait_until(lambda: gateway.promised() > 0)
        go.set()
        assert gateway.status("pay", "p9") == 200
        assert wait_until(lambda: gateway.promised() == bed.scope._waiters == 0)


@both
def test_envoy_s_patience_is_the_deadline(vault: FakeVault, transport: str) -> None:
    """It is answered before Envoy gives up, so that the client is told why."""
    vault.fault(faults.hang(), CREDS)
    with Bed(vault, "caller") as bed, door(bed, transport) as gateway:
        for timeout in (1.0, 3.0):
            response = gateway.future("pay", "ann", timeout).result()
            headers = {o.header.key: o.header.value for o in response.denied_response.headers}
            assert error_of(response) == "no_credential"
            assert int(headers["retry-after"]) >= 1


@both
def test_a_stop_lets_waiting_checks_have_their_answer(vault: FakeVault, transport: str) -> None:
    """It comes within the grace, and the call is answered with it."""
    with Bed(vault, "caller") as bed, door(bed, transport, stopped=True) as gateway:
        go = threading.Event()
        vault.fault(faults.held(go), CREDS)
        futures = [gateway.future("pay", f"p{number}") for number in range(3)]
        assert wait_until(lambda: gateway.promised() == 3)
        threading.Timer(0.3, go.set).start()
        gateway.server.stop(LONG)
        assert [status_of(future.result()) for future in futures] == [200] * 3


@both
def test_a_stop_denies_the_checks_that_wait_too_long(vault: FakeVault, transport: str) -> None:
    """A denial, not a call that failed: Envoy's failure mode may let requests through."""
    with Bed(vault, "caller") as bed, door(bed, transport, stopped=True) as gateway:
        vault.fault(faults.hang(), CREDS)
        futures = [gateway.future("pay", f"p{number}", ENDLESS) for number in range(20)]
        assert wait_until(lambda: gateway.promised() == 20)
        gateway.server.stop(0.5)
        assert [status_of(future.result()) for future in futures] == [503] * 20


@both
def test_a_stop_without_anybody_waiting_is_quick(vault: FakeVault, transport: str) -> None:
    """It does not use its grace up."""
    with Bed(vault, "caller") as bed, door(bed, transport, stopped=True) as gateway:
        assert gateway.status("pay", "ann") == 200
        gateway.server.stop(ENDLESS)


@both
def test_an_answer_that_breaks_fails_its_call_and_no_other(
    vault: FakeVault, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of ours behind the wait; the log names its type, not its text."""
    go = threading.Event()
    vault.fault(faults.held(go), CREDS)
    with Bed(vault, "caller") as bed, door(bed, transport) as gateway:
        check: Any = bed.broker.start
        broken = itertools.count()

        def start(request: Request) -> Decision | Later[Decision]:
            decision: Later[Decision] = check(request)
            return decision.map(_raising) if next(broken) == 0 else decision

        def _raising(decision: Decision) -> Decision:
            raise RuntimeError("hvs.T0KEN")

        server: Any = gateway.server
        methods = server._transport._methods
        answer = (methods[0] if transport == "native" else methods[CHECK]).answer
        answer.__self__._check = start
        futures: Sequence[Any] = [gateway.future("pay", "ann") for _ in range(3)]
        assert wait_until(lambda: gateway.promised() == 3)
        go.set()
        codes = Counter(future.code() for future in futures)
        assert codes == {grpc.StatusCode.OK: 2, grpc.StatusCode.INTERNAL: 1}
        assert gateway.status("pay", "ann") == 200
    assert "RuntimeError" in caplog.text
    assert "hvs." not in caplog.text
