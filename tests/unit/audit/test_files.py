"""The files of a log, however they were rotated."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import os
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.audit.logs import file, happened, used, written
from tests.unit.observe.conftest import FakeSink
from vaultauthz.audit import files
from vaultauthz.audit.files import STDIN, Log, LogError, Selection, by_chain, by_time
from vaultauthz.audit.logs import read_own
from vaultauthz.audit.usage import count_usage
from vaultauthz.audit.verification import verification
from vaultauthz.core.events import LOGIN, Event
from vaultauthz.observe.chain import Chain, LogEnd
from vaultauthz.observe.record import of_event
from vaultauthz.observe.sink import LineWriter

START = 1.79e9


@pytest.fixture
def rotated(tmp_path: Path) -> list[Path]:
    """Three files of one chain, the newest first, as a shell's `audit.jsonl*` has them."""
    chain = Chain()
    pieces = [written(used(n), used(n + 1), chain=chain) for n in (0, 10, 20)]
    oldest = tmp_path / "audit.jsonl.2.gz"
    oldest.write_bytes(gzip.compress(pieces[0]))
    second = file(tmp_path / "audit.jsonl.1", pieces[1])
    return [file(tmp_path / "audit.jsonl", pieces[2]), second, oldest]


def test_the_oldest_file_comes_first(rotated: list[Path]) -> None:
    """Whatever the order in which they are named; and each line knows its place."""
    for paths in (rotated, rotated[::-1], [rotated[1], rotated[2], rotated[0]]):
        log = Log(paths, by_chain)
        assert [b'"seq":%d,' % n in line for n, line in enumerate(log, 1)] == [True] * 6
        assert log.count == 6
        assert [log.place(n) for n in (1, 2, 3, 6)] == [
            (rotated[2], 1),
            (rotated[2], 2),
            (rotated[1], 1),
            (rotated[0], 2),
        ]


def torn(tmp_path: Path) -> list[Path]:
    """Four files, oldest first: a full disk left nothing but a part of a line in the middle two."""
    sink = FakeSink()
    out = LineWriter(sink, LogEnd(), lambda: START)
    for number, room in enumerate((900, 60, 300, None)):
        sink.room, sink.moved = room, number > 0
        out.put([of_event(START + number, Event(LOGIN, "production"))] * 3)
        with contextlib.suppress(OSError):
            while out.waiting:
                out.write()
    pieces = enumerate((*sink.files, sink.data))
    paths = [file(tmp_path / f"audit.jsonl.{4 - number}", data) for number, data in pieces]
    for age, path in enumerate(reversed(paths)):
        os.utime(path, (START - age, START - age))
    return paths


def test_files_with_no_more_than_a_torn_line(tmp_path: Path) -> None:
    """They have no record that says where they belong; the next file's first one does."""
    paths = torn(tmp_path)
    assert [path.read_bytes().count(b"\n") for path in paths[:3]] == [2, 0, 0]
    for order in itertools.permutations(paths):
        assert by_chain(order) == paths
    found = verification(Log(paths, by_chain))
    assert (found.tampering, found.chains) == (0, 1)


def test_a_torn_line_that_belongs_nowhere(tmp_path: Path) -> None:
    """Its neighbours are gone: it comes last, and is no more than a note."""
    oldest, piece, other, newest = torn(tmp_path)
    for paths in ([piece, newest], [piece, oldest], [newest, other, piece]):
        assert by_chain(paths)[0] in (oldest, newest)
        assert verification(Log(paths, by_chain)).tampering == 0


def test_a_torn_line_of_another_log(tmp_path: Path) -> None:
    """Where one is missing between two files, another does not stand in for it."""
    oldest, piece, other, newest = torn(tmp_path)
    file(piece, piece.read_bytes()[:-1])
    assert verification(Log([oldest, piece, other, newest], by_chain)).tampering > 0


def test_lines_behind_a_torn_one_count(tmp_path: Path) -> None:
    """Files that were put together have no newline between them."""
    lines = written(used(0), used(1))
    path = file(tmp_path / "audit.jsonl", lines[:60] + lines)
    assert count_usage(Log([path], by_chain), "upstream", Selection()).requests == 2
    assert read_own(Log([path], by_chain), Selection()).asked == 2
    found = verification(Log([path], by_chain))
    assert (found.tampering, found.notes, found.lines) == (0, 2, 2)


def test_what_can_be_read_once_comes_last(
    rotated: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Standard input, and a pipe that a shell's <(...) makes."""
    newest = rotated[0].read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(newest)))
    assert list(Log([STDIN, rotated[1]], by_chain))[2:] == newest.splitlines(keepends=True)
    packed = io.TextIOWrapper(io.BytesIO(gzip.compress(newest)))
    monkeypatch.setattr(sys, "stdin", packed)
    assert list(Log([STDIN], by_chain)) == newest.splitlines(keepends=True)
    assert not packed.closed
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(newest), daemon=True).start()
    assert list(Log([pipe, rotated[1]], by_chain))[2:] == newest.splitlines(keepends=True)


def test_what_cannot_be_read_is_named(rotated: list[Path], tmp_path: Path) -> None:
    """With the reason, and in one line."""
    cut = file(tmp_path / "cut.gz", rotated[2].read_bytes()[:-20])
    folder = tmp_path / "folder"
    folder.mkdir()
    for path, why in (
        (tmp_path / "missing", "no such file or directory"),
        (cut, "its compression is damaged"),
        (folder, "is a directory"),
    ):
        with pytest.raises(LogError) as caught:
            list(Log([path], by_chain))
        assert str(caught.value).startswith(f"{path}: {why}")


def test_a_file_without_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not fill the memory; the error says what it is not."""
    monkeypatch.setattr(files, "_LONGEST", 1 << 20)
    with pytest.raises(LogError, match="this is no audit log"):
        list(Log([file(tmp_path / "core", b"\0" * (2 << 20))], by_time))


def test_the_chain_is_the_order(tmp_path: Path) -> None:
    """Not the times: a request may be told long after; nor where a file begins with a torn line."""
    chain = Chain()
    first = written(happened(60, LOGIN), used(61), chain=chain)
    second = written(used(2), happened(70, LOGIN), chain=chain)
    third = written(used(1), chain=chain)
    paths = [
        file(tmp_path / "b", second),
        file(tmp_path / "c", third),
        file(tmp_path / "a", b'{"time":"2026-11-22T07:59' + b"\n" + first),
    ]
    assert [path.name for path in Log(paths, by_chain).paths] == ["a", "b", "c"]
    again = file(tmp_path / "d", written(used(90), chain=Chain()))  # a chain of its own
    assert [path.name for path in Log([again, *paths], by_chain).paths] == ["a", "b", "c", "d"]


def test_a_file_that_is_named_twice(tmp_path: Path) -> None:
    """It would be counted twice."""
    one = file(tmp_path / "a", written(used(1)))
    link = tmp_path / "link"
    link.symlink_to(one)
    with pytest.raises(LogError, match="link: is named twice"):
        Log([one, link], by_chain)
