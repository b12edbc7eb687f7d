"""What the audit log is written into, and what it is not."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaultauthz.core.events import RENEWED, Event
from vaultauthz.observe.chain import Chain, ending
from vaultauthz.observe.record import of_event
from vaultauthz.observe.sink import AuditError, LogFile, OutputStream

LINE = Chain().link(of_event(1.0, Event(RENEWED, "production")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is to be."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The ends of a pipe, to read from and to write to."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def begun(path: Path) -> LogFile:
    """A log there, with a line in it."""
    log = LogFile(path)
    log.open()
    log.write(LINE)
    return log


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_a_file_is_not_followed(path: Path, *, exists: bool) -> None:
    """At the start: whoever may put a link there would choose what we write into, or make."""
    other = path.with_name("other")
    if exists:
        other.write_bytes(LINE)
    path.symlink_to(other)
    with pytest.raises(AuditError, match="is a link"):
        LogFile(path).open()
    assert other.exists() == exists


def test_a_file_replaced_by_a_link(path: Path) -> None:
    """While we run: nothing is written through it, and once it is gone a new file is begun."""
    log, other = begun(path), path.with_name("other")
    other.write_bytes(LINE)
    path.unlink()
    path.symlink_to(other)
    with pytest.raises(OSError, match="is a link"):
        log.refresh()
    assert other.read_bytes() == LINE
    path.unlink()
    assert log.refresh()
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600


def test_a_link_to_the_open_file_itself(path: Path) -> None:
    """It is not taken for the file either: the next log would be wherever it leads."""
    log, moved = begun(path), path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)
    with pytest.raises(OSError, match="is a link"):
        log.refresh()


def test_folders_may_be_links(tmp_path: Path) -> None:
    """``/var/log`` often is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    begun(tmp_path / "link" / "audit.jsonl")
    assert (tmp_path / "real" / "audit.jsonl").read_bytes() == LINE


def test_a_link_to_a_pipe(path: Path, pipe: tuple[int, int]) -> None:
    """As ``/dev/stdout`` is one, and stays one."""
    reader, writer = pipe
    path.symlink_to(f"/dev/fd/{writer}")
    log = begun(path)
    assert os.read(reader, 10_000) == LINE
    assert not log.refresh()


def test_a_file_of_something_else_is_not_written_into(path: Path) -> None:
    """Neither when it takes our file's place."""
    log, other = begun(path), path.with_name("other")
    other.write_bytes(b"root:x:0:0\n")
    other.replace(path)
    for _ in range(2):
        with pytest.raises(OSError, match="no audit records"):
            log.refresh()
    assert path.read_bytes() == b"root:x:0:0\n"


def test_a_file_replaced_by_a_pipe(path: Path) -> None:
    """Whoever reads from that would be the only one to have our lines."""
    log = begun(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="it was a file and is none"):
        log.refresh()


def test_the_next_file_of_another_process(path: Path) -> None:
    """It is not shared; the message says why nothing is written."""
    log = begun(path)
    path.unlink()
    other = begun(path)
    with pytest.raises(OSError, match="another process writes this audit log"):
        log.refresh()
    other.close()
    assert log.refresh()


def test_an_emptied_file_is_as_good_as_new(path: Path) -> None:
    """The copytruncate of logrotate: what stood there is in the copy."""
    log = begun(path)
    assert not log.refresh()
    os.truncate(path, 0)
    assert log.refresh()
    assert not log.refresh()
    log.write(LINE)
    assert path.read_bytes() == LINE


def test_a_file_that_was_cut_in_a_line(path: Path) -> None:
    """What we write next does not stand behind a piece of it."""
    log = begun(path)
    log.write(LINE)
    os.truncate(path, len(LINE) + 40)
    assert log.refresh()
    log.write(LINE)
    assert path.read_bytes() == LINE + LINE[:40] + b"\n" + LINE


def test_opening_changes_nothing(path: Path) -> None:
    """Also on a disk that is full a server starts, and refuses checks until there is room."""
    path.write_bytes(LINE + LINE[:40])
    assert LogFile(path).open() == ending(LINE + LINE[:40], whole=True)
    assert path.read_bytes() == LINE + LINE[:40]


def test_a_stream_that_does_not_wait(pipe: tuple[int, int]) -> None:
    """Somebody with the same pipe may have set it so: a full one is no failure, and no loop either."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    stream = OutputStream(writer)
    sent = 0
    while count := stream.write(b"x" * 4096):
        sent += count
    os.read(reader, sent)
    assert stream.write(b"y") == 1


def test_a_reader_that_is_gone() -> None:
    """That is a failure, and told as one."""
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        OutputStream(writer).write(b"x")
    os.close(writer)


def test_standard_output_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``>&-``: another file may have its number by then."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(AuditError, match=r"standard output is closed.*audit\.file"):
        OutputStream.standard()
