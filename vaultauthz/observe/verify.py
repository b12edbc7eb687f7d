"""Reads an audit log and says where its chain does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from vaultauthz.observe.chain import Chain, digest
from vaultauthz.observe.record import place_of


class Kind(StrEnum):
    """What is wrong at a line, or only worth a note."""

    CHAIN = "chain"  # the hash does not fit: edited, removed, moved or put in before here
    SEQUENCE = "sequence"  # the hash fits, the number does not: not written by us
    UNREADABLE = "unreadable"  # no record, and the next one does not vouch for it
    TORN = "torn"  # the process was killed in the middle of it; the chain goes on
    RESTARTED = "restarted"  # a chain begins anew, as standard output's does at each start
    LATE_START = "late start"  # the lines before are in an older file, or gone


_NOTES = frozenset({Kind.TORN, Kind.RESTARTED, Kind.LATE_START})


@dataclass(frozen=True, slots=True)
class Break:
    """Something to tell about line number ``line``, which counts from 1."""

    line: int
    kind: Kind
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
    return Verifier(after).read(lines)


class Verifier:
    """``verify``, and what else shows on the way.

    ``seal`` is the place of one line, as ``place`` was when it was the last; ``sealed`` becomes
    true when that line goes by.
    """

    def __init__(self, after: Chain | None = None, seal: Chain | None = None) -> None:
        self.first = self.last = b""  # the records
        self.sealed = False
        self._seal = seal
        self._seq = after.seq if after else 0
        self._before = after.prev if after else ""
        self._anchored = after is not None
        self._hash = sha256()  # from the start of the last record on, newlines between
        self._begun = False
        self._pieces: list[int] = []  # numbers of the lines since it, which are no records

    def read(self, lines: Iterable[bytes]) -> Iterator[Break]:
        """Every break in ``lines``, once."""
        for number, raw in enumerate(lines, 1):
            text = raw.removesuffix(b"\n")
            place = place_of(text)
            if place is None:
                self._pieces.append(number)
                self._go_on(text)
                continue
            yield from self._record(number, *place)
            self._seq, self._anchored = place[0], True
            self._pieces.clear()
            self._hash, self._begun = sha256(text), True
            self.first, self.last = self.first or text, text
            if self._seal and self._seal.seq == self._seq:
                self.sealed = self.sealed or self._seal.prev == self._hash.hexdigest()
        yield from self._all_pieces(Kind.TORN)

    @property
    def place(self) -> Chain:
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
            yield from self._all_pieces(Kind.TORN)
            if seq != self._seq + 1:
                yield Break(number, Kind.SEQUENCE, f"number {seq} follows {self._seq}")
        elif seq == 1 and not prev:
            yield from self._all_pieces(Kind.TORN)
            yield Break(number, Kind.RESTARTED, f"a new chain begins after number {self._seq}")
        elif not self._anchored and not self._pieces:
            yield Break(number, Kind.LATE_START, f"the first line here is number {seq}")
        else:
            yield from self._all_pieces(Kind.UNREADABLE)
            yield Break(number, Kind.CHAIN, self._guess(seq))

    def _guess(self, seq: int) -> str:
        if seq == self._seq + 1:
            return f"the line before number {seq} is not the one that was written"
        if seq > self._seq + 1:
            return f"numbers {self._seq + 1} to {seq - 1} are missing"
        return f"number {seq} follows {self._seq}: moved, repeated or put in"

    def _all_pieces(self, kind: Kind) -> Iterator[Break]:
        detail = "an unfinished line" if kind is Kind.TORN else "not an audit record"
        return (Break(number, kind, detail) for number in tuple(self._pieces))
