"""One life at a time: renewing, replacing, waiting and ending."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core import events
from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict, Version
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Failed,
    Issued,
    LoginLost,
    NotRevoked,
    Publish,
    Rejected,
    Release,
    Renewed,
    Revoke,
    Revoked,
    Rotate,
    Stop,
    Tick,
    Withdraw,
)
from vaultauthz.core.lease_state import State
from vaultauthz.core.pace import Pace

from .lease_life import (
    AWAY,
    GONE,
    LOCKED,
    NOTHING_THERE,
    REFUSED,
    Life,
    in_state,
    issued,
    renewed,
)

WELL_PAST = 10_000.0


def static(version: Version, text: str = "key") -> Grant:
    """A KV secret that is read every 300 s and believed for 3,600 s."""
    return Grant(text, 3600.0, read_again=300.0, version=version, credential_id=f"id-{text}")


def written(number: int, minute: int = 0, fraction: str = "") -> Version:
    """Version ``number``, written at this minute of some hour."""
    return Version(number, f"2026-01-01T00:{minute:02d}:00{fraction}Z")


# --- renewing ---


def test_ttl_counts_from_before_the_call() -> None:
    """An answer that was long on its way is believed for less, and renewed sooner."""
    life = Life()
    life.at(0, Tick())
    (publish,) = life.at(40, issued(life, "one", sent_at=0))
    assert isinstance(publish, Publish)
    assert publish.ends_at == 100
    assert life.wake_at == 60


def test_renewal_asks_for_the_first_ttl() -> None:
    """Each renewal asks for what the lease had at first, however long the last one gave."""
    life = in_state(State.HELD)
    assert life.at(60, Tick()) == [CallRenew("one", 100.0)]
    life.at(60, renewed(60, ttl=99.5))
    assert life.at(life.wake_at, Tick()) == [CallRenew("one", 100.0)]


def test_renewed_ttl_counts_from_before_the_call() -> None:
    """A renewal, too, is believed from the moment when it was sent."""
    life = in_state(State.RENEWING)
    (publish,) = life.at(90, renewed(60))
    assert isinstance(publish, Publish)
    assert publish.ends_at == 160
    assert life.wake_at == 120


def test_shorter_renewal_leads_to_rotation() -> None:
    """When Vault gives less than asked, ``max_ttl`` is near: use it, then replace it."""
    life = in_state(State.RENEWING)
    life.at(60, renewed(60, ttl=50))
    assert life.wake_at == 60 + 50 - 30, "half a minute to mint in"
    assert life.at(90, Tick()) == [CallIssue()]
    assert life.state is State.REPLACING


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("left", [0.5, 2.0, 20.0])
def test_renewal_that_leaves_little_is_replaced_at_once(left: float, jitter: float) -> None:
    """Near ``max_ttl`` a share of what is left is no time to mint in: it begins right away."""
    life = in_state(State.RENEWING)
    assert life.at(60, renewed(60, ttl=left), jitter) == [ANY, CallIssue()]
    assert life.state is State.REPLACING


@given(
    st.floats(1.0, 1e7),
    st.floats(0.01, 1.0),
    st.none() | st.floats(0.1, 2.0),
    st.floats(0.0, 0.999),
)
def test_replacement_has_the_time_that_a_whole_lease_gives_it(
    ttl: float, share: float, increment: float | None, jitter: float
) -> None:
    """However little the last renewal left, and whatever was asked for: a quarter, or 30 s."""
    asked = ttl * increment if increment else None
    life = Life(Pace(increment=asked))
    life.at(0, Tick())
    life.at(0, issued(life, "one", 0, ttl))
    sent_at = life.wake_at
    life.at(sent_at, Tick())
    left = share * ttl
    if not life.machine.pace.shorter(left, life.machine.pace.asked(ttl)):
        return
    life.at(sent_at, renewed(sent_at, left), jitter)
    begins = sent_at if life.state is not State.HELD else life.wake_at
    usual = min(30.0, 0.25 * min(ttl, asked or ttl))
    assert sent_at + left - begins >= min(left, usual) * (1 - 1e-6)


def test_lease_that_is_no_more_renewable_is_replaced() -> None:
    """A renewal that says it was the last is followed by a replacement."""
    life = in_state(State.RENEWING)
    life.at(60, Renewed(Renewal(100.0, renewable=False), 60))
    assert life.at(120, Tick()) == [CallIssue()]


def test_lease_that_never_was_renewable_is_replaced() -> None:
    """A lease that cannot be renewed gets its successor in the same window."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(life.grant("one", renewable=False), 0))
    assert life.at(60, Tick()) == [CallIssue()]


def test_refused_renewal_waits_for_the_last_third() -> None:
    """A refused renewal is not tried again; the replacement comes when a third is left."""
    life = in_state(State.RENEWING)
    assert life.at(61, Failed(REFUSED)) == []
    assert life.wake_at == pytest.approx(100 - 100 / 3)
    assert life.at(life.wake_at, Tick()) == [CallIssue()]
    life.at(67, Failed(AWAY))
    assert life.at(life.wake_at, Tick()) == [CallIssue()], "renewed what was refused"


def test_unreachable_vault_mints_nothing_before_the_last_third() -> None:
    """While more than a third is left, what failed is tried again and nothing else."""
    life = in_state(State.RENEWING, Pace(last_share=0.2))
    now = 60.0
    while now < 80.0:
        assert life.at(now, Failed(AWAY)) == []
        assert life.machine.held is not None
        now = life.wake_at
        expected = CallRenew("one", 100.0) if now < 80 else CallIssue()
        assert life.at(now, Tick()) == [expected]


def test_renewal_and_replacement_take_turns_at_the_end() -> None:
    """In the last third either may be what works, so both are tried until the end."""
    life = in_state(State.RENEWING)
    now, calls = 70.0, []
    while life.machine.held:
        life.at(now, Failed(AWAY))
        now = life.wake_at
        calls += [type(c) for c in life.at(now, Tick()) if isinstance(c, (CallIssue, CallRenew))]
    assert now == 100
    assert calls[:6] == [CallIssue, CallRenew] * 3


def test_nothing_is_minted_while_vault_is_away() -> None:
    """Where Vault itself does not answer, a mint fares no better: only renewals are tried."""
    away = Failure(Verdict.RETRY, "unreachable", away=True)
    life = in_state(State.RENEWING)
    now = 60.0
    while now < 100:
        life.at(now, Failed(away))
        now = life.wake_at
        expected = [CallRenew("one", 100.0)] if now < 100 else [Withdraw(), CallIssue()]
        assert life.at(now, Tick()) == expected


def test_replacement_that_fails_keeps_nothing_from_its_renewal() -> None:
    """A wish that Vault does not grant must not cost the credential that there is."""
    life = in_state(State.REPLACING)
    now, renewals = 51.0, 0
    while now < 500:
        life.at(now, Failed(REFUSED))
        now = life.wake_at
        commands = life.at(now, Tick())
        if any(isinstance(c, CallRenew) for c in commands):
            renewals += 1
            assert CallIssue() in life.at(now, renewed(now)), "the wish was forgotten"
        assert life.machine.held is not None
    assert renewals >= 4


def test_backoff_grows_and_starts_again() -> None:
    """Waits double with each failure and begin from the floor after a success."""
    life = in_state(State.ISSUING)
    now, waits = 0.0, []
    for _ in range(8):
        life.at(now, Failed(AWAY), 0.999999)
        waits.append(life.wake_at - now)
        now = life.wake_at
        life.at(now, Tick())
    assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60], rel=1e-3)
    life.at(now, issued(life, "one", now))
    life.at(now + 60, Tick())
    life.at(now + 60, Failed(AWAY), 0.999999)
    assert life.wake_at - (now + 60) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(("asked", "waits"), [(0.0, 0.5), (20.0, 20.0), (86_400.0, 300.0)])
def test_retry_after_is_waited_for(asked: float, waits: float) -> None:
    """The server's wish is heard, to a limit: nobody waits a day on a proxy's word."""
    life = in_state(State.ISSUING)
    life.at(10, Failed(Failure(Verdict.RETRY, "overloaded", retry_after=asked)))
    assert life.wake_at == 10 + waits


# --- replacing ---


def test_rotation_gets_the_new_one_first() -> None:
    """The old credential serves until the new one is there, drains, and is then revoked."""
    life = in_state(State.REPLACING)
    (publish,) = life.at(51, issued(life, "two", 50))
    assert isinstance(publish, Publish)
    assert publish.grant.lease_id == "two"
    assert life.wake_at == 51 + 30
    assert life.at(81, Tick()) == [CallRevoke("one")]
    life.at(82, Revoked("one"))
    assert [note.name for note in life.notes] == ["lease.issued", "lease.rotated", "lease.revoked"]


def test_drain_is_not_longer_than_the_lease() -> None:
    """A replaced lease that ends before its drain does is left to end."""
    life = in_state(State.RENEWING)
    life.at(80, Failed(AWAY))
    life.at(life.wake_at, Tick())
    life.at(81, issued(life, "two", 80))
    assert life.wake_at == 100
    assert life.at(100, Tick()) == []
    assert len(life.machine.retired) == 0


def test_released_lease_need_not_drain() -> None:
    """A replaced lease that nothing uses any more is revoked at once, but only that one."""
    life = in_state(State.REPLACING)
    life.at(51, issued(life, "two", 50))
    assert life.at(52, Release("other")) == []
    assert life.at(52, Release("one")) == [CallRevoke("one")]


def test_wish_during_a_replacement_is_granted_afterwards() -> None:
    """What was on its way when the wish came may be older than the wish: once more."""
    life = in_state(State.REPLACING)
    assert life.at(51, Rotate()) == []
    assert [type(c) for c in life.at(52, issued(life, "two", 50))] == [Publish, CallIssue]
    assert [type(c) for c in life.at(53, issued(life, "three", 52))] == [Publish]


def test_wish_during_the_first_issue_is_granted_afterwards() -> None:
    """A secret that was written while it was being read is read again."""
    life = in_state(State.ISSUING)
    assert life.at(0.1, Rotate()) == []
    assert CallIssue() in life.at(0.2, Issued(static(written(1)), 0))


def test_wish_is_granted_once_when_the_call_on_its_way_failed() -> None:
    """The call after a failure is younger than the wish: no second one is needed."""
    life = in_state(State.REPLACING)
    life.at(51, Rotate())
    life.at(52, Failed(AWAY))
    assert life.at(life.wake_at, Tick()) == [CallIssue()]
    assert [type(c) for c in life.at(53, issued(life, "two", 52.5))] == [Publish]


def test_wish_during_a_renewal_comes_after_it() -> None:
    """The renewal is heard out first, and then the replacement is fetched."""
    life = in_state(State.RENEWING)
    assert life.at(61, Rotate()) == []
    assert [type(c) for c in life.at(62, renewed(60))] == [Publish, CallIssue]


def test_wish_during_a_renewal_that_is_refused_does_not_wait() -> None:
    """A refused renewal postpones a replacement only when nobody has asked for one."""
    life = in_state(State.RENEWING)
    life.at(61, Rotate())
    life.at(62, Failed(REFUSED))
    assert life.wake_at == 62.5
    assert life.at(62.5, Tick()) == [CallIssue()]


def test_spread_rotation() -> None:
    """Many leases that must move do so spread over the time that is given."""
    life = in_state(State.HELD)
    assert life.at(10, Rotate(within=40), 0.25) == []
    assert life.wake_at == 20
    assert life.at(20, Tick()) == [CallIssue()]


# --- ends ---


def test_nothing_is_used_past_its_end() -> None:
    """At its very end the credential is withdrawn, and another is asked for at once."""
    life = in_state(State.RENEWING)
    life.at(80, Failed(AWAY), 0.99)
    life.at(life.wake_at, Tick())
    assert life.wake_at == 100
    assert life.at(100, Tick()) == [Withdraw()]
    assert life.notes[-1].name == events.EXPIRED


def test_renewal_after_the_end_is_revoked() -> None:
    """Vault renewed what we had to give up for lost: it is revoked, not used again."""
    life = in_state(State.LAPSED)
    assert life.at(101, renewed(60)) == [CallIssue(), CallRevoke("one")]


def test_late_renewal_finds_the_lease_gone_without_a_tick() -> None:
    """Time comes first: it makes no difference whether a Tick came before the answer."""
    life = in_state(State.RENEWING)
    assert life.at(101, renewed(60)) == [Withdraw(), CallIssue(), CallRevoke("one")]


def test_sleep_past_the_end() -> None:
    """A machine that slept past everything wakes up to a new credential, not the old."""
    life = in_state(State.HELD)
    assert life.at(WELL_PAST, Tick()) == [Withdraw(), CallIssue()]


def test_answer_that_had_ended_when_it_arrived() -> None:
    """A lease whose answer took longer than it lives is not used."""
    life = in_state(State.ISSUING)
    assert life.at(100, issued(life, "one", 0)) == []
    assert life.state is State.EMPTY


def test_answer_of_a_token_that_died_meanwhile() -> None:
    """A lease whose token died while it was on its way is dead, too."""
    life = in_state(State.ISSUING)
    answer = issued(life, "one", 0)
    life.login.ends_at = -inf
    assert life.at(1, answer) == []
    assert life.state is State.EMPTY


def test_end_of_the_token_is_the_end_of_its_leases() -> None:
    """A lease ends with its token even when nobody says so, and then and not later."""
    life = in_state(State.HELD)
    life.login.ends_at = 55.0
    assert life.wake_at == 55
    life.login = Login()
    assert life.at(55, Tick()) == [Withdraw(), CallIssue()]
    assert life.notes[-1].name == events.LOST


def test_renewed_token_carries_its_leases() -> None:
    """When the token's end moves on, its leases stay."""
    life = in_state(State.HELD)
    life.login.ends_at = 55.0
    life.login.ends_at = 200.0
    assert life.at(55, Tick()) == []
    assert life.wake_at == 60


def test_lost_login_is_spread() -> None:
    """The leases of a dead token are withdrawn at once and fetched again spread out."""
    life = in_state(State.HELD)
    life.login.ends_at = -inf
    assert life.at(50, LoginLost(within=20), 0.5) == [Withdraw()]
    assert life.wake_at == 60


def test_lease_that_vault_forgot_is_given_up() -> None:
    """A lease that does not exist any more is not used until its time would be over."""
    life = in_state(State.RENEWING)
    assert life.at(61, Failed(GONE)) == [Withdraw()]
    assert life.at(61.5, Tick()) == [CallIssue()]


def test_revoke_during_a_renewal_waits_for_it() -> None:
    """Never two calls for one lease: the revocation follows the renewal's answer."""
    life = in_state(State.RENEWING)
    assert life.at(61, Revoke()) == [Withdraw()]
    assert life.at(62, renewed(60)) == [CallIssue(), CallRevoke("one")]


@pytest.mark.parametrize("failure", [AWAY, REFUSED])
def test_revoke_during_a_renewal_that_fails(failure: Failure) -> None:
    """A renewal that failed may have worked in Vault: the lease is revoked all the same."""
    life = in_state(State.RENEWING)
    life.at(61, Revoke())
    assert life.at(62, Failed(failure)) == [CallRevoke("one")]


def test_revoke_takes_the_draining_ones_along() -> None:
    """An operator who revokes means every lease that could still be used."""
    life = in_state(State.REPLACING)
    life.at(51, issued(life, "two", 50))
    commands = life.at(52, Revoke())
    assert [c for c in commands if isinstance(c, CallRevoke)] == [
        CallRevoke("one"),
        CallRevoke("two"),
    ]


# --- stop ---


def test_stop_during_a_renewal_revokes_after_it() -> None:
    """At the stop, too, the revocation waits for the renewal that is out."""
    life = in_state(State.RENEWING)
    assert life.at(61, Stop(revoke=True)) == [Withdraw()]
    assert life.at(62, renewed(60)) == [CallRevoke("one")]


def test_stop_during_a_renewal_that_fails() -> None:
    """A renewal that fails after the stop does not leave the lease behind."""
    life = in_state(State.RENEWING)
    life.at(61, Stop(revoke=True))
    assert life.at(62, Failed(AWAY)) == [CallRevoke("one")]


def test_lease_that_arrives_after_the_stop_is_revoked() -> None:
    """What was on its way at the stop is not left behind."""
    life = in_state(State.ISSUING)
    life.at(1, Stop(revoke=True))
    assert life.at(2, issued(life, "late", 0)) == [CallRevoke("late")]


def test_handed_on_lease_is_not_revoked() -> None:
    """``revoke=False`` leaves the lease to its token, whatever is said later."""
    life = in_state(State.RENEWING)
    assert life.at(61, Stop(revoke=False)) == [Withdraw()]
    assert life.at(61, Release("one")) == []
    assert life.at(62, renewed(60)) == []


def test_stop_with_a_drain() -> None:
    """An upstream that a reload dropped: requests that have the credential may finish."""
    life = in_state(State.HELD)
    assert life.at(50, Stop(revoke=True, drain=30)) == []
    assert life.wake_at == 80
    assert life.at(80, Tick()) == [CallRevoke("one")]


def test_stop_with_a_drain_during_a_renewal() -> None:
    """The drain is not cut short by the answer of a renewal that was out."""
    life = in_state(State.RENEWING)
    assert life.at(61, Stop(revoke=True, drain=30)) == []
    assert life.at(62, renewed(60)) == []
    assert life.at(91, Tick()) == [CallRevoke("one")]


@pytest.mark.parametrize("state", [State.HELD, State.RENEWING])
def test_second_stop_ends_the_drain(state: State) -> None:
    """When the process ends, nothing drains any longer."""
    life = in_state(state)
    life.at(61, Stop(revoke=True, drain=30))
    commands = life.at(62, Stop(revoke=True))
    if state is State.RENEWING:
        commands += life.at(63, renewed(60))
    assert commands == [CallRevoke("one")]


def test_drain_is_for_replaced_leases_too() -> None:
    """A stop with a drain brings nothing forward to an earlier moment than that."""
    life = in_state(State.REPLACING)
    life.at(51, issued(life, "two", 50))
    assert life.at(52, Stop(revoke=True, drain=5)) == []
    assert life.at(57, Tick()) == [CallRevoke("one"), CallRevoke("two")]


# --- revoking ---


def test_failed_revocation_is_tried_again_until_the_end() -> None:
    """A revocation that fails comes back with growing waits, until the lease ends by itself."""
    life = in_state(State.HELD)
    life.at(50, Stop(revoke=True))
    now, calls = 51.0, 0
    while life.wake_at < inf or life.machine.retired:
        life.at(now, NotRevoked("one", AWAY))
        assert life.wake_at >= now + 0.5
        now = life.wake_at
        calls += len(life.at(now, Tick()))
        if now == 100:
            break
    assert calls > 1
    assert len(life.machine.retired) == 0
    told = [(n.lease_id, n.reason) for n in life.notes if n.name == events.NOT_REVOKED]
    assert told == [("one", AWAY.reason)] * (1 + calls)


@pytest.mark.parametrize("verdict", [Verdict.LEASE_GONE, Verdict.TOKEN_DEAD])
def test_lease_that_is_gone_needs_no_revocation(verdict: Verdict) -> None:
    """A revocation that finds nothing is done."""
    life = in_state(State.HELD)
    life.at(50, Stop(revoke=True))
    life.at(51, NotRevoked("one", Failure(verdict, "gone")))
    assert (len(life.machine.retired), life.wake_at) == (0, inf)


def test_lease_that_ends_during_its_revocation() -> None:
    """The revocation that is out has the last word: one end is told, not two."""
    life = in_state(State.HELD)
    life.at(99, Stop(revoke=True))
    assert life.at(101, Tick()) == []
    life.at(102, Revoked("one"))
    assert [note.name for note in life.notes] == [events.ISSUED, events.REVOKED]


def test_hurry_does_not_break_the_backoff() -> None:
    """A Release does not bring a failed revocation closer than the floor."""
    life = in_state(State.HELD)
    life.at(10, Revoke())
    life.at(11, NotRevoked("one", AWAY))
    assert life.at(11.1, Release("one")) == []
    assert life.at(11.1, Revoke()) == []


# --- locked ---


def test_locked_login_is_not_tried_again() -> None:
    """A refused AppRole login is not repeated: five of them lock the role for the fleet."""
    life = in_state(State.ISSUING)
    life.at(1, Failed(LOCKED))
    assert life.at(WELL_PAST, Tick()) == []
    assert life.wake_at == inf


@pytest.mark.parametrize("event", [Rotate(), Revoke()])
def test_locked_login_is_tried_again_on_command(event: object) -> None:
    """Somebody who changed something may ask for one more try."""
    life = in_state(State.ISSUING)
    life.at(1, Failed(LOCKED))
    assert life.at(WELL_PAST, event) == [CallIssue()]


def test_locked_login_does_not_cost_the_token_that_there_is() -> None:
    """A secret_id file with a mistake in it must not end the token that still works."""
    life = in_state(State.REPLACING)
    life.at(51, Failed(LOCKED))
    assert life.wake_at == 60
    for now in (60, 120, 180):
        assert life.at(now, Tick()) == [CallRenew("one", 100.0)]
        life.at(now, renewed(now))


def test_locked_login_is_not_tried_again_when_the_token_ends() -> None:
    """Not even the end of the token is a reason for another harmful try."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(life.grant("one", renewable=False), 0))
    assert life.at(60, Tick()) == [CallIssue()]
    life.at(61, Failed(LOCKED))
    assert life.at(100, Tick()) == [Withdraw()]
    assert life.at(WELL_PAST, Tick()) == []
    assert life.wake_at == inf


def test_renewals_go_on_while_the_login_is_locked() -> None:
    """A renewal that fails while the login is locked is tried again, to the end."""
    life = in_state(State.REPLACING)
    life.at(51, Failed(LOCKED))
    now = 60.0
    while now < 100:
        assert life.at(now, Tick()) == [CallRenew("one", 100.0)]
        life.at(now, Failed(AWAY))
        now = life.wake_at


def test_change_that_came_during_the_locked_try_is_tried() -> None:
    """The file was mended while the wrong one was on its way: that is worth one more try."""
    life = in_state(State.ISSUING)
    life.at(0.5, Rotate())
    life.at(1, Failed(LOCKED))
    assert life.at(1.5, Tick()) == [CallIssue()]
    life.at(2, Failed(LOCKED))
    assert life.at(WELL_PAST, Tick()) == []


FOR_A_WHILE = Failure(Verdict.LOCKED, "wrong tries in a row lock it", again_in=240.0)


def test_a_login_that_is_locked_for_a_while_is_tried_after_it() -> None:
    """Not before, whoever looks; and again and again."""
    life = in_state(State.ISSUING)
    life.at(1, Failed(FOR_A_WHILE))
    for _ in range(3):
        until = life.machine.due if life.machine.due > 100 else 241.0
        assert life.at(until - 0.1, Tick()) == []
        assert life.wake_at == until
        assert life.at(until, Tick()) == [CallIssue()]
        life.at(until, Failed(FOR_A_WHILE))
        life.at(until + 100, Tick())


def test_a_change_or_a_command_does_not_wait_for_the_while() -> None:
    """The file has another password, or somebody asks: what may be tried is said by tries.py."""
    life = in_state(State.ISSUING)
    life.at(1, Failed(FOR_A_WHILE))
    assert life.at(2, Rotate()) == [CallIssue()]


def test_what_is_held_is_renewed_during_the_while() -> None:
    """And when it has gone by, renewals go on; the next replacement is one that is wanted."""
    life = in_state(State.REPLACING)
    life.at(51, Failed(FOR_A_WHILE))
    for now in (60, 120, 180, 240):
        assert life.at(now, Tick()) == [CallRenew("one", 100.0)]
        life.at(now, renewed(now))


def test_what_is_held_may_end_during_the_while_and_the_login_is_tried_after_it() -> None:
    """Its end is no reason for a try that does harm; nor is it forgotten that there is one to make."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(life.grant("one", renewable=False), 0))
    assert life.at(60, Tick()) == [CallIssue()]
    life.at(61, Failed(FOR_A_WHILE))
    assert life.at(100, Tick()) == [Withdraw()]
    assert life.at(300, Tick()) == []
    assert life.wake_at == 301
    assert life.at(301, Tick()) == [CallIssue()]
    life.at(301, issued(life, "two", 301))
    assert life.machine.state is State.HELD


def test_a_short_while_is_waited_for_and_the_backoff_too() -> None:
    """Another login with the same name is under way: a second, and the floor of the backoff."""
    life = in_state(State.ISSUING)
    life.at(1, Failed(Failure(Verdict.LOCKED, "another is under way", again_in=1.0)))
    assert life.at(1.9, Tick()) == []
    assert life.at(2.0, Tick()) == [CallIssue()]


# --- 401 ---


def test_rejected_credential_is_replaced_once_in_the_gap() -> None:
    """An upstream's 401s ask for one rotation in 30 s, however many they are."""
    life = in_state(State.HELD)
    assert life.at(20, Rejected("id-one")) == [], "too fresh to be the lease's fault"
    assert life.at(31, Rejected("id-one")) == [CallIssue()]
    assert life.at(31, Rejected("id-one")) == []
    life.at(32, issued(life, "two", 31))
    assert life.at(33, Rejected("id-one")) == [], "about the credential before"
    assert life.at(34, Rejected("id-two")) == []
    assert CallIssue() in life.at(62, Rejected("id-two"))


def test_rejected_static_secret_is_not_read_at_each_401() -> None:
    """A static secret that is simply wrong is read again every 30 s, not at every 401."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(1)), 0))
    reads = 0
    for second in range(31, 151):
        if life.at(second, Rejected("id-key")):
            reads += 1
            life.at(second, Issued(static(written(1)), second))
    assert reads == 4


# --- static secrets ---


def test_static_secret_is_read_on_its_schedule() -> None:
    """The same secret read again is published with a later end, under the same name."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(1)), 0))
    assert life.wake_at == 270
    assert life.at(270, Tick()) == [CallIssue()]
    again = replace(static(written(1)), credential_id="another")
    (publish,) = life.at(271, Issued(again, 270))
    assert isinstance(publish, Publish)
    assert (publish.grant.credential_id, publish.ends_at) == ("id-key", 3870)
    assert [note.name for note in life.notes] == ["lease.issued"]


def test_static_secret_that_is_the_same_after_an_outage_is_told_of() -> None:
    """No other event would say that it is read again; without an outage there is nothing to tell."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(1)), 0))
    life.at(270, Tick())
    life.at(271, Failed(AWAY))
    life.at(280, Tick())
    life.at(280, Issued(static(written(1)), 280))
    assert [note.name for note in life.notes] == [events.ISSUED, events.FAILED, events.RECOVERED]
    assert life.notes[-1].credential_id == "id-key"
    life.at(600, Tick())
    life.at(600, Issued(static(written(1)), 600))
    assert len(life.notes) == 3


def test_static_secret_is_used_until_max_stale() -> None:
    """Vault is away: the secret serves on for ``max_stale`` after it was last read, no longer."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(1)), 0))
    now = 0.0
    while life.machine.held:
        now = life.wake_at
        life.at(now, Tick())
        life.at(now, Failed(AWAY))
    assert now == 3600


@pytest.mark.parametrize(
    ("known", "answered"),
    [
        (written(5, 9), written(4, 8)),
        (written(5), written(4)),
        (Version(5), Version(4)),
        (written(2, 1), written(1, 1)),
        (written(2, 0, ".15"), written(1, 0, ".1")),  # text order would say the contrary
        (written(2, 0, ".5"), written(1, 0)),
        (written(1, 9), written(1, 8)),  # deleted with its metadata, and written anew
    ],
)
def test_older_version_is_never_adopted(known: Version, answered: Version) -> None:
    """A standby that lags does not bring an old secret back, whatever happened since."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(known), 0))
    life.at(1, Revoke())
    assert life.at(1, Issued(static(answered, "old"), 1)) == []
    assert life.machine.held is None


@pytest.mark.parametrize(
    ("known", "answered"),
    [
        (written(5, 8), written(6, 9)),
        (written(5, 8), written(5, 8)),
        (written(5, 8), written(1, 9)),  # deleted with its metadata, and written anew
        (written(5, 8), written(6, 7)),  # written by a new leader whose clock is behind
        (Version(), Version()),  # KV version 1 keeps none
    ],
)
def test_newer_version_is_adopted(known: Version, answered: Version) -> None:
    """What is not older is taken."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(known), 0))
    life.at(1, Revoke())
    assert [type(c) for c in life.at(1, Issued(static(answered, "new"), 1))] == [Publish]


def test_deleted_secret_is_withdrawn() -> None:
    """A static secret that somebody deleted is not served on until ``max_stale``."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(1)), 0))
    life.at(270, Tick())
    assert life.at(271, Failed(NOTHING_THERE)) == [Withdraw()]


def test_leased_credential_survives_the_deletion_of_its_role() -> None:
    """A lease stays good at its service although its role is gone."""
    life = in_state(State.REPLACING)
    assert life.at(51, Failed(NOTHING_THERE)) == []
    assert life.machine.held is not None


def test_deleted_version_does_not_come_back_through_a_standby() -> None:
    """A node that lags may still have it; much later, somebody must have undeleted it."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(1)), 0))
    life.at(270, Tick())
    life.at(271, Failed(NOTHING_THERE))
    life.at(272, Tick())
    assert life.at(272, Issued(static(written(1)), 272)) == []
    life.at(273, Rotate())
    assert [type(c) for c in life.at(274, Issued(static(written(2, 1), "new"), 273))] == [Publish]


def test_version_after_a_deleted_one_is_read_again_as_any_other() -> None:
    """It is not the deleted one: its max_stale begins anew with each reading, also right after."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(1)), 0))
    life.at(270, Tick())
    life.at(271, Failed(NOTHING_THERE))
    life.at(273, Rotate())
    life.at(274, Issued(static(written(2), "new"), 273))
    life.at(280, Rotate())
    (publish,) = life.at(281, Issued(static(written(2), "new"), 280))
    assert isinstance(publish, Publish)
    assert publish.ends_at > 3600 + 279
    assert not life.machine.failures


def test_undeleted_version_comes_back() -> None:
    """A version that is still there when every node must know of its deletion is good again."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(1)), 0))
    life.at(270, Tick())
    life.at(271, Failed(NOTHING_THERE))
    life.at(331, Tick())
    assert [type(c) for c in life.at(331, Issued(static(written(1)), 331))] == [Publish]


def test_secret_from_another_place_has_versions_of_its_own() -> None:
    """After a reload that names another path, a lower version is not an older one."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(static(written(7)), 0))
    assert life.at(1, Rotate(anew=True)) == [CallIssue()]
    (publish,) = life.at(2, Issued(static(written(1), "new"), 1))
    assert isinstance(publish, Publish)
    assert publish.grant.payload == "new"


def test_secret_from_another_place_while_the_old_one_is_read() -> None:
    """What was on its way from the old place does not keep the new place's secret out."""
    life = in_state(State.ISSUING)
    life.at(1, Rotate(anew=True))
    assert CallIssue() in life.at(2, Issued(static(written(7)), 0))
    (publish,) = life.at(3, Issued(static(written(1), "new"), 2))
    assert isinstance(publish, Publish)


# --- login tokens ---


def test_token_file_with_a_longer_token() -> None:
    """The same token, kept fresh by its owner, lives on: nothing is replaced or revoked."""
    life = Life(Pace(drain=inf))
    life.login.ends_at = 100.0
    life.at(0, Tick())
    first = life.grant("accessor", renewable=False)
    life.at(0, Issued(first, 0))
    assert life.at(60, Tick()) == [CallIssue()]
    fresh = replace(first, login=Login(960.0), credential_id="other", ttl=900.0)
    (publish,) = life.at(61, Issued(fresh, 60))
    assert isinstance(publish, Publish)
    assert publish.ends_at == 960
    assert publish.grant.login is life.login, "its leases hang on this login"
    assert len(life.machine.retired) == 0
    assert life.wake_at == 100, "until the keeper moves the login's end"


def test_token_file_with_an_earlier_token() -> None:
    """A token that comes back from retirement is in use and must not be revoked."""
    life = Life(Pace(drain=inf))
    life.at(0, Tick())
    life.at(0, Issued(life.grant("a", renewable=False), 0))
    life.at(10, Rotate())
    life.at(11, Issued(life.grant("b", renewable=False), 10))
    life.at(20, Rotate())
    life.at(21, Issued(life.grant("a", renewable=False), 20))
    assert life.at(22, Release("a")) == []
    assert life.at(22, Release("b")) == [CallRevoke("b")]


def test_token_without_an_end_is_left_alone() -> None:
    """A token that never ends is neither renewed nor woken up for, even if it says renewable."""
    life = in_state(State.ISSUING)
    life.at(0, Issued(life.grant("root", ttl=inf), 0))
    assert life.wake_at == inf
    life.at(1, Rotate())
    life.at(2, Failed(AWAY))
    assert life.at(life.wake_at, Tick()) == [CallIssue()]


def test_old_token_waits_for_its_leases() -> None:
    """A replaced token is revoked when its last lease has left it, not after a time."""
    life = in_state(State.REPLACING, Pace(drain=inf))
    life.at(51, issued(life, "two", 50, ttl=1000.0))
    assert life.at(90, Tick()) == []
    assert life.at(91, Release("one")) == [CallRevoke("one")]


def test_end_of_what_is_stored_is_audited_once() -> None:
    """Each lease that was announced is said to have ended, each in one line."""
    life = in_state(State.REPLACING)
    life.at(51, issued(life, "two", 50))
    life.at(81, Tick())
    life.at(82, Revoked("one"))
    life.at(90, Stop(revoke=True))
    life.at(91, Revoked("two"))
    ends = [(n.name, n.lease_id, n.credential_id) for n in life.notes if n.name == events.REVOKED]
    assert ends == [(events.REVOKED, "one", "id-one"), (events.REVOKED, "two", "id-two")]
