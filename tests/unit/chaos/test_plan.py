"""The plan of a chaos run: the same for the same seed, and no two faults in each other's way."""

from __future__ import annotations

import itertools

import pytest

from tests.chaos.bounds import BOUNDS, KINDS, MODES, Cause
from tests.chaos.faults import DOES
from tests.chaos.plan import RESTARTS_UNTIL, SETTLE, WARM_UP, Step, places, plan

SEEDS = range(25)


def _plans(*, mild: bool = False) -> list[tuple[Step, ...]]:
    return [plan(seed, 900, mode, mild=mild) for seed in SEEDS for mode in MODES]


def test_the_same_seed_is_the_same_plan() -> None:
    assert plan(7, 600, "sds") == plan(7, 600, "sds")
    assert plan(7, 600, "sds") != plan(8, 600, "sds")
    assert plan(7, 600, "sds") != plan(7, 600, "ext_authz")


def test_nothing_happens_in_the_warm_up_nor_at_the_end() -> None:
    for steps in _plans():
        assert all(s.at >= WARM_UP and s.at + s.seconds <= 900 - SETTLE for s in steps)


def test_no_two_faults_hold_the_same_part() -> None:
    for one, other in (p for steps in _plans() for p in itertools.combinations(steps, 2)):
        if set(one.of.holds) & set(other.of.holds):
            assert one.at + one.seconds < other.at or other.at + other.seconds < one.at


def test_faults_of_different_parts_do_overlap() -> None:
    assert any(
        a.at < b.at < a.at + a.seconds for steps in _plans() for a, b in itertools.pairwise(steps)
    )


def test_every_kind_comes_up() -> None:
    assert {s.kind for steps in _plans() for s in steps} == set(KINDS) == set(DOES)


def test_a_mild_plan_has_mild_kinds_only() -> None:
    assert all(s.of.mild for steps in _plans(mild=True) for s in steps)


def test_what_the_machine_lacks_is_left_out() -> None:
    steps = [s for seed in SEEDS for s in plan(seed, 900, "sds", lacks=("timens",))]
    assert "ours.clock" not in {s.kind for s in steps}


def test_ours_lives_long_enough_at_the_end_for_its_memory_to_be_watched() -> None:
    restarts = {"ours.kill", "ours.stop", "ours.clock"}
    found = [s.at for steps in _plans() for s in steps if s.kind in restarts]
    assert found
    assert max(found) <= RESTARTS_UNTIL * 900


@pytest.mark.parametrize("mode", MODES)
def test_a_fault_is_about_a_place_that_there_is(mode: str) -> None:
    names = {place.name for place in places(mode)} | {""}
    assert {s.place for seed in SEEDS for s in plan(seed, 900, mode)} <= names


@pytest.mark.parametrize("mode", MODES)
def test_every_cause_has_a_bound_and_a_source(mode: str) -> None:
    assert set(BOUNDS[mode]) == set(Cause)
    assert all(bound.source for bound in BOUNDS[mode].values())
    assert all(kind.source for kind in KINDS.values())
