"""How far the log is read, kept beside it through a restart.

A file is known again by how it begins: by its first line at the least, which has a time and a
request's id. Its inode would not do, since that of a file which was removed is given to the
next one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Bytes by which a file is known again: more than the longest line, because the id and the time
# of a request stand behind texts that a client chooses.
OPENING: Final = 128 * 1024
SUFFIX: Final = ".position"
_NEW: Final = ".new"
_LARGEST: Final = 4096  # bytes of the file that keeps it


class BadPositionError(ValueError):
    """What is kept is no position."""


@dataclass(frozen=True, slots=True)
class Position:
    """``offset`` bytes are read of the file that begins with ``length`` bytes of this ``digest``."""

    offset: int
    length: int
    digest: str

    @classmethod
    def of(cls, offset: int, opening: bytes) -> Position:
        """The position in the file that begins with ``opening``."""
        return cls(offset, len(opening), hashlib.sha256(opening).hexdigest())

    def is_in(self, opening: bytes) -> bool:
        """Whether the file is the one that begins so."""
        begins = opening[: self.length]
        return len(begins) == self.length and hashlib.sha256(begins).hexdigest() == self.digest


def load(log: Path) -> tuple[Position, int] | None:
    """What is kept for ``log``, and when it was, in ns since 1970; None when nothing is.

    Raises:
        BadPositionError: it is not as ``save`` writes it.
        OSError: it cannot be read.
    """
    try:
        with _place(log).open("rb") as file:
            data, when = file.read(_LARGEST), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        kept = json.loads(data)
        offset, length, digest = kept["offset"], kept["opening_bytes"], kept["opening_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadPositionError from None
    numbers = type(offset) is int and type(length) is int
    if not numbers or not 0 < length <= min(offset, OPENING) or not isinstance(digest, str):
        raise BadPositionError
    return Position(offset, length, digest), when


def save(log: Path, position: Position) -> None:
    """Keep it for ``log``, readable by us alone. Raises OSError."""
    kept = {
        "offset": position.offset,
        "opening_bytes": position.length,
        "opening_sha256": position.digest,
    }
    place = _place(log)
    new = place.with_name(place.name + _NEW)
    # Not through a link that somebody else may have put there.
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        data = json.dumps(kept).encode() + b"\n"
        if os.write(fd, data) < len(data):  # what is there stays: half a position is none
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)
    new.replace(place)


def _place(log: Path) -> Path:
    return log.with_name(log.name + SUFFIX)
