"""A file's stamp: another whenever the file is, by whatever way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vaultauthz.watching import stamp, stamp_if_any


def _let_the_clock_move(file: Path, since: int) -> None:
    """Until what changes now is later than ``since``: a file system's clock may tick every 4 ms."""
    file.touch()
    while file.stat().st_ctime_ns <= since:
        file.touch()


def _written(file: Path) -> None:
    file.write_text("longer")


def _as_old(file: Path) -> None:
    """Of the same size and time, as `cp -p` makes it."""
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _moved_over(file: Path) -> None:
    other = file.with_name("other")
    other.write_text("two")
    before = file.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def _to_be_read(file: Path) -> None:
    file.chmod(0o640)


@pytest.mark.parametrize("change", [_written, _as_old, _moved_over, _to_be_read])
def test_it_is_another(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Also through a link, as Kubernetes mounts files; and the same while nothing happens."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("one")
    os.utime(file, ns=(0, 0))
    link.symlink_to(file)
    before = stamp(link)
    assert stamp(link) == before == stamp_if_any(file)
    _let_the_clock_move(tmp_path / "clock", before.changed)
    change(file)
    assert stamp(link) != before


def test_a_link_that_is_moved(tmp_path: Path) -> None:
    """Leads to another file, and that counts."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    link, new = tmp_path / "link", tmp_path / "new"
    link.symlink_to("one")
    before = stamp(link)
    new.symlink_to("two")
    new.replace(link)
    assert stamp(link) != before


def test_none_there(tmp_path: Path) -> None:
    """Who has to have it is told, others get None."""
    assert stamp_if_any(tmp_path / "none") is None
    with pytest.raises(FileNotFoundError):
        stamp(tmp_path / "none")
