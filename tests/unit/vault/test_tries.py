"""Never five wrong tries that Vault counts together, whatever is tried, and when."""

from __future__ import annotations

import threading
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.vault.auth.tries import Bounds, Record, Tries, runtime_folder

THRESHOLD, COUNTER_RESET = 5, 900.0  # Vault's defaults


class Counter:
    """Counts as Vault's ``failedUserLoginProcess`` does."""

    def __init__(self) -> None:
        self.count = 0
        self.last = -inf

    def wrong(self, now: float) -> None:
        self.count = self.count + 1 if now <= self.last + COUNTER_RESET else 1
        self.last = now


class Clock:
    """Set by the test."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """One user, a Vault that counts, and whoever tries."""

    def __init__(self, folder: Path | None = None) -> None:
        self.clock = Clock()
        self.folder = folder
        self.vault = Counter()
        self.restart()

    def restart(self) -> None:
        self.tries = Tries(lambda: self.folder, clock=self.clock)

    def attempt(self, mark: str, outcome: str = "wrong", late: float = 0.0) -> float:
        wait = self.tries.begin("mary", mark)
        if wait > 0:
            return wait
        if outcome == "works":
            self.vault.count = 0
            self.tries.worked("mary", mark)
        elif outcome == "wrong":
            self.vault.wrong(self.clock.now)
            self.tries.refused("mary", mark)
        elif outcome == "silent":
            self.vault.wrong(self.clock.now + late)  # when Vault has given up, too
        else:
            self.tries.spare("mary")
        assert self.vault.count < THRESHOLD
        return 0.0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["wrong", "wrong", "silent", "spared", "works"]),
        st.sampled_from(
            [0.0, 1.0, 60.0, 239.0, 241.0, 400.0, 899.0, 901.0, 961.0, 1019.0, 1021.0, 5000.0]
        ),
        st.booleans(),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_user_is_never_locked(steps: list[tuple[str, str, float, bool]]) -> None:
    """Not by a file that changes, by answers that do not come, or by tries at any time."""
    world = World()
    for mark, outcome, seconds, slow in steps:
        world.attempt(mark, outcome, 90.0 if slow else 0.0)
        world.clock.now += seconds


def test_the_user_is_not_locked_by_restarts(tmp_path: Path) -> None:
    """Each start would make one try: what the one before has tried is in the record."""
    world = World(tmp_path)
    waits = []
    for _ in range(200):
        world.restart()
        waits.append(world.attempt("a", "silent", late=30.0))
        world.clock.now += 20.0
    assert waits.count(0.0) >= 5  # it is not given up either
    (record,) = tmp_path.iterdir()
    assert record.stat().st_mode & 0o777 == 0o600
    assert "mary" not in record.name + record.read_text()


def test_what_worked_is_tried_again_seldom_and_for_ever() -> None:
    """Three, four minutes apart, and then a quiet quarter of an hour."""
    world = World()
    world.attempt("a", "works")
    began, at = world.clock.now, []
    for _ in range(4000):
        if world.attempt("a") == 0.0:
            at.append(world.clock.now - began)
        world.clock.now += 1.0
    assert at == [0.0, 240.0, 480.0, 1500.0, 1740.0, 1980.0, 3000.0, 3240.0, 3480.0]


def test_only_what_worked_is_tried_again() -> None:
    """A password that was never right is not right in some minutes."""
    tries = World().tries
    assert tries.begin("mary", "a") == 0.0
    assert tries.refused("mary", "a") == inf
    assert tries.begin("mary", "b") == 0.0
    tries.worked("mary", "b")
    assert tries.begin("mary", "b") == 0.0
    assert tries.refused("mary", "b") == Bounds().pause


def test_a_rotated_file_is_tried_at_once_and_within_bounds() -> None:
    """Also after all that its old content was allowed; the fifth has to wait."""
    world = World()
    for mark in "abcd":
        assert world.attempt(mark) == 0.0
    assert world.attempt("e") == Bounds().quiet
    world.clock.now += Bounds().quiet
    assert world.attempt("e") == 0.0


def test_names_are_counted_each_by_itself(tmp_path: Path) -> None:
    """Another user, or the same in another Vault."""
    tries = Tries(lambda: tmp_path, clock=Clock())
    for mark in "abcd":
        assert tries.begin("mary", mark) == 0.0
    assert tries.begin("mary", "e") > 0.0
    assert tries.begin("john", "e") == 0.0


def test_a_clock_that_was_set_back_is_no_reason_to_wait_for_long() -> None:
    """Nor one that was ahead when the record was written."""
    world = World()
    for mark in "abcd":
        world.attempt(mark)
    world.clock.now -= 1e6
    world.vault.last -= 1e6  # whose clock is its own
    assert 0.0 < world.attempt("e") <= Bounds().quiet
    world.clock.now += Bounds().quiet
    assert world.attempt("e") == 0.0


@given(st.text(max_size=200))
def test_a_record_that_is_none_is_as_good_as_none(text: str) -> None:
    """A torn write, or somebody's edit."""
    assert Record.read(text) == Record()


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "{}", '{"tries": 5}', '{"tries": ["x"]}', "[" * 9000, '{"tries": [1e999]'],
)
def test_json_that_is_no_record(text: str) -> None:
    """Any shape."""
    assert Record.read(text) == Record()


def test_a_record_is_read_as_it_was_written() -> None:
    """All of it."""
    record = Record([1.0, 2.5], "a", "b", silent=True)
    assert Record.read(record.text()) == record


def test_processes_of_one_machine_count_together(tmp_path: Path) -> None:
    """Eight start at once, each with something else and a record opened by itself: four may try."""
    waits: list[float] = []
    each = [
        threading.Thread(
            target=lambda mark=mark: waits.append(Tries(lambda: tmp_path).begin("mary", mark))
        )
        for mark in "abcdefgh"
    ]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert waits.count(0.0) == Bounds().new


def test_the_folder_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that others can write, or a link, in a place that is everybody's, is not used."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    folder = runtime_folder()
    assert folder == tmp_path / "vaultauthz"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert runtime_folder() is None
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert runtime_folder() is None
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "nowhere"))
    assert runtime_folder() is None


def test_without_a_folder_it_is_kept_in_memory() -> None:
    """As where nothing can be written: until the end of the process."""
    tries = Tries(lambda: None)
    waits = [tries.begin("mary", mark) for mark in "abcdef"]
    assert waits[:4] == [0.0] * 4
    assert min(waits[4:]) > 0.0
