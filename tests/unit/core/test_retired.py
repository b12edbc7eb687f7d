"""Leases out of use: when each is revoked, and what is told of those that end before."""

from __future__ import annotations

from math import inf

import pytest

from vaultauthz.core import events
from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease_messages import Note
from vaultauthz.core.lease_state import Old, Retired
from vaultauthz.core.pace import Pace

PACE = Pace()
BUSY = Failure(Verdict.RETRY, "busy")


def old(name: str = "a", *, revoke_at: float = 30.0, ends_at: float = 100.0) -> Old:
    """A lease of two minutes that was replaced."""
    return Old(f"lease/{name}", ends_at, revoke_at, 120.0, Login(), f"c_{name}")


def retired(*leases: Old) -> Retired:
    """What a machine has let go of."""
    made = Retired(PACE)
    for each in leases:
        made.add(each)
    return made


def test_what_has_drained_is_due_and_asked_for_once() -> None:
    """From its moment on, until that call is over."""
    made = retired(old("a"), old("b", revoke_at=40.0))
    assert made.wake_at == 30.0
    assert made.due(29.9) == []
    assert [each.lease_id for each in made.due(30.0)] == ["lease/a"]
    assert made.due(35.0) == []
    assert made.wake_at == 40.0
    assert [each.lease_id for each in made.due(40.0)] == ["lease/b"]
    assert made.wake_at == inf
    assert len(made) == 2, "until Vault has answered"


def test_one_that_ends_first_wakes_whoever_asks() -> None:
    """Its end is told then, not at the moment of its revocation."""
    assert retired(old(ends_at=20.0)).wake_at == 20.0


def test_one_is_hurried_and_the_other_is_not() -> None:
    """By its id; without one, all are. What was due before stays so."""
    made = retired(old("a"), old("b"), old("c", revoke_at=1.0))
    made.hurry(5.0, "lease/b")
    assert [(each.revoke_at, each.at_once) for each in made] == [
        (30.0, False),
        (5.0, True),
        (1.0, False),
    ]
    made.hurry(6.0)
    assert [(each.revoke_at, each.at_once) for each in made] == [
        (6.0, True),
        (5.0, True),
        (1.0, True),
    ]


def test_one_whose_revocation_failed_is_not_hurried() -> None:
    """Vault is given its time."""
    made = retired(old("a"))
    made.due(30.0)
    made.failed("lease/a", BUSY, 31.0, 0.0)
    made.hurry(31.1)
    assert [(each.revoke_at, each.at_once) for each in made] == [(31.5, False)]


def test_a_revocation_that_fails_is_tried_again() -> None:
    """After a backoff in the rhythm of such a lease, and not before Vault wishes."""
    made = retired(old("a"), old("b"))
    made.due(30.0)
    assert not made.has_failed("lease/a")
    made.failed("lease/a", BUSY, 31.0, 0.5)
    assert made.has_failed("lease/a")
    assert not made.has_failed("lease/b")
    assert not made.has_failed("lease/gone")
    assert made.wake_at == 31.0 + PACE.retry_in(1, 40.0, 0.5)
    assert [each.lease_id for each in made.due(32.0)] == ["lease/a"]
    made.failed("lease/a", Failure(Verdict.RETRY, "busy", retry_after=20.0), 32.0, 0.5)
    assert made.wake_at == 52.0
    made.due(52.0)
    made.failed("lease/a", Failure(Verdict.RETRY, "busy", retry_after=9e9), 53.0, 0.5)
    assert next(iter(made)).revoke_at == 53.0 + PACE.retry_after_cap


def test_a_backoff_is_no_longer_than_the_lease_is_used_to() -> None:
    """A third of its life: one of two minutes is tried every forty seconds, at the latest."""
    made = retired(old(ends_at=9e9))
    for _ in range(20):
        made.due(1e6)
        made.failed("lease/a", BUSY, 1000.0, 1.0)
    assert made.wake_at == 1040.0


@pytest.mark.parametrize("verdict", [Verdict.LEASE_GONE, Verdict.TOKEN_DEAD])
def test_one_that_vault_does_not_know_is_gone(verdict: Verdict) -> None:
    """As one that was revoked; of the others nothing is said."""
    made = retired(old("a"), old("b"))
    made.failed("lease/a", Failure(verdict, "gone"), 31.0, 0.5)
    assert [each.lease_id for each in made] == ["lease/b"]
    made.failed("lease/a", BUSY, 31.0, 0.5)
    forgotten = made.forget("lease/b")
    assert forgotten is not None
    assert forgotten.credential_id == "c_b"
    assert made.forget("lease/b") is None
    assert len(made) == 0


def test_what_has_ended_by_itself_is_told_once() -> None:
    """With the lease's time or its login's, unless a call is out that may say otherwise."""
    by_time, by_login, in_call, alive = (old(name) for name in "abcd")
    by_time.ends_at, by_login.login.ends_at = 20.0, 20.0
    in_call.ends_at, in_call.in_call = 20.0, True
    made = retired(by_time, by_login, in_call, alive)
    assert made.ended(19.9) == []
    assert made.ended(20.0) == [by_time, by_login]
    assert made.ended(20.0) == []
    assert list(made) == [in_call, alive]


@pytest.mark.parametrize(
    ("now", "stopped", "name", "reason"),
    [
        (100.0, False, events.EXPIRED, "its time is over"),
        (100.0, True, events.EXPIRED, "its time is over"),
        (99.9, True, events.REVOKED, "with its token"),
        (99.9, False, events.LOST, "its login token is gone"),
    ],
)
def test_how_it_came_to_an_end(now: float, stopped: bool, name: str, reason: str) -> None:
    """The audit log has the lease, the credential and the reason."""
    told = old().obituary(now, stopped=stopped)
    assert told == Note(name, "lease/a", "c_a", reason=reason)


def test_a_new_one_has_no_call_out_and_is_not_in_a_hurry() -> None:
    """What is known of it at first."""
    made = Old("lease/a", 100.0, 30.0, 120.0, Login())
    assert (made.credential_id, made.at_once, made.failures, made.in_call) == ("", False, 0, False)
    assert made.revoked("by hand") == Note(events.REVOKED, "lease/a", reason="by hand")


def test_overdue_is_what_vault_may_have_against_our_will() -> None:
    """From its moment on, also while a call is out or waits for its next try; what drains is not."""
    made = retired(old("a"), old("b", revoke_at=90.0))
    assert made.overdue(29.9) == []
    made.due(30.0)
    assert [each.lease_id for each in made.overdue(30.0)] == ["lease/a"]
    failed = made.failed("lease/a", BUSY, 31.0, 0.5)
    assert failed is not None
    assert (failed.lease_id, failed.last_failure) == ("lease/a", "busy")
    assert made.overdue(31.0) == [failed]
    made.forget("lease/a")
    assert made.overdue(31.0) == []


@pytest.mark.parametrize("verdict", [Verdict.LEASE_GONE, Verdict.TOKEN_DEAD])
def test_one_that_is_gone_has_not_failed(verdict: Verdict) -> None:
    """There is nothing left to tell of, nor one that is not known."""
    made = retired(old("a"))
    assert made.failed("lease/a", Failure(verdict, "gone"), 31.0, 0.5) is None
    assert made.failed("lease/z", BUSY, 31.0, 0.5) is None
