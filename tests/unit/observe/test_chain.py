"""The chain: it goes on after restarts and crashes, and shows what was changed."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaultauthz.core.events import RENEWED, Access, Event
from vaultauthz.observe.chain import Break, BreakKind, Chain, NotOursError, digest, resume, verify
from vaultauthz.observe.record import Entry, of_access, of_event


def entry(number: int) -> Entry:
    """An entry that differs from the others."""
    return of_event(1.79e9 + number, Event(RENEWED, "production", f"upstream-{number}"))


def written(count: int, chain: Chain | None = None) -> list[bytes]:
    """Lines as the writer makes them, newlines included."""
    chain = chain or Chain()
    return [chain.link(entry(number)) for number in range(count)]


def kinds(breaks: list[Break]) -> list[tuple[int, BreakKind]]:
    """Where and what, without the words."""
    return [(found.line, found.kind) for found in breaks]


LINES = written(12)


def test_untouched_log() -> None:
    """A log as it was written has no break."""
    assert list(verify(LINES)) == []
    assert list(verify([])) == []


@given(st.integers(0, 10))
def test_removed_line(at: int) -> None:
    """Any line that is taken out shows, the last one apart."""
    found = list(verify(LINES[:at] + LINES[at + 1 :]))
    assert kinds(found) == [(at + 1, BreakKind.CHAIN if at else BreakKind.LATE_START)]
    assert found[0].tampering == bool(at)


@given(st.integers(0, 10), st.data())
def test_edited_line(at: int, data: st.DataObject) -> None:
    """Any changed byte in any line shows, the last line apart."""
    line = LINES[at]
    where = data.draw(st.integers(0, len(line) - 2))
    value = data.draw(st.integers(0, 255).filter(lambda v: v not in (line[where], 10)))
    edited = line[:where] + bytes([value]) + line[where + 1 :]
    assert any(found.tampering for found in verify([*LINES[:at], edited, *LINES[at + 1 :]]))


@given(st.permutations(range(12)))
def test_reordered_lines(order: list[int]) -> None:
    """Lines in another order show."""
    assume(order != sorted(order))
    assert any(found.tampering for found in verify([LINES[at] for at in order]))


@given(st.integers(1, 11), st.binary(max_size=60).filter(lambda text: b"\n" not in text))
def test_line_put_in(at: int, text: bytes) -> None:
    """A line that we did not write shows, be it a record or noise."""
    found = list(verify([*LINES[:at], text + b"\n", *LINES[at:]]))
    assert any(one.tampering for one in found)


def test_line_repeated() -> None:
    """A line that is there twice shows."""
    assert kinds(list(verify(LINES[:3] + LINES[2:]))) == [(4, BreakKind.CHAIN)]


def test_breaks_say_what_is_missing() -> None:
    """The detail counts the missing lines."""
    (found,) = verify(LINES[:3] + LINES[6:])
    assert found.detail == "numbers 4 to 6 are missing"


def test_forged_number() -> None:
    """A right hash with a wrong number shows: we never write that."""
    chain = Chain(1, digest(LINES[0].strip()))
    chain.seq = 5
    (found,) = verify([LINES[0], chain.link(entry(1))])
    assert (found.kind, found.tampering) == (BreakKind.SEQUENCE, True)


def test_cut_off_start_is_a_note() -> None:
    """A rotated log begins in an older file; with that file's end known it is whole."""
    assert kinds(list(verify(LINES[5:]))) == [(1, BreakKind.LATE_START)]
    end = resume(b"".join(LINES[:5]), whole=True)
    assert list(verify(LINES[5:], after=end)) == []


def test_wrong_anchor() -> None:
    """Lines that don't follow what was noted elsewhere show."""
    assert kinds(list(verify(LINES[5:], after=Chain(4, "ab")))) == [(1, BreakKind.CHAIN)]


def test_new_chain_is_a_note() -> None:
    """Standard output has a chain for each start."""
    later = [Chain().link(entry(20))]
    found = list(verify(LINES + later))
    assert kinds(found) == [(13, BreakKind.RESTARTED)]
    assert not found[0].tampering


def test_a_chain_does_not_begin_before_the_one_above() -> None:
    """The end of a log put before its beginning, or a log twice: each by itself would hold."""
    for lines in (LINES[8:] + LINES[:4], LINES + LINES):
        (_, found) = [one for one in verify(lines) if one.kind is not BreakKind.LATE_START]
        assert found.tampering
        assert "a time before that of the lines above" in found.detail
    request = Access("production", "db", 1.79e9 - 3600)
    chain = Chain()
    later = [chain.link(of_access(request)), chain.link(entry(20))]
    assert kinds(list(verify(LINES + later))) == [
        (13, BreakKind.RESTARTED)
    ]  # a request may be told late


@pytest.mark.parametrize("rubbish", [b"rubbish\n", b"\n", b'{"tim":1}\n'])
def test_only_a_crash_leaves_a_torn_line(rubbish: bytes) -> None:
    """Where nothing after it vouches for a piece, it must look like one."""
    assert kinds(list(verify([*LINES[:3], rubbish]))) == [(4, BreakKind.UNREADABLE)]
    assert kinds(list(verify([*LINES[:3], rubbish, Chain().link(entry(20))]))) == [
        (4, BreakKind.UNREADABLE),
        (5, BreakKind.RESTARTED),
    ]
    assert kinds(list(verify([*LINES[:3], LINES[3][:40]]))) == [(4, BreakKind.TORN)]


def test_a_file_that_begins_with_a_torn_line() -> None:
    """A crash in the first line after a rotation: the next start goes on from the piece."""
    piece = LINES[0][:50] + b"\n"
    chain = resume(piece, whole=True)
    lines = [*LINES, piece, chain.link(entry(20)), chain.link(entry(21))]
    found = list(verify(lines))
    assert kinds(found) == [(13, BreakKind.TORN), (14, BreakKind.RESTARTED)]


def test_many_pieces_are_counted() -> None:
    """They cost no memory, and the page stays short."""
    found = list(verify([LINES[0]] + [b"\n"] * 5000))
    assert len(found) == 1001
    assert found[-1].detail == "4000 more such lines"


@given(st.integers(0, 12), st.data())
def test_torn_line(whole: int, data: st.DataObject) -> None:
    """However a crash cuts the last line, the next start goes on and the log verifies."""
    torn = written(whole + 1)[whole]
    cut = data.draw(st.integers(1, len(torn) - 2))
    before = b"".join(LINES[:whole]) + torn[:cut]
    after = b"".join(written(3, resume(before, whole=True)))
    found = list(verify((before + b"\n" + after).splitlines(keepends=True)))
    assert kinds(found) == [(whole + 1, BreakKind.TORN)]
    assert not found[0].tampering


def test_torn_twice() -> None:
    """Two crashes in a row leave two pieces, and the chain goes on over both."""
    before = b"".join(LINES[:2]) + LINES[2][:20] + b"\n" + LINES[2][:9]
    after = b"".join(written(2, resume(before, whole=True)))
    found = list(verify((before + b"\n" + after).splitlines()))
    assert kinds(found) == [(3, BreakKind.TORN), (4, BreakKind.TORN)]


def test_torn_in_front_of_the_newline() -> None:
    """A whole record without its newline counts as written."""
    before = b"".join(LINES)[:-1]
    after = b"".join(written(2, resume(before, whole=True)))
    assert list(verify((before + b"\n" + after).splitlines())) == []


def test_torn_piece_cannot_hide_a_removal() -> None:
    """What stands before a torn piece is covered by the hash after it."""
    before = b"".join(LINES[:5]) + LINES[5][:30]
    after = written(2, resume(before, whole=True))
    lines = [*LINES[:4], LINES[5][:30] + b"\n", *after]
    assert kinds(list(verify(lines))) == [(5, BreakKind.UNREADABLE), (6, BreakKind.CHAIN)]


def test_unfinished_end() -> None:
    """A log that is being written may end in the middle of a line."""
    assert kinds(list(verify([*LINES, LINES[0][:40]]))) == [(13, BreakKind.TORN)]


def test_resume_from_the_end_of_a_long_file() -> None:
    """Only the tail is needed; the line that it begins in the middle of is not trusted."""
    tail = b"".join(LINES)[100:]
    chain = resume(tail, whole=False)
    assert (chain.seq, chain.prev) == (12, digest(LINES[-1].removesuffix(b"\n")))


@pytest.mark.parametrize("text", [b"hello\n", b"[section]\nkey = 1\n", b"\x7fELF\x00\n", b"{}\n"])
def test_file_of_something_else(text: bytes) -> None:
    """A file that is no audit log is refused instead of being written into."""
    with pytest.raises(NotOursError):
        resume(text, whole=True)


def test_file_without_any_line_in_its_tail() -> None:
    """A huge file without newlines is no audit log."""
    with pytest.raises(NotOursError):
        resume(b"x" * 1000, whole=False)
