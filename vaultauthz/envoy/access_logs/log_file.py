"""One file of the log, read in whole lines, and how far: kept beside it through a restart.

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
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

# Bytes by which a file is known again: more than the longest line, because the id and the time
# of a request stand behind texts that a client chooses.
OPENING: Final = 128 * 1024
SUFFIX: Final = ".position"
_NEW: Final = ".new"
_LARGEST: Final = 4096  # bytes of the file that keeps it
CHUNK: Final = 256 * 1024  # bytes that are read at once
LONGEST: Final = 128 * 1024  # bytes of a line; as printed, none has more than 50 KB


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
        with _path_of(log).open("rb") as file:
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
    path = _path_of(log)
    new = path.with_name(path.name + _NEW)
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
    new.replace(path)


def _path_of(log: Path) -> Path:
    return log.with_name(log.name + SUFFIX)


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines without their ends; ``too_long`` were left out."""

    lines: tuple[bytes, ...]
    too_long: int = 0

    def __bool__(self) -> bool:
        """Whether there was something."""
        return bool(self.lines or self.too_long)


class OpenLog:
    """A file, open for reading from ``offset`` on."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self.offset = offset  # of what was handed out
        self._opening = os.pread(fd, min(OPENING, offset), 0)
        self._begins: Position | None = None  # some position in it, for the digest
        self._within = False  # in a line that is too long
        self._id = _identity(os.fstat(fd))

    @classmethod
    def at(cls, path: Path, offset: int = 0) -> Self:
        """Open the file at ``path``. Raises OSError, also for what is no regular file."""
        # A pipe would keep us waiting for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return cls(fd, offset)
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")

    @property
    def position(self) -> Position | None:
        """How far it is read; None at its start."""
        if not self.offset:
            return None
        if self._begins is None or self._begins.length != len(self._opening):
            self._begins = Position.of(self.offset, self._opening)
        return replace(self._begins, offset=self.offset)

    @property
    def size(self) -> int:
        """Its size in bytes, now."""
        return os.fstat(self._fd).st_size

    @property
    def written_at(self) -> int:
        """When it was last written, in ns since 1970."""
        return os.fstat(self._fd).st_mtime_ns

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` leads to it; also when it leads nowhere. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            return _identity(path.stat()) == self._id
        return True

    def begins_as_before(self) -> bool:
        """Whether what was read is still there: not when it was emptied, and perhaps filled again."""
        same = os.pread(self._fd, len(self._opening), 0) == self._opening
        return same and self.size >= self.offset

    def is_of(self, position: Position) -> bool:
        """Whether it is the file that this is a position in, or a copy of it."""
        return position.is_in(os.pread(self._fd, OPENING, 0))

    def read(self) -> Lines:
        """The next whole lines, none at its end. Raises OSError."""
        chunk = os.pread(self._fd, CHUNK, self.offset)
        end = chunk.rfind(b"\n") + 1
        if end:
            return self._taken(chunk[:end])
        if len(chunk) < CHUNK:
            return Lines(())
        # Not a line, however it goes on: to its end it is passed over.
        first, self._within = not self._within, True
        self._advance(len(chunk))
        return Lines((), int(first))

    def rest(self) -> Lines:
        """What stands behind the last line's end, if nobody will write on. Raises OSError."""
        chunk = os.pread(self._fd, CHUNK, self.offset)
        return self._taken(chunk) if chunk else Lines(())

    def _taken(self, data: bytes) -> Lines:
        lines = data.split(b"\n")
        if self._within:
            del lines[0]
            self._within = False
        self._advance(len(data))
        short = tuple(line for line in lines if line and len(line) <= LONGEST)
        return Lines(short, sum(len(line) > LONGEST for line in lines))

    def _advance(self, count: int) -> None:
        self.offset += count
        if len(self._opening) < OPENING:
            self._opening = os.pread(self._fd, min(OPENING, self.offset), 0)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
