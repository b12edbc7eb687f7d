"""The judge of a chaos run, by example: what is dead, inside which bound, and what explains it."""

from __future__ import annotations

from math import inf

import pytest

from tests.chaos import judge
from tests.chaos.bounds import EXT_AUTHZ, NETWORK, OURS, SDS, Cause
from tests.chaos.judge import End, Judged, Life, Verdict, Window


def _life(*ends: End, time: float = 1000.0, ttl: float = 8.0) -> Life:
    return Life("orders-blue", ttl, End(Cause.TIME, time - 1, time), list(ends))


def _window(begin: float, end: float, *disturbs: str, recovers: float = 2.0) -> Window:
    return Window(begin, end, recovers, frozenset(disturbs), "1 net.cut")


def _use(
    life: Life, sent: float, *windows: Window, mode: str = EXT_AUTHZ, refused: bool = True,
    answered: float | None = None, late: float = 0.0,
) -> Judged:  # fmt: skip
    over = sent + 0.1 if answered is None else answered
    return judge.use(mode, life, sent, over, refused=refused, windows=windows, late=late)


def test_a_credential_that_lives_is_good() -> None:
    assert _use(_life(), 500, refused=False).verdict is Verdict.GOOD


def test_one_sent_after_its_time_is_dead_even_if_postgresql_takes_it() -> None:
    found = _use(_life(time=100), 100.01, refused=False)
    assert (found.verdict, found.cause) == (Verdict.OUTSIDE, Cause.TIME)
    assert found.dead == pytest.approx(0.01)


def test_no_fault_excuses_one_past_its_time_where_each_request_is_checked() -> None:
    window = _window(90, 120, NETWORK, OURS)
    assert _use(_life(time=100), 100.01, window).verdict is Verdict.OUTSIDE


def test_one_that_ended_between_its_sending_and_its_use_ended_on_its_way() -> None:
    assert _use(_life(time=100), 99.9, answered=100.2).verdict is Verdict.CROSSED


def test_a_machine_that_stood_still_does_not_make_it_right() -> None:
    assert _use(_life(time=100), 100.01, late=5).verdict is Verdict.OUTSIDE


def test_one_that_postgresql_refuses_and_nobody_ended_is_outside() -> None:
    found = _use(_life(), 500)
    assert (found.verdict, found.cause) == (Verdict.OUTSIDE, Cause.UNKNOWN)


def test_a_revocation_whose_answer_nobody_has_explains_a_refusal() -> None:
    unsure = End(Cause.OURS, 499, inf)
    assert _use(_life(unsure), 500).verdict is Verdict.CROSSED
    assert _use(_life(unsure), 480).verdict is Verdict.OUTSIDE


@pytest.mark.parametrize(("after", "verdict"), [(6.9, Verdict.INSIDE), (7.1, Verdict.OUTSIDE)])
def test_an_operators_revocation_is_noticed_at_the_next_renewal(
    after: float, verdict: Verdict
) -> None:
    """TTL 8 s: three quarters of it, and a second."""
    end = End(Cause.LEASE, 100, 101)
    assert _use(_life(end), 101 + after).verdict is verdict


def test_while_vault_is_away_nobody_can_notice() -> None:
    end = End(Cause.LEASE, 100, 101)
    away = _window(103, 113, NETWORK)  # recovered at 115
    assert _use(_life(end), 119, away).verdict is Verdict.INSIDE
    assert _use(_life(end), 121, away).verdict is Verdict.OUTSIDE
    assert _use(_life(end), 119, _window(103, 113, "pg")).verdict is Verdict.OUTSIDE


def test_each_end_has_a_bound_of_its_own() -> None:
    """A lease that an operator revoked still ends by its time."""
    end = End(Cause.LEASE, 100, 101)
    found = _use(_life(end, time=103), 104)
    assert (found.verdict, found.cause) == (Verdict.OUTSIDE, Cause.TIME)


def test_a_bound_grows_by_the_time_that_the_machine_stood_still() -> None:
    end = End(Cause.LEASE, 100, 101)
    assert _use(_life(end), 109, late=2).verdict is Verdict.INSIDE


def test_sds_takes_back_within_a_second_and_not_while_we_are_away() -> None:
    life = _life(time=100)
    assert _use(life, 100.9, mode=SDS).verdict is Verdict.INSIDE
    assert _use(life, 101.1, mode=SDS).verdict is Verdict.OUTSIDE
    assert _use(life, 110, _window(99, 108, OURS, recovers=3), mode=SDS).verdict is Verdict.INSIDE
    assert _use(life, 110, _window(99, 108, NETWORK), mode=SDS).verdict is Verdict.OUTSIDE


def test_sds_keeps_the_old_one_until_ours_has_another_after_a_restart() -> None:
    """What it does not know of, it cannot take back: docs/envoy.md, «not there yet, in this life»."""
    restart = Window(95, 97, 3, frozenset({OURS}), "1 ours.kill", restart=True)
    away, later = _window(99, 108, "pg"), _window(130, 140, "pg")
    found = _use(_life(time=100), 110.5, restart, away, later, mode=SDS)
    assert found.verdict is Verdict.INSIDE
    assert _use(_life(time=100), 111.5, restart, away, mode=SDS).verdict is Verdict.OUTSIDE
    assert _use(_life(time=100), 102.5, away, mode=SDS).verdict is Verdict.OUTSIDE


@pytest.mark.parametrize(
    ("windows", "seconds"),
    [
        ([], 10.0),
        ([(0, 3)], 10.0),
        ([(12, 14)], 6.0),  # and 2 s of recovery
        ([(5, 30)], 0.0),
        ([(8, 12), (11, 13)], 5.0),
        ([(18, 19)], 8.0),
        ([(25, 30)], 10.0),
    ],
)
def test_uncovered_counts_the_seconds_outside_all_windows(
    windows: list[tuple[float, float]], seconds: float
) -> None:
    assert judge.uncovered(10, 20, [_window(*w) for w in windows]) == pytest.approx(seconds)


def test_a_refusal_is_excused_by_a_fault_that_it_touches() -> None:
    window = _window(100, 105, NETWORK)
    assert judge.excused(106.9, 107.2, [window])
    assert judge.excused(99.0, 100.5, [window])
    assert not judge.excused(107.1, 107.2, [window])
    assert not judge.excused(98.0, 99.9, [window])


def test_a_fault_in_which_no_request_is_lost_excuses_none() -> None:
    window = Window(100, 105, 0.0, frozenset(), "2 ours.reload", lossless=True)
    assert not judge.excused(101, 102, [window])


def test_lateness_is_the_longest_stop_that_touches_the_time() -> None:
    stops = [(100.0, 0.2), (105.0, 3.0), (200.0, 9.0)]
    assert judge.lateness(stops, 101, 104) == 3.0
    assert judge.lateness(stops, 99, 100) == 0.2
    assert judge.lateness(stops, 110, 150) == 0.0
