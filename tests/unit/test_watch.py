"""A watched file, looked at when the test says so: there is no time in here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vaultauthz.watching import Watch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file before anything happens to it."""
    file = tmp_path / "c.yaml"
    file.write_text("old")
    return file


def later(path: Path, nanoseconds: int = 10**9) -> None:
    """As if the last write had been later: the file system's clock may stand still in a test."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + nanoseconds))


def looks(watch: Watch, times: int = 4) -> list[bool]:
    """What it says at the next looks."""
    return [watch.changed() for _ in range(times)]


def test_nothing_happens(path: Path) -> None:
    """A file that nobody touches has not changed, and reading it is no change."""
    watch = Watch(path)
    path.read_text()
    assert looks(watch) == [False] * 4


def test_written_in_place(path: Path) -> None:
    """It says so once, at the second look that finds it so."""
    watch = Watch(path)
    path.write_text("something new")
    assert looks(watch) == [False, True, False, False]


def test_gone_is_more_than_a_moment(path: Path) -> None:
    """Who replaces it may have it away at one look; at two in a row it is gone, until it is back."""
    watch = Watch(path)
    aside = path.rename(path.with_suffix(".aside"))
    gone = [watch.changed() or watch.gone for _ in range(3)]
    aside.rename(path)
    assert gone == [False, True, True]
    assert not watch.changed()
    assert not watch.gone


def test_replaced_by_rename(path: Path) -> None:
    """As editors and configuration management do; also with the same size and time."""
    watch = Watch(path)
    stat = path.stat()
    new = path.with_suffix(".new")
    new.write_text("new")
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new.replace(path)
    assert looks(watch) == [False, True, False, False]


def test_written_in_two_steps(path: Path) -> None:
    """Between the steps, and while it grows, it is not read; at the end it is, once."""
    watch = Watch(path)
    seen = []
    for part in range(5):
        with path.open("a") as file:
            file.write(f"part {part}\n")
        seen.append(watch.changed())
    assert seen == [False] * 5
    assert looks(watch) == [True, False, False, False]


def test_vanished_for_a_moment(path: Path) -> None:
    """Gone is no change; back with another content is one, back as it was is none."""
    watch = Watch(path)
    aside = path.rename(path.with_suffix(".aside"))
    assert looks(watch, 2) == [False, False]
    path.write_text("another one")
    assert looks(watch) == [False, True, False, False]
    path.unlink()
    assert looks(watch, 2) == [False, False]
    aside.rename(path)
    assert looks(watch) == [False, True, False, False]  # it is not what was read last


def test_gone_and_back_the_same(path: Path) -> None:
    """A mount that is away for a moment brings the very same file back."""
    folder = path.parent / "mounted"
    folder.mkdir()
    path = path.rename(folder / "c.yaml")
    watch = Watch(path)
    away = folder.rename(path.parent.with_suffix(".away"))
    assert looks(watch, 2) == [False, False]
    away.rename(folder)
    assert looks(watch) == [False] * 4


def test_touched_without_change(path: Path) -> None:
    """Whoever touches it may want it read: once; a reload that changes nothing costs nothing."""
    watch = Watch(path)
    later(path)
    assert looks(watch) == [False, True, False, False]


def test_an_older_time_counts_too(path: Path) -> None:
    """`cp -p` and `git checkout` of an old version set the clock back."""
    watch = Watch(path)
    path.write_text("older")
    later(path, -(10**12))
    assert looks(watch) == [False, True, False, False]


def test_made_readable(path: Path) -> None:
    """A file that could not be read is read when somebody mends its mode."""
    path.chmod(0o000)
    watch = Watch(path)
    path.chmod(0o644)
    assert looks(watch) == [False, True, False, False]


def configmap(folder: Path, version: str, content: str) -> None:
    """What Kubernetes does to a mounted ConfigMap: a new folder, and one link that is moved."""
    (folder / version).mkdir()
    (folder / version / "c.yaml").write_text(content)
    new = folder / "..data_tmp"
    new.symlink_to(version)
    new.replace(folder / "..data")


def test_a_configmap_is_updated(tmp_path: Path) -> None:
    """The path stays a link to a link; its target is another file, then the old is removed."""
    configmap(tmp_path, "..2026_01", "content")
    path = tmp_path / "c.yaml"
    path.symlink_to("..data/c.yaml")
    watch = Watch(path)
    assert looks(watch, 2) == [False, False]
    configmap(tmp_path, "..2026_02", "CONTENT")
    (tmp_path / "..2026_01" / "c.yaml").unlink()
    assert looks(watch) == [False, True, False, False]
    configmap(tmp_path, "..2026_03", "content")
    assert looks(watch) == [False, True, False, False]


def test_a_link_that_leads_nowhere_for_a_moment(tmp_path: Path) -> None:
    """It waits until there is a file again."""
    (tmp_path / "one").write_text("1")
    path = tmp_path / "c.yaml"
    path.symlink_to("one")
    watch = Watch(path)
    path.unlink()
    path.symlink_to("two")
    assert looks(watch, 2) == [False, False]
    (tmp_path / "two").write_text("2")
    assert looks(watch) == [False, True, False, False]


def test_changed_again_right_after_it_said_so(path: Path) -> None:
    """A change that comes while the one before is taken over is not missed."""
    watch = Watch(path)
    path.write_text("first change")
    assert looks(watch, 2) == [False, True]
    path.write_text("second, longer change")
    assert looks(watch) == [False, True, False, False]


def test_changed_and_changed_back_between_looks(path: Path) -> None:
    """Nobody has seen it otherwise, and reading it once more does no harm."""
    watch = Watch(path)
    path.write_text("other")
    path.write_text("old")
    later(path)
    assert looks(watch) == [False, True, False, False]
