"""Lines on their way to disks that are full, and files that are moved meanwhile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.observe.conftest import FakeSink
from vaultauthz.core.events import RENEWED, Event
from vaultauthz.observe.chain import BreakKind, Chain, LogEnd, ending, verify
from vaultauthz.observe.record import Entry, of_event
from vaultauthz.observe.sink import LineWriter

START = 1.79e9


def entry(number: int) -> Entry:
    """An entry that is known again by its upstream."""
    return of_event(START + number, Event(RENEWED, "production", str(number)))


def outgoing(
    sink: FakeSink, end: LogEnd | None = None, wall: Callable[[], float] = lambda: START
) -> LineWriter:
    """To ``sink``, whose log ends so."""
    return LineWriter(sink, end or LogEnd(), wall)


def parts(sink: FakeSink) -> list[list[bytes]]:
    """The lines of each of its files, oldest first."""
    return [file.splitlines(keepends=True) for file in (*sink.files, sink.data)]


def upstreams(lines: Iterable[bytes]) -> list[str]:
    """Those of whole lines, in order."""
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line)["upstream"])
    return [name for name in found if name]


def flat(files: list[list[bytes]]) -> list[bytes]:
    """All lines, one file after the other."""
    return [line for file in files for line in file]


# What happens to the disk before the next line: bytes of room, moved away, killed and begun again.
Trouble = tuple[int, bool, bool]
TROUBLES = st.lists(st.tuples(st.integers(0, 900), st.booleans(), st.booleans()), max_size=12)


def through(troubles: list[Trouble]) -> tuple[FakeSink, list[str]]:
    """A sink after those, and the upstreams whose lines may not be lost."""
    sink, times = FakeSink(), [START]
    kept: list[str] = []
    out = outgoing(sink, wall=lambda: times[-1])
    for number, (room, moved, killed) in enumerate(troubles):
        times.append(START + number)
        if killed:  # what was not written goes with it
            written = upstreams(flat(parts(sink)))
            kept = [name for name in kept if name in written]
            end = ending(sink.data, whole=True)
            if not sink.data:  # a new file: standard start of another chain
                end = LogEnd()
            out = outgoing(sink, end, lambda: times[-1])
        out.put([entry(number)])
        kept.append(str(number))
        sink.room, sink.moved = room, moved
        with contextlib.suppress(OSError):
            while out.waiting:
                out.write()
    sink.room = None
    out.put([entry(99)])
    while out.waiting:
        out.write()
    return sink, [*kept, "99"]


@given(TROUBLES)
def test_no_trouble_of_ours_is_tampering(troubles: list[Trouble]) -> None:
    """However often the disk is full, files move and processes die: no line twice, and no alarm."""
    sink, kept = through(troubles)
    lines = flat(parts(sink))
    assert [found for found in verify(lines) if found.tampering] == []
    assert upstreams(lines) == kept


@given(TROUBLES, st.data())
def test_tampering_shows_through_the_trouble(troubles: list[Trouble], data: st.DataObject) -> None:
    """A whole line that is taken out between two lines of one chain shows all the same."""
    sink, _ = through([(room, moved, False) for room, moved, _ in troubles])
    lines = flat(parts(sink))
    whole = [at for at, line in enumerate(lines) if line.endswith(b"\n")][1:-1]
    if whole:
        del lines[data.draw(st.sampled_from(whole))]
        assert any(found.tampering for found in verify(lines))


@given(st.lists(st.tuples(st.integers(0, 900), st.booleans()), max_size=12))
def test_files_that_were_put_together(troubles: list[tuple[int, bool]]) -> None:
    """`cat` of them leaves no newline behind a torn line; it reads the same."""
    sink, kept = through([(room, moved, False) for room, moved in troubles])
    # Where one begins and the next ends cannot be told of two torn ones in a row.
    assume(all(len(file) > 1 for file in parts(sink) if file and not file[-1].endswith(b"\n")))
    lines = flat(parts(sink))
    together = b"".join(lines).splitlines(keepends=True)
    assert [one for one in verify(together) if one.tampering] == []
    assert upstreams(part for line in together for part in _halves(line)) == kept


def _halves(line: bytes) -> list[bytes]:
    at = line.rfind(b'{"time":')
    return [line[:at], line[at:]] if at > 0 else [line]


def test_a_torn_line_is_told_of() -> None:
    """The line after it says how much of it there is, and the whole one comes behind."""
    sink = FakeSink()
    out = outgoing(sink)
    out.put([entry(0), entry(1)])
    sink.room = len(Chain().link(entry(0))) + 50
    with contextlib.suppress(OSError):
        while True:
            out.write()
    sink.room, sink.moved = None, True
    while out.waiting:
        out.write()
    (_, piece), later = parts(sink)
    told, whole = map(json.loads, later)
    assert len(piece) == 50
    assert (told["event"], told["seq"]) == ("audit.torn", 2)
    assert told["reason"].startswith("50 bytes of a line")
    assert (whole["upstream"], whole["seq"]) == ("1", 3)
    assert [one.kind for one in verify(flat(parts(sink)))] == [BreakKind.TORN]


def test_what_was_cut_while_the_disk_was_full_shows() -> None:
    """Whoever shortens the torn line, or makes one of a whole line, is found out."""
    sink = FakeSink()
    out = outgoing(sink)
    out.put([entry(0), entry(1), entry(2)])
    sink.room = 2 * len(Chain().link(entry(0))) + 250  # two lines and some of the third
    with contextlib.suppress(OSError):
        while True:
            out.write()
    sink.room, sink.moved = None, True
    while out.waiting:
        out.write()
    first, later = parts(sink)
    for forged in (
        [*first[:-1], first[-1][:-1]],
        first[:-1],
        [first[0], first[1][:60]],
        [first[0], first[-1]],
    ):
        assert any(found.tampering for found in verify(flat([forged, later])))


def test_the_torn_end_of_an_earlier_process() -> None:
    """It is ended, and told of; nothing is written before there is a line to write."""
    line = Chain().link(entry(0))
    end = ending(line + line[:40], whole=True)
    assert (end.seq, end.open, end.torn) == (1, True, 40)
    sink = FakeSink()
    sink.data = line + line[:40]
    out = outgoing(sink, end)
    assert sink.data == line + line[:40]
    while out.waiting:
        out.write()
    (lines,) = parts(sink)
    assert json.loads(lines[2])["event"] == "audit.torn"
    assert [(one.line, one.kind) for one in verify(lines)] == [(2, BreakKind.TORN)]


def test_the_torn_end_of_an_earlier_process_is_moved_away() -> None:
    """Then the new file has no empty line before its first."""
    line = Chain().link(entry(0))
    sink = FakeSink()
    sink.data = line + line[:40]
    out = outgoing(sink, ending(sink.data, whole=True))
    sink.moved = True
    while out.waiting:
        out.write()
    assert sink.data.startswith(b"{")
    assert [one.kind for one in verify(flat(parts(sink)))] == [BreakKind.TORN]


def test_what_is_given_up_is_counted() -> None:
    """Half a line that is out is not a line that is written."""
    sink = FakeSink()
    out = outgoing(sink)
    out.put([entry(0), entry(1)])
    sink.room = 50
    out.write()
    assert out.give_up() == 2
    assert out.waiting == 0
