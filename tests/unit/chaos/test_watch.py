"""Whether a process's memory is flat."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.watch import Sample, grown


def _samples(seconds: int, mib: Callable[[int], float], pid: int = 1) -> list[Sample]:
    return [Sample(pid, age, mib(age)) for age in range(0, seconds, 2)]


def test_what_grows_in_the_warm_up_only_is_flat() -> None:
    (found,) = grown(_samples(300, lambda age: 50 + min(age, 60) / 4))
    assert found.flat


def test_what_grows_on_is_not() -> None:
    (found,) = grown(_samples(300, lambda age: 50 + age / 20))
    assert not found.flat
    assert found.end - found.begin == pytest.approx(210 / 20, abs=1)


def test_a_process_that_was_killed_early_tells_nothing_and_each_has_its_own_beginning() -> None:
    samples = _samples(120, lambda age: 50 + age, pid=1) + _samples(200, lambda _: 90, pid=2)
    assert [one.pid for one in grown(samples)] == [2]
