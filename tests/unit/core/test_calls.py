"""Which call to Vault is made next: the queue, without workers."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, cast

import pytest

from vaultauthz.core.calls import STRIKES, CallQueue, Next, Out
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import Call, CallIssue, CallRevoke, Failed, NotRevoked

ISSUE, REVOKE = CallIssue(), CallRevoke("lease/1")
AWAY = Failure(Verdict.RETRY, "no answer", away=True)


class Lease:
    """Somebody whose calls are made: ``held``: it has a credential; ``failed``: and had no luck."""

    def __init__(self, name: str, *, held: bool = False, failed: bool = False) -> None:
        self.name = name
        self.calls = 0
        self.held = object() if held else None
        self.failed = failed

    @property
    def machine(self) -> LeaseMachine:
        return cast("LeaseMachine", self)

    def failed_before(self, call: Call) -> bool:
        return self.failed

    def __repr__(self) -> str:
        return self.name


def queue(rate: float = inf, workers: int = 4) -> CallQueue[Lease]:
    """An empty one."""
    return CallQueue(rate, workers, 0.0, 0.0)


def taken(calls: CallQueue[Lease], now: float = 0.0, *, token: bool = True) -> Next[Lease]:
    """The next call of a lease, which there has to be."""
    found = calls.next(now, of_login=False, token=token)
    assert isinstance(found, Next)
    return found


def wait(calls: CallQueue[Lease], now: float = 0.0, *, of_login: bool = False) -> float:
    """How long there is none."""
    found = calls.next(now, of_login=of_login, token=True)
    assert isinstance(found, float)
    return found


def put(calls: CallQueue[Lease], *leases: Lease, call: Call = ISSUE) -> None:
    """A call of each."""
    for lease in leases:
        calls.put(lease, call, of_login=False)


def out(calls: CallQueue[Lease], leases: Iterable[Lease], now: float = 0.0) -> list[Out]:
    """Their calls have gone."""
    sent = []
    for lease in leases:
        put(calls, lease)
        sent.append(calls.sent(taken(calls, now), "t", now))
    return sent


def answered(calls: CallQueue[Lease], sent: Out, now: float, answer: Any = None) -> None:
    """Vault's answer to it."""
    calls.answered(sent, answer, now, 1.0)


class TestOrder:
    def test_what_is_in_use_goes_first(self) -> None:
        """Then what has none, then what failed the last time; each in the order of its coming."""
        calls = queue(workers=100)
        again, new, kept = Lease("again", failed=True), Lease("new"), Lease("kept", held=True)
        put(calls, again, new, kept)
        assert [(taken(calls).whose, calls.waiting) for _ in range(3)] == [
            (kept, 2), (new, 1), (again, 0),
        ]  # fmt: skip
        assert wait(calls) == inf

    def test_who_keeps_a_credential(self) -> None:
        """A call of one in use does; neither its revocations nor a call that failed before."""
        calls = queue(workers=100)
        kept, again = Lease("kept", held=True), Lease("again", held=True, failed=True)
        put(calls, kept, again)
        put(calls, kept, call=REVOKE)
        assert [(m.whose, m.call, m.keeps) for m in (taken(calls) for _ in range(3))] == [
            (kept, ISSUE, True),
            (kept, REVOKE, False),
            (again, ISSUE, False),
        ]

    def test_the_others_have_their_turn(self) -> None:
        """Of eight calls one is of those that have none, one of those that failed."""
        calls = queue(workers=100)
        for _ in range(12):
            put(calls, Lease("kept", held=True), Lease("new"), Lease("again", failed=True))
        order = [taken(calls).whose.name for _ in range(16)]
        assert order == [*["kept"] * 3, "new", *["kept"] * 3, "again"] * 2

    def test_a_turn_that_nobody_wants_goes_to_the_next(self) -> None:
        """To who failed if nobody is new, to who is new if nobody failed, and else to what is in use."""
        for others in ("new", "again"):
            calls = queue(workers=100)
            for _ in range(10):
                put(calls, Lease("kept", held=True), Lease(others, failed=others == "again"))
            order = [taken(calls).whose.name for _ in range(8)]
            assert order == [*["kept"] * 3, others] * 2
        calls = queue(workers=100)
        put(calls, *(Lease("kept", held=True) for _ in range(8)))
        assert [taken(calls).whose.name for _ in range(8)] == ["kept"] * 8

    def test_the_last_worker_is_kept_for_what_is_in_use(self) -> None:
        """While calls of the others are slow: one is out for more than a quarter of a second."""
        calls = queue(workers=3)
        out(calls, [Lease("a"), Lease("b")], now=0.0)
        put(calls, Lease("c"), Lease("kept", held=True))
        assert taken(calls, 0.3).whose.name == "kept"
        assert wait(calls, 0.3) == inf
        assert wait(calls, 0.26) == inf
        assert taken(calls, 0.25).whose.name == "c"

    def test_with_a_worker_to_spare_slow_ones_go_on(self) -> None:
        """Of three workers two may be theirs."""
        calls = queue(workers=3)
        out(calls, [Lease("a")], now=0.0)
        put(calls, Lease("b"))
        assert taken(calls, 9.0).whose.name == "b"

    @pytest.mark.parametrize("workers", [1, 2])
    def test_of_few_workers_one_call_of_theirs_is_out_at_most(self, workers: int) -> None:
        """The one worker that there is makes them, too."""
        calls = queue(workers=workers)
        put(calls, Lease("a"))
        sent = calls.sent(taken(calls, 9.0), "t", 9.0)
        put(calls, Lease("b"))
        assert wait(calls, 9.5) == inf
        answered(calls, sent, 9.5)
        assert taken(calls, 9.5).whose.name == "b"

    def test_the_last_answer_says_whether_they_are_slow(self) -> None:
        """After a slow one the last worker is kept at once, until a quick one comes."""
        calls = queue(workers=3)
        first, second, third = out(calls, [Lease("a"), Lease("b"), Lease("c")], now=0.0)
        put(calls, Lease("d"))
        answered(calls, first, 1.0)
        answered(calls, second, 1.0)
        answered(calls, third, 1.0)
        more = out(calls, [Lease("e")], now=1.0)
        put(calls, Lease("f"), Lease("g"))
        calls.sent(taken(calls, 1.0), "t", 1.0)
        assert wait(calls, 1.0) == inf, "two are out, and the last took a second"
        answered(calls, more[0], 1.25)
        out(calls, [], now=1.25)
        calls.sent(taken(calls, 1.25), "t", 1.25)
        assert taken(calls, 1.25).whose.name == "g", "the last took a quarter of one"

    def test_what_is_in_use_makes_nobody_wait(self) -> None:
        """Its calls, slow or not, count neither as the others' nor as slow."""
        calls = queue(workers=2)
        sent = out(calls, [Lease("kept", held=True), Lease("kept", held=True)], now=0.0)
        answered(calls, sent[0], 5.0)
        put(calls, Lease("new"))
        assert taken(calls, 9.0).whose.name == "new"


class TestLogin:
    def test_its_call_goes_before_the_leases(self) -> None:
        """By its own worker; until it has gone the others have to wait."""
        calls, login = queue(), Lease("login")
        put(calls, Lease("a"))
        calls.put(login, ISSUE, of_login=True)
        assert calls.waiting == 1, "of leases"
        assert wait(calls) == inf
        made = calls.next(0.0, of_login=True, token=False)
        assert isinstance(made, Next)
        assert (made.whose, made.of_login, made.keeps) == (login, True, False)
        assert taken(calls).whose.name == "a"
        assert wait(calls, of_login=True) == inf

    def test_without_a_token_only_revocations_go(self) -> None:
        """With the token that the lease was taken with; the others keep their places."""
        calls = queue()
        put(calls, Lease("a"), Lease("kept", held=True))
        put(calls, Lease("b", held=True), call=REVOKE)
        assert taken(calls, token=False).whose.name == "b"
        assert calls.next(0.0, of_login=False, token=False) == inf
        assert [taken(calls).whose.name for _ in range(2)] == ["kept", "a"]

    def test_a_revocation_is_found_behind_others(self) -> None:
        """Be it in the middle of its queue; and each is made once."""
        calls = queue()
        put(calls, Lease("a"))
        put(calls, Lease("b"), Lease("c"), call=REVOKE)
        put(calls, Lease("d"))
        assert [taken(calls, token=False).whose.name for _ in range(2)] == ["b", "c"]
        assert calls.next(0.0, of_login=False, token=False) == inf
        assert calls.waiting == 2


class TestPace:
    def test_calls_keep_it(self) -> None:
        """Two a second; who asks is told how long to wait, if anything waits."""
        calls = queue(rate=2.0)
        out(calls, [Lease("a")], now=10.0)
        assert wait(calls, 10.2) == inf
        put(calls, Lease("b"))
        assert wait(calls, 10.2) == pytest.approx(0.3)
        assert wait(calls, 10.2, of_login=True) == inf
        calls.put(Lease("login"), ISSUE, of_login=True)
        assert wait(calls, 10.2, of_login=True) == pytest.approx(0.3)
        assert isinstance(calls.next(10.5, of_login=True, token=True), Next)

    def test_at_a_stop_nobody_waits(self) -> None:
        """Neither for the pace, nor for a login, nor for a worker's sake."""
        calls = queue(rate=2.0, workers=1)
        out(calls, [Lease("a")], now=10.0)
        put(calls, Lease("b"), call=REVOKE)
        calls.put(Lease("login"), ISSUE, of_login=True)
        assert wait(calls, 10.4) == pytest.approx(0.1)
        assert wait(calls, 10.6) == inf
        calls.stopping = True
        assert taken(calls, 10.4).whose.name == "b"

    def test_another_vault_begins_with_a_pace_of_its_own(self) -> None:
        """What is still out to the one before does not slow it down."""
        calls = queue()
        before = out(calls, [Lease(str(n)) for n in range(STRIKES)], now=0.0)
        calls.change_rate(inf, 1.0, 0.0)
        for sent in before:
            answered(calls, sent, 5.0, Failed(AWAY))
        put(calls, Lease("a"))
        assert taken(calls, 5.0).whose.name == "a"
        assert calls.flow_before.ready_at() > 5.0

    def test_what_goes_to_the_vault_of_before_keeps_its_pace(self) -> None:
        """As the revocations there."""
        calls = queue(rate=1.0)
        calls.change_rate(1.0, 0.0, 0.0)
        put(calls, Lease("a"), call=REVOKE)
        calls.sent(taken(calls, 10.0), "t", 10.0, here=False)
        assert calls.flow_before.ready_at() == 11.0
        assert calls.flow.ready_at() == 0.0
        out(calls, [Lease("b")], now=15.0)
        assert calls.flow_before.ready_at() == 11.0
        assert calls.flow.ready_at() == 16.0
        calls.change_rate(1.0, 20.0, 0.5)
        assert calls.flow.ready_at() == 20.5

    @pytest.mark.parametrize("of", [Failed, lambda failure: NotRevoked("lease/1", failure)])
    @pytest.mark.parametrize("away", [True, False])
    def test_only_what_vault_did_not_answer_slows_it_down(self, of: Any, away: bool) -> None:
        """An engine's failure is not that."""
        calls = queue()
        for sent in out(calls, [Lease(str(n), held=True) for n in range(STRIKES)]):
            answered(calls, sent, 0.0, of(Failure(Verdict.RETRY, "no", away=away)))
        assert (calls.flow.ready_at() > 0.0) is away

    def test_a_failure_does_not_say_that_vault_works(self) -> None:
        """Timeouts ten seconds after the last call that worked are Vault's."""
        calls = queue()
        (sent,) = out(calls, [Lease("a", held=True)], now=100.0)
        answered(calls, sent, 100.0, Failed(Failure(Verdict.RETRY, "an engine's")))
        for sent in out(calls, [Lease(str(n), held=True) for n in range(STRIKES)], now=100.0):
            answered(calls, sent, 100.0, Failed(AWAY))
        assert calls.flow.ready_at() == 100.5


class TestCounts:
    def test_calls_of_each(self) -> None:
        """From the moment on at which it is put, until it is answered."""
        calls, lease = queue(), Lease("a")
        put(calls, lease, lease)
        assert lease.calls == 2
        sent = [calls.sent(taken(calls), token, 0.0) for token in ("t1", "t2")]
        assert calls.out == {"t1": 1, "t2": 1}
        answered(calls, sent[0], 0.1)
        assert (lease.calls, dict(calls.out)) == (1, {"t2": 1})
        answered(calls, sent[1], 0.1)
        assert (lease.calls, dict(calls.out)) == (0, {})

    def test_two_with_one_token(self) -> None:
        """Each counts."""
        calls = queue()
        sent = out(calls, [Lease("a"), Lease("b")])
        assert calls.out == {"t": 2}
        answered(calls, sent[0], 0.1)
        assert calls.out == {"t": 1}

    def test_idle(self) -> None:
        """Nothing is out, and nothing waits that could be made with or without a token."""
        calls = queue()
        assert calls.idle(token=True)
        assert calls.idle(token=False)
        put(calls, Lease("a"))
        assert not calls.idle(token=True)
        assert calls.idle(token=False), "only revocations could be made"
        put(calls, Lease("a"), call=REVOKE)
        assert not calls.idle(token=False)
        sent = [calls.sent(taken(calls), "t", 0.0) for _ in range(2)]
        assert not calls.idle(token=True)
        for each in sent:
            answered(calls, each, 0.0)
        assert calls.idle(token=True)
        assert calls.idle(token=False)
        put(calls, Lease("a"), Lease("b"), Lease("c"), call=REVOKE)
        answered(calls, calls.sent(taken(calls, token=False), "t", 0.0), 0.0)
        assert not calls.idle(token=False), "two more wait"
        calls.forget(lambda whose, call: True)
        calls.put(Lease("login"), ISSUE, of_login=True)
        assert not calls.idle(token=False)

    def test_what_is_forgotten_is_not_made(self) -> None:
        """Whose it was is told, once for each call, and no longer has it; the others keep their order."""
        calls = queue()
        kept, gone, again = Lease("kept", held=True), Lease("gone"), Lease("again", failed=True)
        put(calls, gone, kept, again, gone)
        put(calls, gone, kept, gone, call=REVOKE)
        calls.put(gone, ISSUE, of_login=True)
        forgotten = calls.forget(lambda whose, call: whose is gone and call is ISSUE)
        assert forgotten == [gone, gone, gone]
        assert (gone.calls, kept.calls, again.calls) == (2, 2, 1)
        assert calls.next(0.0, of_login=True, token=True) == inf
        assert not calls.idle(token=False)
        assert calls.forget(lambda whose, call: call is REVOKE) == [gone, kept, gone]
        assert calls.idle(token=False)
        assert [taken(calls).whose for _ in range(2)] == [kept, again]
