"""The log through appends, rotations and restarts: each line once, in its order."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.envoy.access_logs.log_file import CHUNK, LONGEST, save
from vaultauthz.envoy.access_logs.trail import Trail

# A client may see to it that all lines begin alike for hundreds of bytes.
_SAME = b'{"attempts":1,"host":"' + b"h" * 600 + b'","path":"/%d"}'


class World:
    """A folder with a log in it, an Envoy that writes, and a trail that reads.

    Time is what the files say; it goes on by a second with each write.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "access.jsonl"
        self.trail = Trail(self.path)
        self.written: list[bytes] = []
        self.read: list[bytes] = []
        self.too_long = 0
        self._fd = -1
        self._now = itertools.count(1_790_000_000)
        self._numbers = itertools.count(1)
        self._rotated = itertools.count(1)

    def write(self, count: int = 1) -> None:
        """Envoy writes some lines, into whichever file it has open."""
        if self._fd < 0:
            self.reopen()
        lines = [_SAME % next(self._numbers) for _ in range(count)]
        self.raw(b"".join(line + b"\n" for line in lines))
        self.written += lines

    def raw(self, data: bytes) -> None:
        """Envoy, or somebody else, writes just this."""
        if self._fd < 0:
            self.reopen()
        os.write(self._fd, data)
        when = next(self._now) * 10**9
        os.utime(self._fd, ns=(when, when))

    def reopen(self) -> None:
        """Envoy opens its log anew."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def rename(self, name: str = "") -> Path:
        """The log is rotated; Envoy goes on with the old file."""
        place = self.path.with_name(name or f"{self.path.name}.{next(self._rotated)}")
        return self.path.rename(place)

    def rotate(self) -> Path:
        """The log is rotated, and Envoy told so."""
        moved = self.rename()
        self.reopen()
        return moved

    def take(self) -> list[bytes]:
        """Read until there is nothing."""
        quiet, before = 0, len(self.read)
        while quiet < 3:  # it looks at files one after the other
            found = self.trail.take()
            quiet = 0 if found else quiet + 1
            self.read += found.lines
            self.too_long += found.too_long
        return self.read[before:]

    def restart(self) -> None:
        """We end after what was read was written, and begin again."""
        if self.trail.position:
            save(self.path, self.trail.position)
        self.trail.close()
        self.trail = Trail(self.path)

    def close(self) -> None:
        """Let go of files."""
        self.trail.close()
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def complete(self) -> bool:
        """Whether each line was read once, in its order."""
        self.take()
        return self.read == self.written


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One that nothing has happened in."""
    made = World(tmp_path)
    yield made
    made.close()


# --- one file ---


def test_it_is_read_from_its_start(world: World) -> None:
    """What was there before, and then what is appended."""
    world.write(3)
    assert world.complete
    world.write(5000)
    assert world.complete
    assert world.trail.behind == 0


def test_it_may_come_later(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Until Envoy makes it there is nothing; that is said once, and is no warning."""
    with caplog.at_level(logging.INFO):
        assert world.take() == world.take() == []
    assert [record.levelname for record in caplog.records] == ["INFO"]
    world.write()
    assert world.complete


def test_a_torn_line_waits_for_its_end(world: World) -> None:
    """Half a line is none yet."""
    world.write()
    world.raw(b'{"attempts":1,')
    assert world.complete
    assert world.trail.behind == len(b'{"attempts":1,')
    world.raw(b'"path":"/x"}\n')
    assert world.take() == [b'{"attempts":1,"path":"/x"}']


@pytest.mark.parametrize("length", [LONGEST + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_a_line_that_is_too_long_is_passed_over(world: World, length: int) -> None:
    """It is counted, once, and what is around it is read."""
    world.write()
    world.raw(b"x" * length + b"\n")
    world.write()
    assert world.complete
    assert world.too_long == 1


def test_what_cannot_be_read_is_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A folder, a pipe, a file without rights: said once, and read when it can be."""
    world.path.mkdir()
    assert world.take() == world.take() == []
    assert len(caplog.records) == 1
    world.path.rmdir()
    os.mkfifo(world.path)
    assert world.take() == []
    world.path.unlink()
    world.write()
    assert world.complete
    assert "cannot be read" in caplog.text


# --- rotations ---


def test_renamed(world: World) -> None:
    """The old file to its end, also what Envoy writes before it is told; then the new one."""
    world.write(2)
    assert world.complete
    world.rename()
    world.write(2)
    assert world.complete
    world.reopen()
    world.write(2)
    assert world.complete


def test_renamed_and_made_anew(world: World) -> None:
    """A new file that is empty does not end the old one: logrotate's `create`."""
    world.write(2)
    world.take()
    world.rename()
    world.path.touch()
    world.take()
    world.write(2)
    assert world.complete
    world.reopen()
    world.write(2)
    assert world.complete


def test_an_unended_line_of_an_old_file(world: World) -> None:
    """Nobody will write on, so it is handed out as it is."""
    world.write()
    world.take()
    world.raw(b'{"attempts":')
    world.rotate()
    world.write()
    world.take()
    assert world.read == [world.written[0], b'{"attempts":', world.written[1]]


def test_several_rotations_behind(world: World) -> None:
    """All the files in between are read, in their order; others beside them are not."""
    world.write(2)
    world.take()
    for _ in range(3):
        world.rotate()
        world.write(2)
    for name in ("access.jsonl.2.gz", "access.jsonl.bak", "access.jsonl2", "other.jsonl.1"):
        world.path.with_name(name).write_text("{}\n")
    assert world.complete


def test_a_copy_is_not_read(world: World) -> None:
    """Somebody keeps a copy beside the log, under a name like a rotated one's."""
    world.write(2)
    world.take()
    world.path.with_name("access.jsonl.99").write_bytes(world.path.read_bytes())
    world.rotate()
    world.write()
    assert world.complete


@pytest.mark.parametrize("more", [1, 100])
def test_emptied_after_a_copy(world: World, more: int, caplog: pytest.LogCaptureFixture) -> None:
    """`copytruncate`: what was not read yet is in the copy, however much comes afterwards."""
    world.write(10)
    world.take()
    world.write(10)
    world.path.with_name("access.jsonl.1").write_bytes(world.path.read_bytes())
    os.truncate(world.path, 0)
    world.write(more)
    assert world.complete
    assert "emptied" not in caplog.text


@pytest.mark.parametrize("more", [1, 100])
def test_emptied(world: World, more: int, caplog: pytest.LogCaptureFixture) -> None:
    """Without a copy it begins anew, and the log says that lines may be lost."""
    world.write(10)
    assert world.complete
    os.truncate(world.path, 0)
    world.write(more)
    assert world.complete
    assert "was emptied" in caplog.text


# --- restarts ---


@pytest.mark.parametrize("rotations", [0, 1, 3])
def test_a_restart_goes_on(world: World, rotations: int) -> None:
    """In whichever file it was; what came in the meantime is read."""
    world.write(10)
    world.take()
    world.restart()
    world.write(3)
    for _ in range(rotations):
        world.rotate()
        world.write(3)
    assert world.complete


def test_a_new_file_of_an_old_inode(world: World) -> None:
    """Systems give a removed file's inode to the next one; that is read from its start."""
    world.write(10)
    world.take()
    world.restart()
    inode = world.path.stat().st_ino
    world.path.write_bytes(b"")  # the same inode, other lines, and more of them
    world.written.clear()
    world.read.clear()
    world.write(50)
    assert world.path.stat().st_ino == inode
    assert world.complete


def test_a_file_that_is_gone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is said; what was written into others since then is read, what was read before is not."""
    world.write(2)
    world.take()
    world.rotate()
    world.write(2)
    world.take()
    world.restart()
    when = 1_790_000_001 * 10**9 + 1  # kept after the second write
    os.utime(world.path.with_name("access.jsonl.position"), ns=(when, when))
    gone = world.rotate()
    world.write(2)
    world.rotate()
    world.write(2)
    gone.unlink()
    assert world.complete
    assert "is gone" in caplog.text


def test_a_bad_position(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Rather twice than never."""
    world.write(2)
    world.path.with_name("access.jsonl.position").write_text("?")
    assert world.complete
    assert "cannot be used" in caplog.text


ACTIONS = ("write", "rename", "create", "reopen", "take", "restart")


@given(plan=st.lists(st.sampled_from(ACTIONS), max_size=30))
def test_whatever_happens_each_line_is_read_once(plan: list[str]) -> None:
    """In any order of writes, renames, reopenings, reads and restarts, also after a long time."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            world.write()  # what was rotated before it ever began is not its own
            world.take()
            for action in plan:
                match action:
                    case "write":
                        world.write(2)
                    case "rename":
                        # Rotated again before Envoy heard of it, a log would have no one writer.
                        if world.path.exists() and world.path.stat().st_size:
                            world.rename()
                    case "create" if not world.path.exists():
                        world.path.touch()
                    case "reopen":
                        world.reopen()
                    case "take":
                        world.take()
                    case "restart":
                        world.restart()
            world.reopen()
            world.write()
            assert world.complete
        finally:
            world.close()
