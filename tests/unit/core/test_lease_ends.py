"""Credentials that end by what they say of themselves: never used after it, replaced before it."""

from __future__ import annotations

import itertools
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core import events
from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Grant, Renewal, Version
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    CallRevoke,
    Command,
    Issued,
    Note,
    Publish,
    Renewed,
    Tick,
    Withdraw,
)


def ask(machine: LeaseMachine, now: float) -> list[Command]:
    return machine.handle(Tick(), now, 0.5)


def started(grant: Grant) -> tuple[LeaseMachine, list[Command]]:
    """A machine that was given this at time 0, and what it said."""
    machine = LeaseMachine()
    ask(machine, 0.0)
    return machine, machine.handle(Issued(grant, 0.0), 0.1, 0.5)


def told(commands: list[Command]) -> list[str]:
    return [c.name for c in commands if isinstance(c, Note)]


def ends(commands: list[Command]) -> list[float]:
    return [c.ends_at for c in commands if isinstance(c, Publish)]


def test_it_is_replaced_in_the_window_and_gone_at_its_end() -> None:
    """An identity token of 100 s: asked for anew between 60 and 75, never used from 100 on."""
    machine, said = started(Grant("jwt-1", 100.0))
    assert ends(said) == [100.0]
    assert 60.0 <= machine.wake_at <= 75.0
    assert CallIssue() in ask(machine, machine.wake_at)
    assert Withdraw() in ask(machine, 100.0)
    assert machine.held is None


@pytest.mark.parametrize(
    "grant", [Grant("a", 100.0, ends_in=40.0), Grant("a", 40.0, ends_in=100.0)]
)
def test_the_earlier_of_two_ends_counts(grant: Grant) -> None:
    """Whether its ttl says it, or what it says of itself."""
    _, said = started(grant)
    assert ends(said) == [40.0]


def test_no_renewal_takes_a_lease_beyond_what_the_credential_says() -> None:
    """A renewed lease with a token in it that ends: replaced in time, not used to the lease's end."""
    grant = Grant("jwt", 60.0, "lease/1", renewable=True, ends_in=90.0, login=Login())
    machine, _ = started(grant)
    now = machine.wake_at
    assert any(isinstance(c, CallRenew) for c in ask(machine, now))
    said = machine.handle(Renewed(Renewal(60.0), now), now, 0.5)
    assert ends(said) == [90.0]
    assert now < machine.wake_at < 80.0
    assert CallIssue() in ask(machine, machine.wake_at)


def test_a_lease_that_outlives_its_credential_is_not_renewed() -> None:
    """It would live on with a dead token in it."""
    grant = Grant("jwt", 60.0, "lease/1", renewable=True, ends_in=30.0, login=Login())
    machine, said = started(grant)
    assert ends(said) == [30.0]
    assert CallIssue() in ask(machine, machine.wake_at)


def test_a_static_secret_with_an_end_is_read_before_it() -> None:
    """A stored token that ends before the next reading would be due."""
    machine, said = started(Grant("jwt", 3600.0, read_again=300.0, ends_in=100.0))
    assert ends(said) == [100.0]
    assert 60.0 <= machine.wake_at <= 75.0


def test_a_static_secret_is_read_as_ever_when_its_end_is_far() -> None:
    """The schedule holds."""
    machine, said = started(Grant("jwt", 3600.0, read_again=300.0, ends_in=9e6))
    assert ends(said) == [3600.0]
    assert 270.0 <= machine.wake_at <= 300.0


def test_the_same_again_with_a_later_end_lives_no_longer() -> None:
    """A wall clock that was set back an hour between two readings."""
    machine, _ = started(Grant("jwt", 3600.0, read_again=10.0, ends_in=100.0))
    ask(machine, 9.5)
    said = machine.handle(
        Issued(Grant("jwt", 3600.0, read_again=10.0, ends_in=3690.0), 9.5), 9.6, 0.5
    )
    assert ends(said) == [100.0]


def test_another_one_lives_as_long_as_it_says() -> None:
    """The end of the one before it is not its own."""
    machine, _ = started(Grant("jwt-1", 3600.0, read_again=10.0, ends_in=100.0))
    ask(machine, 9.5)
    said = machine.handle(
        Issued(Grant("jwt-2", 3600.0, read_again=10.0, ends_in=900.0), 9.5), 9.6, 0.5
    )
    assert ends(said) == [909.5]


@given(st.floats(0.0, 0.999), st.floats(1.0, 1000.0))
def test_the_same_again_and_again_is_not_asked_for_in_a_hurry(jitter: float, life: float) -> None:
    """Vault has nothing newer (a cached token): reads are half a second apart to the end."""
    machine = LeaseMachine()
    machine.handle(Tick(), 0.0, jitter)
    now, calls = 0.0, []
    for _ in range(100):
        machine.handle(Issued(Grant("same", life - now, ends_in=life - now), now), now, jitter)
        now = max(now, machine.wake_at)
        if now >= life:
            break
        assert CallIssue() in machine.handle(Tick(), now, jitter)
        calls.append(now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(calls)]
    assert all(gap >= 0.5 - 1e-9 for gap in gaps)
    assert len(calls) < 20


def test_what_has_ended_when_it_comes_is_not_used() -> None:
    """And the next try keeps the backoff's floor."""
    machine, said = started(Grant("jwt", 3600.0, read_again=300.0, ends_in=-5.0))
    assert ends(said) == []
    assert machine.held is None
    assert machine.wake_at >= 0.5


@pytest.mark.parametrize(
    ("ttl", "ends_in", "came_at", "lasts"),
    [
        (60.0, -5.0, 0.1, 60.0),  # had ended before it was asked for, by its own word
        (60.0, 5.0, 6.0, 60.0),  # ended on its way
        (60.0, 5.0, 59.0, 60.0),
        (60.0, 5.0, 60.0, None),  # as its lease has
        (60.0, inf, 61.0, None),
        (0.0, inf, 0.1, 30.0),  # a lease without a time: for as long as others drain
        (0.0, -5.0, 29.0, 30.0),
        (-1.0, inf, 30.0, None),
    ],
)
def test_the_lease_of_what_has_ended_is_revoked(
    ttl: float, ends_in: float, came_at: float, lasts: float | None
) -> None:
    """Nobody will use it, and Vault holds it until its own time is over."""
    machine = LeaseMachine()
    ask(machine, 0.0)
    grant = Grant("jwt", ttl, "lease/1", ends_in=ends_in, login=Login())
    said = machine.handle(Issued(grant, 0.0), came_at, 0.5)
    revoked = [c.lease_id for c in said if isinstance(c, CallRevoke)]
    assert revoked == (["lease/1"] if lasts else [])
    assert told(said) == [events.FAILED, *([] if lasts else [events.EXPIRED])]
    assert [(old.ends_at, old.revoke_at) for old in machine.retired] == (
        [(lasts, came_at)] if lasts else []
    )
    assert machine.held is None


@pytest.mark.parametrize("ended_at", [7.0, 8.0])
def test_a_lease_that_has_ended_with_its_token_is_left(ended_at: float) -> None:
    """Vault has revoked it with the token, which is told."""
    machine = LeaseMachine()
    ask(machine, 0.0)
    grant = Grant("jwt", 60.0, "lease/1", ends_in=5.0, login=Login(ended_at))
    said = machine.handle(Issued(grant, 0.0), 8.0, 0.5)
    assert not [c for c in said if isinstance(c, CallRevoke)]
    assert told(said) == [events.FAILED, events.LOST]
    assert not list(machine.retired)


@pytest.mark.parametrize(
    ("grant", "enforced"),
    [
        (Grant("x", 60.0, "lease/1"), True),
        (Grant("x", 60.0), True),
        (Grant("x", 60.0, ends_in=50.0), True),
        (Grant("x", 60.0, read_again=5.0), False),  # max_stale is ours
        (Grant("x", 60.0, read_again=5.0, ends_in=70.0), False),
        (Grant("x", 60.0, read_again=5.0, ends_in=50.0), True),
        (Grant("x", 60.0, rotates_in=50.0, version=Version(1)), False),
    ],
)
def test_which_ends_others_hold_it_to(grant: Grant, enforced: bool) -> None:
    """Before those no request sets out that would arrive too late."""
    assert grant.enforced is enforced


def test_only_the_fields_that_are_used_count() -> None:
    """A refresh token beside the access token ends when it likes."""
    grant = Grant("x", 600.0, field_ends={"access": 60.0, "refresh": 5.0})
    assert grant.using(["access", "name"]).life == 60.0
    assert grant.using(["name"]).ends_in == inf
