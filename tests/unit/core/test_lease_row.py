"""What is shown of a lease: by its machine, and what that does not know, that its service refuses the credential."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.lease_life import Life, in_state, issued, renewed
from vaultauthz.core.grant import Grant
from vaultauthz.core.lease_messages import Issued, Tick
from vaultauthz.core.lease_row import LeaseRow, Refusals
from vaultauthz.core.lease_state import State

ROW = LeaseRow("prod", "pay", "held", "lease-1", "c_1")
STATUSES = st.sampled_from([0, 200, 302, 401, 403, 404, 500, 503])


def ttl(life: Life, now: float) -> float | None:
    """What it was last granted for, as it is shown."""
    return LeaseRow.of("prod", life.machine, now).ttl


def test_the_ttl_is_that_of_the_last_grant_or_renewal() -> None:
    """The whole of it, however much is left."""
    life = in_state(State.RENEWING)
    assert ttl(life, 61) == 100
    life.at(61, renewed(60, ttl=80.0))
    assert ttl(life, 110) == 80


def test_what_has_no_end_or_is_changed_by_vault_has_no_ttl() -> None:
    """Nobody has to renew it, so that nothing can be late; nor has what is not there."""
    assert ttl(in_state(State.EMPTY), 50) is None
    endless = Life()
    endless.at(0, Tick())
    endless.at(1, issued(endless, "one", 0, ttl=math.inf))
    assert ttl(endless, 2) is None
    rotated = Life()
    rotated.at(0, Tick())
    rotated.at(1, Issued(Grant("password", 70.0, rotates_in=60.0), 0.0))
    assert LeaseRow.of("prod", rotated.machine, 2).seconds_left == 68
    assert ttl(rotated, 2) is None


def shown(refusals: Refusals, row: LeaseRow = ROW, now: float = 100.0) -> tuple[int, float | None]:
    """How often it was refused, and for how long."""
    (found,) = refusals.shown([row], now)
    return found.refused, found.refused_for


def after(*statuses: int) -> Refusals:
    """What is known after a request a second, from 0 on, was answered so."""
    refusals = Refusals()
    for second, status in enumerate(statuses):
        refusals.answered("prod", "pay", "c_1", status, float(second))
    return refusals


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        ((), (0, None)),
        ((200, 200), (0, None)),
        ((401,), (1, 100.0)),
        ((200, 401, 401, 401), (3, 99.0)),
        # Any other answer to the credential ends it, and the next 401 begins another.
        ((401, 200), (0, None)),
        ((401, 403), (0, None)),
        ((401, 401, 204, 401), (1, 97.0)),
        # A service that fails, or does not answer, has not looked at it.
        ((401, 503, 0, 500, 401), (2, 100.0)),
        ((500,), (0, None)),
    ],
)
def test_refused_until_answered_otherwise(
    statuses: tuple[int, ...], told: tuple[int, float | None]
) -> None:
    """The 401s since then, and the seconds since the first of them."""
    assert shown(after(*statuses)) == told


@given(st.lists(STATUSES, max_size=30))
def test_as_many_as_since_the_last_other_answer(statuses: list[int]) -> None:
    """Whatever comes between."""
    heard = [status for status in statuses if 0 < status < 500]
    in_a_row = 0
    while in_a_row < len(heard) and heard[-1 - in_a_row] == 401:
        in_a_row += 1
    assert shown(after(*statuses))[0] == in_a_row


@pytest.mark.parametrize(
    "row",
    [
        LeaseRow("prod", "pay", "held", "lease-2", "c_2"),  # a new credential
        LeaseRow("staging", "pay", "held", "lease-1", "c_1"),
        LeaseRow("prod", "geo", "held", "lease-1", "c_1"),
        LeaseRow("prod", "pay", "empty"),
        LeaseRow("prod", "", "held", "accessor"),
    ],
)
def test_no_other_credential_is_refused(row: LeaseRow) -> None:
    """Nor is what holds none, or a login."""
    refusals = after(401)
    assert refusals.shown([row, ROW], 1.0)[0] == row
    assert shown(refusals, row) == (0, None)


def test_few_are_remembered() -> None:
    """Whatever a gateway tells, the oldest goes first."""
    refusals = Refusals()
    for number in range(5000):
        refusals.answered("prod", "pay", f"c_{number}", 401, 0.0)
    assert len(refusals) == 1024
    assert shown(refusals, LeaseRow("prod", "pay", "held", "l", "c_4999")) == (1, 100.0)
    assert shown(refusals, ROW) == (0, None)
