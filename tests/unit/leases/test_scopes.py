"""Leases of each caller's and each request's own, without threads and with a clock of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.leases.test_plans import Clock, announce_nothing
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.values import PathSecret, Upstream, Vault
from vaultauthz.core.callers import Callers
from vaultauthz.core.calls import Next
from vaultauthz.core.credential import Login
from vaultauthz.core.decision import Allowed, Decision, Denied
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict
from vaultauthz.core.injection import Mutation
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRevoke,
    Failed,
    Issued,
    NotRevoked,
    Renewed,
    Revoked,
)
from vaultauthz.core.pace import Pace
from vaultauthz.core.request import Request
from vaultauthz.core.secret import Secret
from vaultauthz.core.token import Token
from vaultauthz.leases import scopes
from vaultauthz.leases.keeper import Keeper
from vaultauthz.leases.later import Later
from vaultauthz.vault.session import Session

STAGE = "prod"
PAY = Upstream("pay", (STAGE,), {STAGE: PathSecret("database/creds/pay")}, (), Callers(None))
NO = Failure(Verdict.RETRY, "no")


def waited(found: Decision | Later[Decision]) -> Decision:
    """What has come of it by now: nobody else will answer."""
    if not isinstance(found, Later):
        return found
    there: list[Decision] = []
    found.then(there.append)
    assert there, "not answered"
    return there[0]


class Bed:
    """A scope, and a Vault that answers what waits when it is told to."""

    def __init__(self, per: str, drain: float = 30.0, **more: Any) -> None:
        self.clock = Clock()
        self.keeper = Keeper(announce_nothing, Pace(drain=drain), self.clock, lambda: 0.5)
        auth = AppRole("role")
        session = Session(Vault("http://127.0.0.1:1"), auth, self.clock)
        self.keeper.add_stage(STAGE, session)
        self.stage = self.keeper._stages[STAGE]
        self.login = Login()
        token = Token(Secret("hvs"), "t", self.login, session)
        issued = Issued(Grant(token, lease_id="t", login=self.login), self.clock())
        self.keeper.deliver(self.stage.login, issued)
        self.scope = self.keeper.add_scope(STAGE, replace(PAY, per=per, **more))
        self.ttl = 3600.0
        self.issued: list[str] = []
        self.renewed: list[str] = []
        self.alive: set[str] = set()
        self.stuck = False  # revocations do not work

    def ask(self, caller: str = "ann", wait: float = 10.0) -> Decision | Later[Decision]:
        """A check of this caller's."""
        return self.scope.take(Request("test", principal=caller, wait=wait), wait)

    def user(self, caller: str = "ann") -> str:
        """The lease that this caller's request goes with, whatever has to be asked for it."""
        found = self.ask(caller)
        if isinstance(found, Later):
            self.answer()
            found = waited(found)
        assert isinstance(found, Allowed), found
        assert found.credential
        return found.credential.lease_id

    def denied(self, caller: str = "ann") -> str:
        """Why this caller's request is denied, at once."""
        found = self.ask(caller)
        assert isinstance(found, Denied), found
        assert found.retry_after >= 1
        return found.reason.value

    def answer(self) -> None:
        """Vault answers all that waits."""
        while isinstance(
            made := self.stage.calls.next(self.clock(), of_login=False, token=True), Next
        ):
            out = self.stage.calls.sent(made, "", self.clock())
            found = self._answer(made.call)
            self.stage.calls.answered(out, found, self.clock(), 0.5)
            made.whose.answered(found)

    def _answer(self, call: Any) -> Any:
        now = self.clock()
        if isinstance(call, CallIssue):
            name = f"l{len(self.issued)}"
            self.issued.append(name)
            self.alive.add(name)
            return Issued(Grant(Mutation(), self.ttl, name, True, login=self.login), now)
        if isinstance(call, CallRevoke):
            if self.stuck:
                return NotRevoked(call.lease_id, NO)
            self.alive.discard(call.lease_id)
            return Revoked(call.lease_id)
        self.renewed.append(call.lease_id)
        return Renewed(Renewal(self.ttl), now)

    def pass_(self, seconds: float) -> None:
        """Let time pass, in steps of at most a second, with the look rounds and Vault's answers."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + 1.0)
            with self.keeper.lock:
                self.keeper._waker.wake(self.clock.now)
                self.keeper._look_round()
            self.answer()


# --- per caller ---


def test_what_is_idle_is_given_back_and_what_is_used_stays() -> None:
    """The idle one is revoked; asked for again, there is a new one."""
    bed = Bed("caller", idle=600.0)
    kept, idle = bed.user("ann"), bed.user("bob")
    for _ in range(7):
        bed.pass_(100.0)
        assert bed.user("ann") == kept
    assert bed.alive == {kept}
    assert bed.user("bob") != idle


def test_who_waits_is_not_idle() -> None:
    """Vault takes longer than `idle`: the lease that is waited for is not given up."""
    bed = Bed("caller", drain=1.0, idle=3.0)
    promised = bed.ask(wait=60.0)
    bed.clock.now += 10.0
    with bed.keeper.lock:
        bed.keeper._look_round()
    bed.answer()
    assert waited(promised).allowed
    bed.pass_(3.0)
    assert bed.alive == {"l0"}
    bed.pass_(1.0)
    assert bed.alive == set()


def test_who_has_a_credential_is_served_while_too_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bound is for those that would wait."""
    monkeypatch.setattr(scopes, "MAX_WAITING", 1)
    bed = Bed("caller")
    user = bed.user()
    waiting = bed.ask("bob", 3.0)
    assert bed.denied("bob") == bed.denied("cid") == "overloaded"
    assert bed.user() == user
    bed.clock.now += 3.0
    bed.keeper._waker.wake(bed.clock.now)
    found = waited(waiting)
    assert isinstance(found, Denied)
    assert found.reason.value == "no_credential"


def test_who_is_being_waited_for_does_not_make_room() -> None:
    """More callers at once than there is room for: the first get theirs, the others are told."""
    bed = Bed("caller", drain=5.0, max_callers=3)
    promised = [bed.ask(f"p{number}", 60.0) for number in range(3)]
    bed.clock.now += 10.0  # a lease that is only there could be given up by now
    assert {bed.denied(f"p{number}") for number in range(3, 9)} == {"overloaded"}
    bed.answer()
    assert all(waited(each).allowed for each in promised)
    assert len(bed.issued) == 3
    bed.pass_(31.0)
    assert bed.user("p9")
    assert len(bed.alive) == 3


def test_callers_leases_that_cannot_be_revoked_still_count() -> None:
    """Whoever comes waits for room until his deadline, and no lease is made beyond the bound."""
    bed = Bed("caller", max_callers=3)
    for caller in ("ann", "bob", "cid"):
        bed.user(caller)
    bed.stuck = True
    bed.pass_(31.0)
    for number in range(20):
        found = bed.ask(f"p{number}", 1.0)
        bed.pass_(2.0)
        assert not waited(found).allowed
    assert len(bed.issued) == len(bed.alive) == 3
    bed.stuck = False
    bed.pass_(120.0)
    assert bed.user("dan")
    assert len(bed.alive) <= 3


def test_callers_leases_are_renewed() -> None:
    """A lease is the same one after it would have ended."""
    bed = Bed("caller", idle=3600.0)
    bed.ttl = 30.0
    user = bed.user()
    bed.pass_(60.0)
    assert bed.user() == user
    assert set(bed.renewed) == {user}


# --- per request ---


def test_no_more_are_out_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is overloaded, without a call; and there is room again when they are revoked."""
    monkeypatch.setattr(scopes, "MAX_OUTSTANDING", 4)
    bed = Bed("request", hold=3.0)
    users = {bed.user() for _ in range(4)}
    assert (bed.denied(), bed.issued) == ("overloaded", sorted(users))
    bed.pass_(2.0)
    assert (bed.denied(), bed.alive) == ("overloaded", users)
    bed.pass_(1.0)
    assert bed.alive == set()
    assert bed.user() not in users


def test_what_cannot_be_revoked_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vault is away when `hold` is over: no more logins are made than may be out."""
    monkeypatch.setattr(scopes, "MAX_OUTSTANDING", 3)
    bed = Bed("request", hold=1.0)
    bed.stuck = True
    for _ in range(3):
        bed.user()
    bed.pass_(10.0)
    assert bed.denied() == "overloaded"
    bed.stuck = False
    bed.pass_(120.0)
    assert bed.user()


def test_what_vault_refuses_is_told_to_all_until_it_is_asked_again() -> None:
    """One call until the backoff is over, and then it may give again."""
    for per in ("caller", "request"):
        bed = Bed(per)
        waiting = [bed.ask() for _ in range(3)][: 3 if per == "caller" else 1]
        made = bed.stage.calls.next(bed.clock(), of_login=False, token=True)
        assert isinstance(made, Next)
        out = bed.stage.calls.sent(made, "", bed.clock())
        bed.stage.calls.answered(out, Failed(NO), bed.clock(), 0.5)
        made.whose.answered(Failed(NO))
        assert not any(waited(each).allowed for each in waiting)
        assert bed.denied() == "no_credential"
        bed.pass_(61.0)
        assert bed.user()
