"""The files of a log, however they were rotated."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.audit.logs import file, happened, used, written
from vaultauthz.audit import files
from vaultauthz.audit.files import STDIN, Log, LogError
from vaultauthz.audit.order import by_chain, by_time
from vaultauthz.core.events import LOGIN
from vaultauthz.observe.chain import Chain


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
