"""The chain that ties each line of the audit log to the one before.

``prev`` of a line is the SHA-256, in hex, of the bytes from the start of the
last whole record before it up to (not including) the newline before it. As a
rule that is just the previous line. When a line was torn, by a crash or since the disk was full
when its file was moved away, the hash covers the last whole record, a newline and
the piece: the gap is visible, and nothing can be taken out beside it without
showing. The next line is an ``audit.torn``, which says so. The first line has
``prev`` "" and ``seq`` 1.

What this shows: a line edited, removed, moved or put in. What it cannot show
by itself: the end cut off or the last line edited, since no line follows that
would tell, and a log whose every hash was computed anew. Against those, send the
lines to another machine as they come, or note ``seq`` and ``prev`` there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from vaultauthz.observe.record import Entry, line, position_of

if TYPE_CHECKING:
    from hashlib import _Hash

# Enough for the longest line (14 values of 1024 characters, 12 bytes each when
# escaped) and a few torn ones.
TAIL_BYTES: Final = 512 * 1024
_OPENING: Final = b'{"time":'


class NotOursError(ValueError):
    """The file ends with something that is no audit record."""


class Chain:
    """Where the chain has got to: ``seq`` and hash of the last line, 0 and "" at its start."""

    __slots__ = ("prev", "seq")

    def __init__(self, seq: int = 0, prev: str = "") -> None:
        self.seq = seq
        self.prev = prev

    def link(self, entry: Entry) -> bytes:
        """The next line, newline included."""
        self.seq += 1
        text = line(entry, self.seq, self.prev)
        self.prev = sha256(text).hexdigest()
        return text + b"\n"


def digest(text: bytes) -> str:
    """The hash that the line after ``text`` carries; "" for nothing before it."""
    return sha256(text).hexdigest() if text else ""


def may_be_torn(piece: bytes) -> bool:
    """Whether a crash can have left it of a line of ours."""
    return piece[: len(_OPENING)] == _OPENING[: len(piece)]


def halves(text: bytes) -> list[bytes]:
    """``text``, or its two parts where a whole line stands behind a torn one in it.

    So it is read where no newline came between: from files that were put together, and from
    standard output that a killed process has left in the middle of a line.
    """
    at = text.rfind(_OPENING)
    return [text[:at], text[at:]] if at > 0 and position_of(text[at:]) else [text]


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a log ends: with record number ``seq``.

    The next line's hash covers ``text``: that record and the pieces after it. ``open`` when
    no newline stands behind it, ``torn`` the bytes of an unfinished line at the very end.
    """

    seq: int = 0
    text: bytes = b""
    open: bool = False
    torn: int = 0

    @property
    def chain(self) -> Chain:
        """The chain that goes on from here."""
        return Chain(self.seq, digest(self.text))


def ending(tail: bytes, *, whole: bool) -> LogEnd:
    """The end of a file from its last bytes; ``whole`` when they are all it has.

    Raises:
        NotOursError: nothing in ``tail`` is a record, nor the torn start of one.
    """
    if not tail:
        return LogEnd()
    is_open = not tail.endswith(b"\n")
    lines = tail.removesuffix(b"\n").split(b"\n")
    torn = len(lines[-1]) if is_open and not position_of(lines[-1]) else 0
    if not whole:
        del lines[0]  # begins somewhere before
    for at in range(len(lines) - 1, -1, -1):
        record = halves(lines[at])[-1]
        if position := position_of(record):
            return LogEnd(position[0], b"\n".join([record, *lines[at + 1 :]]), is_open, torn)
    if whole and all(may_be_torn(piece) for piece in lines):
        return LogEnd(0, b"\n".join(lines), is_open, torn)  # torn before its first line was out
    raise NotOursError("its last lines are no audit records; move the file away or name another")


def resume(tail: bytes, *, whole: bool) -> Chain:
    """The chain of a file from its last bytes; see ``ending``."""
    return ending(tail, whole=whole).chain


class BreakKind(StrEnum):
    """What is wrong at a line, or only worth a note."""

    CHAIN = "chain"  # the hash does not fit: edited, removed, moved or put in before here
    SEQUENCE = "sequence"  # the hash fits, the number does not: not written by us
    UNREADABLE = "unreadable"  # no record, and the next one does not vouch for it
    TORN = "torn"  # the process was killed in the middle of it, or the disk was full; the chain goes on
    RESTARTED = "restarted"  # a chain begins anew, as standard output's does at each start
    LATE_START = "late start"  # the lines before are in an older file, or gone


# Where a line of ours has its time, and how one about a request begins.
_TIME: Final = slice(9, 36)
_BEGINNING: Final = 100
_REQUEST: Final = b'"event":"request.'
_SLACK: Final = 5.0  # seconds by which a clock may have been set back
_MOST_PIECES: Final = 1000  # that are told one by one
_MOST_STARTS: Final = 16  # files in a row with nothing but a torn line
_NOTES: Final = frozenset({BreakKind.TORN, BreakKind.RESTARTED, BreakKind.LATE_START})


@dataclass(frozen=True, slots=True)
class Break:
    """Something to tell about line number ``line``, which counts from 1."""

    line: int
    kind: BreakKind
    detail: str

    @property
    def tampering(self) -> bool:
        """Whether no crash, restart or rotation of ours explains it."""
        return self.kind not in _NOTES


def verify(lines: Iterable[bytes], after: Chain | None = None) -> Iterator[Break]:
    """Every break in ``lines``, with or without their newlines, in order.

    For a rotated log pass the lines of all its files, oldest first. ``after``
    says where the chain was before the first line, when that is known from
    elsewhere; without it the first record is taken at its word.
    """
    return ChainVerifier(after).read(lines)


class ChainVerifier:
    """``verify``, and what else shows on the way.

    ``seal`` is the position of one line, as ``position`` was when it was the last; ``sealed`` becomes
    true when that line goes by. ``chains`` counts those that begin here.
    """

    def __init__(self, after: Chain | None = None, seal: Chain | None = None) -> None:
        self.first = self.last = b""  # the records
        self.sealed = False
        self.chains = 0
        self._seal = seal
        self._seq = after.seq if after else 0
        self._before = after.prev if after else ""
        self._anchored = after is not None
        self._hash = sha256()  # from the start of the last record on, newlines between
        self._begun = False
        self._pieces = _Pieces()
        self._latest = b""  # the time of the latest event
        self._restarted = 0  # the line where a chain began anew, until an event of it shows when

    def read(self, lines: Iterable[bytes]) -> Iterator[Break]:
        """Every break in ``lines``, once."""
        for number, raw in enumerate(lines, 1):
            text = raw.removesuffix(b"\n")
            if position := position_of(text):
                yield from self._take(number, text, position)
                continue
            for part in halves(text):
                yield from self._take(number, part, position_of(part))
        yield from self._pieces.at_an_end()

    def _take(self, number: int, text: bytes, position: tuple[int, str] | None) -> Iterator[Break]:
        if position is None:
            self._pieces.add(number, text)
            self._go_on(text)
            return
        yield from self._record(number, *position)
        yield from self._in_time(text)
        self._seq, self._anchored = position[0], True
        self._pieces = _Pieces()
        self._hash, self._begun = sha256(text), True
        self.first, self.last = self.first or text, text
        if self._seal and self._seal.seq == self._seq:
            self.sealed = self.sealed or self._seal.prev == self._hash.hexdigest()

    @property
    def position(self) -> Chain:
        """Number and hash of the last record."""
        return Chain(self._seq, digest(self.last))

    def _go_on(self, text: bytes) -> None:
        self._hash.update(b"\n" + text if self._begun else text)
        self._begun = self._begun or bool(text)

    @property
    def _expected(self) -> str:
        """What the next record must carry."""
        return self._hash.hexdigest() if self._begun else self._before

    def _record(self, number: int, seq: int, prev: str) -> Iterator[Break]:
        if prev == self._expected:
            yield from self._pieces.vouched()
            self.chains = self.chains or 1
            if seq != self._seq + 1:
                yield Break(number, BreakKind.SEQUENCE, f"number {seq} follows {self._seq}")
        elif seq == 1 and (not prev or self._pieces.may_begin(prev)):
            # With the pieces' hash: they are the torn start of a file that was begun then.
            yield from self._pieces.at_an_end()
            self.chains, self._restarted = self.chains + 1, number
            yield Break(number, BreakKind.RESTARTED, f"a new chain begins after number {self._seq}")
        elif not self._anchored and not self._pieces:
            self.chains = 1
            yield Break(number, BreakKind.LATE_START, f"the first line here is number {seq}")
        else:
            yield from self._pieces.unreadable()
            yield Break(number, BreakKind.CHAIN, self._guess(seq))

    def _in_time(self, text: bytes) -> Iterator[Break]:
        """A chain does not begin before the one that it follows: then they were put together so."""
        # A request's line has the time of the request, which the gateway may tell of much later.
        if _REQUEST in text[:_BEGINNING]:
            return
        when = text[_TIME]
        if self._restarted and self._latest and _seconds_before(when, self._latest) > _SLACK:
            detail = "a new chain begins with a time before that of the lines above it"
            yield Break(self._restarted, BreakKind.CHAIN, f"{detail}, or the clock was set back")
        self._restarted = 0
        self._latest = max(self._latest, when)

    def _guess(self, seq: int) -> str:
        if seq == self._seq + 1:
            return f"the line before number {seq} is not the one that was written"
        if seq > self._seq + 1:
            return f"numbers {self._seq + 1} to {seq - 1} are missing"
        return f"number {seq} follows {self._seq}: moved, repeated or put in"


class _Pieces:
    """Lines since the last record that are none."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, bool]] = []  # the number, and whether a crash can have left it
        self._more = 0
        # Of the pieces from each of the last ones on, as a file has it that begins with that.
        self._hashes: deque[_Hash] = deque(maxlen=_MOST_STARTS)

    def __bool__(self) -> bool:
        return bool(self._kept)

    def may_begin(self, prev: str) -> bool:
        """Whether they are what the first chain of a file found there."""
        return any(one.hexdigest() == prev for one in self._hashes)

    def add(self, number: int, text: bytes) -> None:
        for one in self._hashes:
            one.update(b"\n" + text)
        self._hashes.append(sha256(text))
        if len(self._kept) == _MOST_PIECES:
            self._more += 1
            return
        self._kept.append((number, bool(text) and may_be_torn(text)))

    def vouched(self) -> Iterator[Break]:
        """They were there when the next line was written."""
        return self._breaks(lambda _: BreakKind.TORN)

    def at_an_end(self) -> Iterator[Break]:
        """Nothing after them says that they belong there."""
        return self._breaks(lambda torn: BreakKind.TORN if torn else BreakKind.UNREADABLE)

    def unreadable(self) -> Iterator[Break]:
        return self._breaks(lambda _: BreakKind.UNREADABLE)

    def _breaks(self, kind: Callable[[bool], BreakKind]) -> Iterator[Break]:
        for number, torn in self._kept:
            found = kind(torn)
            yield Break(number, found, _DETAILS[found])
        if self._more:
            yield Break(self._kept[-1][0] + 1, kind(False), f"{self._more} more such lines")


_DETAILS: Final = {
    BreakKind.TORN: "a line that was not finished, or is being written",
    BreakKind.UNREADABLE: "not an audit record",
}


def _seconds_before(when: bytes, other: bytes) -> float:
    """By how many seconds it is earlier, 0.0 where that cannot be told."""
    try:
        times = [datetime.fromisoformat(one.decode()) for one in (when, other)]
        return (times[1] - times[0]).total_seconds()
    except (ValueError, TypeError):
        return 0.0
