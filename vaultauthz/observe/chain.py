"""The chain that ties each line of the audit log to the one before.

``prev`` of a line is the SHA-256, in hex, of the bytes from the start of the
last whole record before it up to (not including) the newline before it. As a
rule that is just the previous line. When a crash has torn a line, the next
start ends the torn piece with a newline, and the hash covers the last whole
record, that newline and the piece: the gap is visible, and nothing can be
taken out beside it without showing. The first line has ``prev`` "" and ``seq`` 1.

What this shows: a line edited, removed, moved or put in. What it cannot show
by itself: the end cut off or the last line edited, since no line follows that
would tell, and a log whose every hash was computed anew. Against those, send the
lines to another machine as they come, or note ``seq`` and ``prev`` there.
"""

from __future__ import annotations

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


def resume(tail: bytes, *, whole: bool) -> Chain:
    """The chain of a file from its last bytes; ``whole`` when they are all it has.

    Raises:
        NotOursError: nothing in ``tail`` is a record, nor the torn start of one.
    """
    if not tail:
        return Chain()
    lines = tail.removesuffix(b"\n").split(b"\n")
    if not whole:
        del lines[0]  # begins somewhere before
    for at in range(len(lines) - 1, -1, -1):
        place = place_of(lines[at])
        if place:
            return Chain(place[0], digest(b"\n".join(lines[at:])))
    if whole and all(may_be_torn(piece) for piece in lines):
        return Chain(0, digest(b"\n".join(lines)))  # torn before its first line was out
    raise NotOursError("its last lines are no audit records; move the file away or name another")
