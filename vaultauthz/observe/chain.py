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

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from vaultauthz.observe.record import Entry, line, place_of

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
    return [text[:at], text[at:]] if at > 0 and place_of(text[at:]) else [text]


@dataclass(frozen=True, slots=True)
class Ending:
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


def ending(tail: bytes, *, whole: bool) -> Ending:
    """The end of a file from its last bytes; ``whole`` when they are all it has.

    Raises:
        NotOursError: nothing in ``tail`` is a record, nor the torn start of one.
    """
    if not tail:
        return Ending()
    is_open = not tail.endswith(b"\n")
    lines = tail.removesuffix(b"\n").split(b"\n")
    torn = len(lines[-1]) if is_open and not place_of(lines[-1]) else 0
    if not whole:
        del lines[0]  # begins somewhere before
    for at in range(len(lines) - 1, -1, -1):
        record = halves(lines[at])[-1]
        if place := place_of(record):
            return Ending(place[0], b"\n".join([record, *lines[at + 1 :]]), is_open, torn)
    if whole and all(may_be_torn(piece) for piece in lines):
        return Ending(0, b"\n".join(lines), is_open, torn)  # torn before its first line was out
    raise NotOursError("its last lines are no audit records; move the file away or name another")


def resume(tail: bytes, *, whole: bool) -> Chain:
    """The chain of a file from its last bytes; see ``ending``."""
    return ending(tail, whole=whole).chain
