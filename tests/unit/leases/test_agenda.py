"""The agenda: whatever is planned, changed and dropped, each is woken once and in time."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.leases import clock
from vaultauthz.leases.clock import Agenda

TIMES = st.floats(0, 100) | st.sampled_from([0.0, 5.0, inf])


class Item:
    """Something to wake."""

    def __init__(self) -> None:
        self.scheduled = inf

    def wake(self) -> None:
        """The tests look at ``due`` instead."""


@given(st.lists(st.tuples(st.integers(0, 4), TIMES)), st.floats(0, 100))
def test_each_is_due_at_its_last_plan_and_once(plans: list[tuple[int, float]], now: float) -> None:
    """Only the last plan counts, infinity takes it back, and what was due is not due again."""
    ours, items = Agenda(), [Item() for _ in range(5)]
    last: dict[int, float] = {}
    for number, at in plans:
        ours.plan(items[number], at)
        last[number] = at
    woken = list(ours.due(now))
    due = [number for item in woken for number in range(5) if items[number] is item]
    wanted = {number for number, at in last.items() if at <= now}
    assert sorted(due) == sorted(wanted)
    assert [last[number] for number in due] == sorted(last[number] for number in wanted)
    assert list(ours.due(now)) == []
    rest = [at for at in last.values() if now < at < inf]
    assert ours.first <= min(rest, default=inf)


def test_a_plan_says_whether_it_comes_first() -> None:
    """So that whoever waits for the first is woken only then; the same plan again is none."""
    ours, one, other = Agenda(), Item(), Item()
    assert ours.plan(one, 5.0)
    assert not ours.plan(one, 5.0)
    assert not ours.plan(other, 6.0)
    assert ours.plan(other, 4.0)
    assert ours.first == 4.0


def test_changed_plans_do_not_pile_up() -> None:
    """Ten thousand items whose plan changes ten times: less than two plans for each are kept."""
    ours, items = Agenda(), [Item() for _ in range(10_000)]
    for step in range(10):
        for item in items:
            ours.plan(item, 1000.0 + step)
    assert len(ours) < 2 * len(items) + clock._SWEEP_AFTER
    assert len(list(ours.due(2000.0))) == len(items)
