"""Never five wrong tries that Vault counts together, whatever is tried, and when."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.vault.auth.tries import Bounds, How, Record, Tries, Try
from vaultauthz.vault.auth.tries_file import SIZE, runtime_folder

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
        self.pending: list[float] = []
        self.restart()

    def restart(self) -> None:
        self.tries = Tries(lambda: self.folder, clock=self.clock)

    def turn(self, seconds: float) -> None:
        """Time passes, and Vault counts what it has given up meanwhile."""
        self.clock.now += seconds
        for at in sorted(self.pending):
            if at <= self.clock.now:
                self.pending.remove(at)
                self.vault.wrong(at)
        assert self.vault.count < THRESHOLD

    def attempt(self, mark: str, outcome: str = "wrong", late: float = 0.0) -> float:
        turn = self.tries.begin("mary", mark)
        if turn.wait > 0:
            return turn.wait
        if outcome == "works":
            self.vault.count = 0
            self.tries.worked(turn)
        elif outcome == "wrong":
            self.vault.wrong(self.clock.now)
            self.tries.refused(turn)
        elif outcome in ("silent", "killed"):
            self.pending.append(self.clock.now + late)  # when Vault has given up, too
            if outcome == "silent":
                self.tries.unanswered(turn)
            self.turn(0.0)
        else:
            self.tries.spare(turn)
        assert self.vault.count < THRESHOLD
        return 0.0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["wrong", "wrong", "silent", "killed", "spared", "works"]),
        st.sampled_from(
            [
                0.0,
                1.0,
                31.0,
                60.0,
                91.0,
                239.0,
                241.0,
                400.0,
                899.0,
                901.0,
                961.0,
                1019.0,
                1021.0,
                5000.0,
            ]
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
        world.turn(seconds)
    world.turn(90.0)


def test_the_user_is_not_locked_by_restarts(tmp_path: Path) -> None:
    """Each start would make one try: what the one before has tried is in the record."""
    world = World(tmp_path)
    waits = []
    for _ in range(200):
        world.restart()
        waits.append(world.attempt("a", "silent", late=30.0))
        world.turn(20.0)
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
    first = tries.begin("mary", "a")
    assert (first.wait, tries.refused(first)) == (0.0, inf)
    second = tries.begin("mary", "b")
    tries.worked(second)
    third = tries.begin("mary", "b")
    assert (third.wait, tries.refused(third)) == (0.0, Bounds().pause)


def test_what_works_makes_up_only_for_what_was_found_wrong_before() -> None:
    """Vault's count begins anew then; what hangs behind it, and what it refuses later, it counts yet."""
    world = World()
    for mark in ("a", "b"):
        world.attempt(mark, "silent", late=90.0)
        world.attempt("a", "works")
    world.turn(90.0)
    assert world.vault.count == 2
    tried = [world.attempt(mark) for mark in "cdef"]
    assert tried.count(0.0) == 2
    assert world.vault.count == Bounds().new


def test_what_was_refused_while_another_worked_is_counted() -> None:
    """Two at once: which of them Vault looked at first is not known."""
    world = World()
    works, wrong = world.tries.begin("mary", "a"), world.tries.begin("mary", "b")
    world.clock.now += 1.0
    world.tries.refused(wrong)
    world.clock.now += 1.0
    world.tries.worked(works)
    assert [world.tries.begin("mary", mark).wait for mark in "cdef"].count(0.0) == 3


def test_a_try_that_vault_does_not_count_takes_no_other_with_it() -> None:
    """The one that came after it stays, and so does its time."""
    world = World()
    first = world.tries.begin("mary", "a")
    world.clock.now += 100.0
    world.tries.refused(world.tries.begin("mary", "b"))
    world.tries.spare(first)
    world.clock.now += 40.0
    assert world.attempt("b") == Bounds().pause - 40.0


def test_a_try_that_is_out_is_waited_for_but_not_for_long() -> None:
    """Another process's, of which it is not known yet how it ends, or whether that was killed."""
    world = World()
    turns = [world.tries.begin("mary", "a") for _ in range(3)]
    assert [turn.wait for turn in turns] == [0.0, 0.0, Bounds().soon]
    world.tries.worked(turns[0])
    world.tries.worked(turns[1])
    assert world.attempt("a", "works") == 0.0
    for _ in range(2):
        world.attempt("a", "killed")
    world.turn(Bounds().out)
    assert world.attempt("a") == Bounds().pause - Bounds().out


def test_one_process_tries_a_name_once_at_a_time() -> None:
    """The others are let in as soon as that has ended; another name need not wait."""
    tries = Tries(lambda: None, Bounds(out=0.01))
    with tries.alone("mary") as mine, tries.alone("mary") as second, tries.alone("john") as other:
        assert (mine, second, other) == (True, False, True)
    with tries.alone("mary") as mine:
        assert mine


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
        assert tries.begin("mary", mark).wait == 0.0
    assert tries.begin("mary", "e").wait > 0.0
    assert tries.begin("john", "e").wait == 0.0


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
def test_a_text_that_is_no_record(text: str) -> None:
    """A torn write, or somebody's edit."""
    assert Record.read(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("null", "[]", "{}", '{"tries": 5}', '{"tries": ["x"]}', "[" * 9000),
        '{"tries": [{"at": 1e999, "key": "", "how": "wrong"}], "tried": "", "worked": ""}',
        '{"tries": [{"at": NaN, "key": "", "how": "wrong"}], "tried": "", "worked": ""}',
        '{"tries": [{"at": 1.0, "key": "", "how": "else"}], "tried": "", "worked": ""}',
    ],
)
def test_json_that_is_no_record(text: str) -> None:
    """Any shape."""
    assert Record.read(text) is None


def test_a_record_is_read_as_it_was_written() -> None:
    """All of it."""
    record = Record([Try(1.0, "x", How.WRONG), Try(2.5, "y", How.SILENT)], "a", "b")
    assert Record.read(record.text()) == record
    longest = Record([Try(1e9 + 0.123456789, "f" * 12, How.SILENT)] * 8, "a" * 32, "b" * 32)
    assert len(longest.text()) <= SIZE


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"\0" * 100, b"[]", b"x" * 100_000])
def test_a_record_that_is_damaged_is_no_leave_to_try_and_no_end(
    tmp_path: Path, content: bytes
) -> None:
    """How many tries there were is not known: none is made until Vault counts none, restarts or not."""
    world = World(tmp_path)
    world.attempt("a")
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    os.utime(file, (world.clock.now, world.clock.now))
    world.restart()
    assert world.attempt("b") == Bounds().quiet
    world.turn(1000.0)
    world.restart()
    assert world.attempt("b") == Bounds().quiet - 1000.0
    world.turn(20.0)
    assert world.attempt("b") == 0.0


def test_a_record_that_was_damaged_meanwhile_is_written_anew(tmp_path: Path) -> None:
    """The process knows what it was."""
    world = World(tmp_path)
    world.attempt("a")
    (file,) = tmp_path.iterdir()
    before = json.loads(file.read_text())
    file.write_bytes(b"\xff")
    world.tries.silent("mary")
    assert json.loads(file.read_text()) == before


def test_a_full_disk_makes_nothing_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in the file stays whole, the process goes on with what it knows, and writes it later."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    world = World(tmp_path)
    world.attempt("a")
    (file,) = tmp_path.iterdir()
    before = file.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        for mark in "bcd":
            assert world.attempt(mark) == 0.0
        assert file.read_text() == before
        assert world.attempt("e") > 0.0
    assert world.attempt("e") > 0.0
    world.restart()
    assert world.attempt("e") > 0.0


def test_what_the_file_is_cannot_be_chosen_by_others(tmp_path: Path) -> None:
    """A link, a pipe or a folder in its place is not used; tries are counted all the same."""
    world = World(tmp_path)
    world.attempt("a")
    (file,) = tmp_path.iterdir()
    target = tmp_path / "precious"
    target.write_text("precious")
    makers: list[Callable[[], object]] = [
        lambda: file.symlink_to(target),
        lambda: os.mkfifo(file),
        file.mkdir,
    ]
    for make in makers:
        file.unlink()
        make()
        world = World(tmp_path)
        assert [world.attempt(mark) > 0.0 for mark in "abcde"] == [False] * 4 + [True]
        assert target.read_text() == "precious"
        if file.is_dir():
            file.rmdir()
            file.touch()


def test_a_file_system_without_locks_is_none_to_keep_records_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some that are mounted over a network: memory it is."""

    def lockless(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", lockless)
    world = World(tmp_path)
    assert [world.attempt(mark) > 0.0 for mark in "abcde"] == [False] * 4 + [True]


def test_a_machine_that_can_be_written_nowhere_has_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with a read-only root: Python finds no folder for temporary files at all."""

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert runtime_folder() is None
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert runtime_folder() == tmp_path / f"vaultauthz-{os.geteuid()}"


def test_somebody_elses_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made before us in a place that is everybody's."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    folder = runtime_folder()
    assert folder is not None
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert runtime_folder() is None
    assert Tries(lambda: folder).begin("mary", "a").wait == 0.0
    assert list(folder.iterdir()) == []


def test_processes_of_one_machine_count_together(tmp_path: Path) -> None:
    """Eight start at once, each with something else and a record opened by itself: four may try."""
    waits: list[float] = []
    each = [
        threading.Thread(
            target=lambda mark=mark: waits.append(Tries(lambda: tmp_path).begin("mary", mark).wait)
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
    waits = [tries.begin("mary", mark).wait for mark in "abcdef"]
    assert waits[:4] == [0.0] * 4
    assert min(waits[4:]) > 0.0
