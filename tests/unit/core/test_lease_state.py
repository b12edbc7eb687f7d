"""What a lease machine holds: until when, and when Vault is asked about it again."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Grant, Renewal, Version
from vaultauthz.core.lease_messages import Rotate, Tick
from vaultauthz.core.lease_state import Held, StageLeases
from vaultauthz.core.pace import Pace

from .lease_life import Life, issued

PACE = Pace()
SENT = 1000.0  # when the call for it was sent


def held(before: Held | None = None, *, sent_at: float = SENT, **grant: Any) -> Held:
    """What a grant comes to a second after its call was sent."""
    return Held.of(Grant("payload", **grant), sent_at, sent_at + 1.0, before, PACE)


@pytest.mark.parametrize(
    ("grant", "ends_at", "next_call"),
    [
        # A lease: at 60 % of it.
        ({"ttl": 100.0, "lease_id": "l"}, SENT + 100.0, SENT + 60.0),
        # No lease, and an end: at 60 % of what is left.
        ({"ttl": 100.0}, SENT + 100.0, SENT + 60.0),
        ({"ttl": 100.0, "ends_in": 50.0}, SENT + 50.0, SENT + 30.0),
        # Never closer together than polls, however close the end is.
        ({"ttl": 0.1}, SENT + 0.1, SENT + 0.5),
        ({"ttl": 0.0}, SENT, SENT + 0.5),
        ({"ttl": -5.0}, SENT - 5.0, SENT + 0.5),
        # Read on a schedule, at 90 % of it; or in good time for its own end.
        ({"ttl": 900.0, "read_again": 60.0}, SENT + 900.0, SENT + 54.0),
        ({"ttl": 900.0, "read_again": 60.0, "ends_in": 50.0}, SENT + 50.0, SENT + 30.0),
        # Vault changes it itself: then, and not before the next poll.
        ({"ttl": 100.0, "rotates_in": 40.0}, SENT + 100.0, SENT + 40.0),
        ({"ttl": 100.0, "rotates_in": 0.0}, SENT + 100.0, SENT + 0.5),
        ({}, inf, inf),
    ],
)
def test_when_vault_is_asked_again(grant: dict[str, Any], ends_at: float, next_call: float) -> None:
    """Counted from before the call was sent."""
    made = held(**grant)
    assert made.ends_at == ends_at
    assert made.ttl == ends_at - SENT
    assert made.next_call(PACE, SENT, 0.0) == next_call
    assert made.since == SENT + 1.0


@pytest.mark.parametrize(
    ("grant", "renewable"),
    [
        ({"ttl": 100.0, "renewable": True}, True),
        ({"ttl": 100.0, "renewable": False}, False),
        ({"ttl": inf, "renewable": True}, False),
        ({"ttl": 100.0, "renewable": True, "ends_in": 100.1}, True),
        ({"ttl": 100.0, "renewable": True, "ends_in": 100.0}, False),
    ],
)
def test_what_a_renewal_can_prolong(grant: dict[str, Any], renewable: bool) -> None:
    """What has an end, and no other end of its own by then."""
    assert held(lease_id="l", **grant).renewable is renewable


def test_the_same_one_again_is_in_use_since_the_first() -> None:
    """With its first name and login, and no later end than it has told before."""
    login, version = Login(), Version(3)
    first = held(
        ttl=900.0, read_again=60.0, ends_in=500.0, version=version,
        credential_id="c_1", login=login,
    )  # fmt: skip
    again = held(
        first, sent_at=1060.0, ttl=900.0, read_again=60.0, ends_in=900.0,
        version=version, credential_id="c_2", login=Login(),
    )  # fmt: skip
    assert (again.grant.credential_id, again.grant.login) == ("c_1", login)
    assert again.since == first.since
    assert (again.ends_at, again.last_at) == (1500.0, 1500.0)
    sooner = held(first, sent_at=1060.0, ttl=900.0, ends_in=100.0, version=version)
    assert (sooner.ends_at, sooner.last_at) == (1160.0, 1160.0)
    other = held(first, sent_at=1060.0, ttl=900.0, version=Version(4), credential_id="c_2")
    assert (other.grant.credential_id, other.since, other.ends_at) == ("c_2", 1061.0, 1960.0)


def test_a_rotation_that_is_late() -> None:
    """The password of before is believed for the grace of one reading, whatever its ttl says."""
    first = held(ttl=100.0, rotates_in=50.0)
    late = held(first, sent_at=1050.0, ttl=3600.0, rotates_in=3600.0)
    assert late.rotates_at == 1050.0
    assert late.ends_at == 1050.0 + PACE.rotation_grace
    assert late.next_call(PACE, 1050.0, 0.0) == 1050.5
    early = held(first, sent_at=1049.0, ttl=51.0, rotates_in=1.0)
    assert (early.rotates_at, early.ends_at) == (1050.0, 1100.0)


@pytest.mark.parametrize(
    ("renewal", "renewable", "ends_at", "next_call"),
    [
        (Renewal(100.0), True, 1160.0, 1120.0),
        (Renewal(99.0), True, 1159.0, 1119.4),
        # The last one: a replacement, for which there is the time that a whole lease has.
        (Renewal(100.0, renewable=False), False, 1160.0, 1120.0),
        (Renewal(50.0), False, 1110.0, 1080.0),
        (Renewal(10.0), False, 1070.0, 1060.0),
    ],
)
def test_after_a_renewal(
    renewal: Renewal, renewable: bool, ends_at: float, next_call: float
) -> None:
    """Sent at 1060: another follows if it was not the last."""
    made = held(ttl=100.0, lease_id="l", renewable=True).renewed(renewal, 1060.0, PACE)
    assert (made.renewable, made.ends_at, made.ttl) == (renewable, ends_at, renewal.ttl)
    assert made.call_after_renewal(PACE, 1060.0, 0.0) == pytest.approx(next_call)


def test_no_renewal_moves_what_it_says_of_its_own_end() -> None:
    """And that which reaches it is the last."""
    lease = held(ttl=100.0, lease_id="l", renewable=True, ends_in=150.0)
    made = lease.renewed(Renewal(100.0), 1060.0, PACE)
    assert (made.renewable, made.ends_at, made.ttl) == (False, 1150.0, 90.0)
    made = lease.renewed(Renewal(100.0), 1049.0, PACE)
    assert (made.renewable, made.ends_at) == (True, 1149.0)


def test_an_increment_that_was_asked_for_is_what_a_renewal_is_held_against() -> None:
    """Less than the first life, and no less than was asked for."""
    pace = replace(PACE, increment=20.0)
    made = held(ttl=100.0, lease_id="l", renewable=True).renewed(Renewal(20.0), 1060.0, pace)
    assert made.renewable
    last = held(ttl=100.0, lease_id="l", renewable=True).renewed(Renewal(10.0), 1060.0, pace)
    assert not last.renewable
    assert last.call_after_renewal(pace, 1060.0, 0.0) == pytest.approx(1062.0)


def test_out_of_use() -> None:
    """What is known of it goes along."""
    login = Login()
    old = held(ttl=100.0, lease_id="l", credential_id="c", login=login).old(1030.0)
    assert (old.lease_id, old.credential_id, old.login) == ("l", "c", login)
    assert (old.ends_at, old.revoke_at, old.ttl) == (1100.0, 1030.0, 100.0)


def test_with_which_login_a_lease_was_taken() -> None:
    """The one that is held, and those that drain; of others nothing is known."""
    life = Life()
    life.at(0, Tick())
    assert life.machine.login_of("one") is None
    life.at(1, issued(life, "one", 0))
    first = life.login
    assert life.machine.login_of("one") is first
    assert life.machine.login_of("two") is None
    life.login = Login()
    life.at(10, Rotate())
    life.at(11, issued(life, "two", 10))
    assert life.machine.login_of("one") is first
    assert life.machine.login_of("two") is life.login
    assert life.machine.login_of("three") is None
    assert life.machine.hangs_on(first)
    assert life.machine.hangs_on(life.login)
    assert not life.machine.hangs_on(Login())


class Leaving:
    """A lease that has left; ``drains``: it has one to revoke."""

    def __init__(self, *, drains: bool, calls: int) -> None:
        self.calls = calls
        self.machine = SimpleNamespace(retired=["l"] if drains else [])


def test_who_has_left_is_kept_for_what_drains_and_for_calls_that_are_out() -> None:
    """For either; then it is let go."""
    leases: StageLeases[Any] = StageLeases()
    drains, calls, gone = (
        Leaving(drains=True, calls=0),
        Leaving(drains=False, calls=1),
        Leaving(drains=False, calls=0),
    )
    leases.leaving = [drains, calls, gone]
    leases.shared["pay"] = gone
    leases.forget_gone()
    assert list(leases) == [gone, drains, calls]
    assert list(leases.active) == [gone]
