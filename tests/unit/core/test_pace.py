from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.pace import Pace

PACE = Pace()
JITTER = st.floats(0, 1, exclude_max=True)
TTL = st.floats(0.001, 1e9)
FAILURES = st.integers(1, 10_000)


@given(TTL, JITTER)
def test_renewal_falls_into_the_window(ttl: float, jitter: float) -> None:
    """A renewal is due between 60 and 75 % of the lease."""
    assert 0.6 * ttl <= PACE.renew_in(ttl, jitter) <= 0.75 * ttl


@given(TTL, JITTER, JITTER)
def test_renewal_is_later_with_more_jitter(ttl: float, low: float, high: float) -> None:
    """The renewals of many leases spread over the window as their jitter does."""
    low, high = sorted((low, high))
    assert PACE.renew_in(ttl, low) <= PACE.renew_in(ttl, high)


@given(TTL, TTL, JITTER)
def test_a_replacement_is_never_later_than_in_the_window(
    left: float, first: float, jitter: float
) -> None:
    """And what is left then is what it has of a whole lease, unless there is less already."""
    wait = PACE.replace_in(left, first, jitter)
    assert 0.0 <= wait <= PACE.renew_in(left, jitter)
    assert left - wait >= min(left, PACE.replacing, first * 0.25) * (1 - 1e-6)


@given(TTL, JITTER)
def test_static_secret_is_never_read_later_than_asked(read_again: float, jitter: float) -> None:
    """A static secret is read again at most a tenth before ``refresh`` is over, never after."""
    assert 0.9 * read_again <= PACE.read_in(read_again, jitter) <= read_again


@given(FAILURES, TTL | st.just(float("inf")), JITTER)
def test_backoff_stays_between_floor_and_cap(failures: int, rhythm: float, jitter: float) -> None:
    """However often it failed, the wait is at least the floor and at most the cap."""
    wait = PACE.retry_in(failures, rhythm, jitter)
    assert PACE.backoff_floor <= wait <= PACE.backoff_cap


@given(st.integers(1, 100), TTL, JITTER)
def test_backoff_never_shrinks_with_failures(failures: int, rhythm: float, jitter: float) -> None:
    """One failure more never makes the next try come sooner, at the same jitter."""
    sooner = PACE.retry_in(failures, rhythm, jitter)
    assert sooner <= PACE.retry_in(failures + 1, rhythm, jitter)


@given(FAILURES, TTL, TTL, JITTER)
def test_backoff_never_shrinks_with_rhythm(
    failures: int, short: float, long: float, jitter: float
) -> None:
    """A credential that is renewed more often is never retried less often."""
    short, long = sorted((short, long))
    assert PACE.retry_in(failures, short, jitter) <= PACE.retry_in(failures, long, jitter)


def test_backoff_doubles_to_its_cap() -> None:
    """The ceiling of the wait doubles with each failure, from twice the floor to the cap."""
    waits = [PACE.retry_in(n, float("inf"), 1.0) for n in range(1, 10)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_backoff_of_a_short_lease_is_short() -> None:
    """A lease of six seconds is not left waiting for a minute, but still for two seconds."""
    assert PACE.retry_in(20, 6.0 / 3, 1.0) == 2.0
    assert PACE.retry_in(20, 0.1, 1.0) == 2.0


def test_increment_is_the_first_ttl_unless_set() -> None:
    """A renewal asks for what the lease had at first, or for what the configuration says."""
    assert PACE.asked(300.0) == 300.0
    assert replace(PACE, increment=60.0).asked(300.0) == 60.0


@pytest.mark.parametrize(
    ("granted", "asked", "shorter"),
    [
        (3600.0, 3600.0, False),
        (3599.0, 3600.0, False),  # Vault answers in whole seconds
        (3598.9, 3600.0, True),
        (4000.0, 3600.0, False),
        (9.6, 10.0, False),
        (9.4, 10.0, True),
        (0.0, 10.0, True),
    ],
)
def test_shorter_is_more_than_rounding(granted: float, asked: float, shorter: bool) -> None:
    """Only a grant that is shorter by more than rounding says that ``max_ttl`` is near."""
    assert PACE.shorter(granted, asked) is shorter


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_polls_for_a_rotation_are_half_a_second_to_one_apart(jitter: float, wait: float) -> None:
    """Of ``rotation_poll``, so that a fleet's nodes do not ask in step."""
    assert PACE.poll_in(jitter) == wait
    assert replace(PACE, rotation_poll=4.0).poll_in(jitter) == 4 * wait


@pytest.mark.parametrize(
    ("left", "first", "wait"),
    [
        (100.0, 3600.0, 60.0),  # in the window of what is left, which has 30 s at its end
        (60.0, 3600.0, 30.0),  # with which the replacement would have less than these
        (2.0, 3600.0, 0.0),
        (20.0, 40.0, 4.0),  # as much as a whole lease of 40 s has from its renewal on
    ],
)
def test_a_replacement_has_the_time_that_it_has_of_a_whole_lease(
    left: float, first: float, wait: float
) -> None:
    """Thirty seconds at most, and none but what is left."""
    assert PACE.replace_in(left, first, 0.0) == pytest.approx(wait)


def test_jitter_shares_the_waits_out() -> None:
    """The middle of the jitter is the middle of each wait."""
    assert PACE.renew_in(100.0, 0.5) == pytest.approx(67.5)
    assert PACE.read_in(100.0, 0.5) == pytest.approx(95.0)
    assert PACE.retry_in(3, float("inf"), 0.5) == pytest.approx(2.25)
    assert PACE.retry_in(3, float("inf"), 0.0) == PACE.backoff_floor


@pytest.mark.parametrize(("granted", "shorter"), [(9.5, False), (9.49, True)])
def test_a_twentieth_of_what_was_asked_for_is_rounding(granted: float, shorter: bool) -> None:
    """Of ten seconds, half a second; not more."""
    assert PACE.shorter(granted, 10.0) is shorter
