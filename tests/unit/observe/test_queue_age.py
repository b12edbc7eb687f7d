"""How long lines have waited, from two counters and the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.observe.outage import LOOK, QueueAge


def looked(waiting: QueueAge, *counts: tuple[int, int], begin: int = 0) -> list[float]:
    """The ages that looks find, one after the other, ``LOOK`` seconds apart."""
    ages = []
    for number, (handed, written) in enumerate(counts, begin):
        waiting.look(number * LOOK, handed, written)
        ages.append(round(waiting.age, 6))
    return ages


def test_nothing_waits() -> None:
    """What is written by the next look has no age."""
    waiting = QueueAge()
    assert looked(waiting, (0, 0), (5, 5), (9, 9)) == [0, 0, 0]
    assert not waiting.overdue(before=False)


def test_age_is_that_of_the_oldest() -> None:
    """It grows while that line waits, whatever comes behind it."""
    ages = looked(QueueAge(), (5, 0), (9, 4), (12, 4), (12, 5), (12, 9), (12, 12))
    assert ages == [0, 0.1, 0.2, 0.2, 0.2, 0]


def test_a_slow_writer_is_overdue_too() -> None:
    """It gets on, and yet each line waits for longer: that counts, not whether it gets on."""
    waiting = QueueAge()
    looked(waiting, *((10 * n, n) for n in range(1, 13)))
    assert waiting.overdue(before=False)


def test_overdue_until_the_writer_is_through() -> None:
    """From one second on, with the look by which a mark may be late; and then until nearly none."""
    waiting = QueueAge()
    looked(waiting, *[(1, 0)] * 9)
    assert not waiting.overdue(before=False)
    looked(waiting, (1, 0), begin=9)
    assert waiting.overdue(before=False)
    looked(waiting, (50, 1), (50, 20), (50, 20), (50, 20), begin=10)
    assert waiting.overdue(before=True)
    looked(waiting, (50, 50), begin=14)
    assert not waiting.overdue(before=True)


def test_a_process_that_was_frozen_has_a_moment() -> None:
    """One look after a pause says nothing, as the writer did not run either; the next one does."""
    waiting = QueueAge()
    looked(waiting, (1, 0), (1, 0))
    looked(waiting, (1, 0), begin=600)
    assert not waiting.overdue(before=False)
    looked(waiting, (1, 0), begin=601)
    assert waiting.overdue(before=False)


def test_looks_that_are_always_late_still_find_it() -> None:
    """A machine that is too slow for our looks does not make us blind."""
    waiting = QueueAge()
    for number in range(4):
        waiting.look(number * 0.8, 1, 0)
    assert waiting.overdue(before=False)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=60))
def test_no_line_waits_longer_than_is_found(steps: list[tuple[int, int]]) -> None:
    """Against a queue that keeps each line's time: at most one look too little, never too much."""
    waiting, handed, written = QueueAge(), 0, 0
    queue: list[int] = []
    for number, (more, most) in enumerate(steps):
        done = min(most, len(queue))
        del queue[:done]
        written += done
        handed += more
        queue += [number] * more  # within the time before this look
        waiting.look(number * LOOK, handed, written)
        oldest = (number - queue[0]) * LOOK if queue else 0.0
        assert abs(waiting.age - oldest) < 1e-6
