"""An answer that comes later: once, to all who want it, in whatever order they ask."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import PATIENCE
from vaultauthz.leases.later import Later


class Heard:
    """What a callback was told; each instance is one callback."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def __call__(self, value: Any) -> None:
        self.values.append(value)


def broken(value: object) -> None:
    """A callback with an error of its own, whose text quotes what must stay secret."""
    raise ValueError(f"hvs.SECRET {value}")


def double(value: int) -> int:
    return 2 * value


# --- one answer ---


def test_the_first_answer_is_the_answer() -> None:
    """Those that come after it are told so, and change nothing."""
    later: Later[int] = Later()
    assert later.answer(1)
    assert not later.answer(2)
    assert not later.fail(ValueError())
    assert later.wait() == 1
    assert later.map(double).wait() == 2


def test_an_error_is_an_answer_too() -> None:
    """It goes to who waits and to who has asked for errors, past who has not."""
    later: Later[int] = Later()
    answers, errors = Heard(), Heard()
    later.then(answers)
    later.then(answers, errors)
    error = KeyError("x")
    assert later.fail(error)
    assert not later.answer(1)
    later.then(answers, errors)
    assert (answers.values, errors.values) == ([], [error, error])
    for wanted in (later, later.map(double)):
        with pytest.raises(KeyError):
            wanted.wait()


@given(st.permutations(["answer", "then", "map", "map map", "then on map", "answer again"]))
def test_any_order_comes_to_the_same(order: list[str]) -> None:
    """Whether somebody asks before or after the answer makes no difference to what he gets."""
    later: Later[int] = Later()
    first, second = Heard(), Heard()
    mapped: list[Later[int]] = []
    acts: dict[str, Callable[[], object]] = {
        "answer": lambda: later.answer(21),
        "answer again": lambda: later.answer(21),
        "then": lambda: later.then(first),
        "then on map": lambda: later.map(double).then(second),
        "map": lambda: mapped.append(later.map(double)),
        "map map": lambda: mapped.append(later.map(double).map(lambda value: value // 2 * 2)),
    }
    for name in order:
        acts[name]()
    assert (first.values, second.values) == ([21], [42])
    assert [each.wait() for each in mapped] == [42, 42]


@pytest.mark.parametrize("value", [None, False, 0, b""])
def test_what_is_falsy_is_an_answer(value: object) -> None:
    """Whether there is an answer is not read off its value."""
    later: Later[object] = Later()
    assert later.answer(value)
    assert not later.answer(1)
    assert later.wait() is value


# --- errors in callbacks ---


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_callback_that_breaks_does_not_keep_the_others_from_their_answer(
    where: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor the one who answers from going on; the log names the error's type, not its text."""
    later: Later[int] = Later()
    heard = [Heard(), Heard()]
    callbacks: list[Any] = list(heard)
    callbacks.insert(where, broken)
    for each in callbacks:
        later.then(each)
    with caplog.at_level(logging.ERROR):
        assert later.answer(7)
    assert [each.values for each in heard] == [[7], [7]]
    assert "ValueError" in caplog.text
    assert "SECRET" not in caplog.text


def test_a_callback_that_breaks_at_once_breaks_who_called() -> None:
    """With the answer there already it runs in the caller's hands, who sees the error."""
    later: Later[int] = Later()
    later.answer(1)
    with pytest.raises(ValueError, match="SECRET"):
        later.then(broken)


@pytest.mark.parametrize("early", [True, False])
def test_an_error_in_a_change_is_what_the_changed_one_comes_to(early: bool) -> None:
    """Along a whole chain: nobody at its end waits for ever, and nobody beside it is lost."""
    later: Later[int] = Later()
    if early:
        later.answer(1)
    chain = later.map(broken).map(str).map(len)
    beside, errors = later.map(double), Heard()
    chain.then(Heard(), errors)
    later.answer(1)
    assert beside.wait() == 2
    assert [type(error) for error in errors.values] == [ValueError]
    with pytest.raises(ValueError, match="SECRET"):
        chain.wait()


# --- threads ---


def test_many_threads_answer_and_ask_at_once() -> None:
    """One answer wins, it is what all see, and each callback runs exactly once."""
    for _ in range(100):
        later: Later[int] = Later()
        start = threading.Barrier(9)
        won: list[int] = []
        heard = [Heard() for _ in range(3)]
        waited: list[int] = []

        def answer(number: int, later: Later[int] = later, won: list[int] = won) -> None:
            if later.answer(number):
                won.append(number)

        def wait(later: Later[int] = later, waited: list[int] = waited) -> None:
            waited.append(later.map(double).wait())

        acts = [
            *(lambda n=n: answer(n) for n in range(3)),
            *(lambda h=h, later=later: later.then(h) for h in heard),
            *(wait for _ in range(3)),
        ]

        def run(act: Any, start: threading.Barrier = start) -> None:
            start.wait()
            act()

        threads = [threading.Thread(target=run, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        (winner,) = won
        assert [each.values for each in heard] == [[winner]] * 3
        assert waited == [2 * winner] * 3


def test_the_answer_is_handed_on_in_the_thread_that_brings_it() -> None:
    """And not under the promise's own lock: a callback may ask the promise again."""
    later: Later[int] = Later()
    seen: list[object] = []
    later.then(lambda value: seen.append((threading.current_thread().name, later.wait())))
    later.then(lambda value: later.then(seen.append))
    thread = threading.Thread(target=later.answer, args=(5,), name="bringer")
    thread.start()
    thread.join(PATIENCE)
    assert seen == [("bringer", 5), 5]
