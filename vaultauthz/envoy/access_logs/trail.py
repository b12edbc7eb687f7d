"""The log through its rotations: which file is read, from where, and which comes after it.

``tail -F``, and what that does not do: it goes on where it was before a restart, in whichever
file that is by then, and reads all the files in between. A file is left for the next one only
when somebody has written into that: Envoy writes into one at a time, and goes on with the old
one until it is told to open its logs anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vaultauthz.envoy.access_logs.log_file import BadPositionError, Lines, OpenLog, Position, load

# How a rotated file is named: access.jsonl.1, access.jsonl-20261122. Not compressed ones.
_ROTATED: Final = re.compile(r"[._-](\d[\dTZ:._-]*|old)\Z")
_MOST_FILES: Final = 16  # that are looked at in a row
_REMEMBERED: Final = 64  # files that were read to their end
_NOTHING: Final = Lines(())

log = logging.getLogger(__name__)


class Trail:
    """Hands out the lines of the log at ``path``, and of the files that it was rotated to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: OpenLog | None = None
        self._read: deque[Position] = deque(maxlen=_REMEMBERED)  # the ends of files
        self._warned: set[str] = set()  # of the troubles of now

    @property
    def position(self) -> Position | None:
        """How far it is handed out; None when nothing was, of the file that it is in."""
        return self._file.position if self._file else None

    @property
    def behind(self) -> int:
        """Bytes that wait to be handed out, of the file that it is in and of the latest."""
        waiting = 0
        with contextlib.suppress(OSError):
            if self._file is None:
                return self._path.stat().st_size
            waiting = max(0, self._file.size - self._file.offset)
            if not self._file.is_at(self._path):
                waiting += self._path.stat().st_size
        return waiting

    def take(self) -> Lines:
        """The next lines; none when there are none now. Trouble with files is logged, once."""
        try:
            # At once in the next file: what is not read may be emptied.
            looks = (self._look() for _ in range(_MOST_FILES))
            found = next((lines for lines in looks if lines is not None), _NOTHING)
        except OSError as exc:
            why = (exc.strerror or "it does not open").lower()
            self._say(f"cannot be read: {why}; checked again until it can")
            return _NOTHING
        if self._file:
            self._warned.clear()
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._file:
            self._file.close()
            self._file = None

    def _look(self) -> Lines | None:
        """The next lines of the file that it is in; None when it has gone on to another."""
        file = self._file = self._file or self._begun()
        if file is None:
            return _NOTHING
        if not file.begins_as_before():
            self._emptied(file)
            return None
        found = file.read()
        if found or file.is_at(self._path):
            return found
        after = self._after(file)
        # Looked at once more: what it was given before the next one was begun.
        if after is None or (found := file.read() or file.rest()):
            return found
        self._go_on(after)
        return None

    def _begun(self) -> OpenLog | None:
        """Where it was before a restart, or the start of the log; None while there is none."""
        kept = self._kept()
        if kept is None:
            return self._opened(self._path)
        position, when = kept
        if file := _fitting(self._path, position):
            return file
        for path in self._beside():
            if file := _fitting(path, position):
                return file
        self._say(
            "the file that was read before is gone (rotated and compressed, or removed); lines of "
            "it that were not read are lost. Keep the last rotated file as it is (delaycompress)"
        )
        missed = self._written_after(when, self._beside())
        return self._opened(missed or self._path)

    def _kept(self) -> tuple[Position, int] | None:
        try:
            return load(self._path)
        except (OSError, BadPositionError):
            self._say(
                "its .position cannot be used; it is read from its start, and no rotated file is"
            )
            return None

    def _opened(self, path: Path) -> OpenLog | None:
        try:
            file = OpenLog.at(path)
        except FileNotFoundError:
            self._say("is not there yet; Envoy makes it", logging.INFO)
            return None
        log.info("%s is read from its start", path)
        return file

    def _emptied(self, file: OpenLog) -> None:
        """Go on with the copy that was made before, if there is one, else at the start."""
        position = file.position
        copies = (_fitting(path, position) for path in self._beside()) if position else ()
        copy = next((found for found in copies if found), None)
        if copy is None:
            self._say("was emptied; lines that were not read are lost. Rotate it by renaming it")
        self._file = copy or self._opened(self._path)
        file.close()

    def _after(self, file: OpenLog) -> Path | None:
        """The file that was begun when this one was left; None while there is nothing in it."""
        read = [*self._read, *([file.position] if file.position else [])]
        rotated = [p for p in self._beside() if not file.is_at(p) and not _is_of_any(p, read)]
        latest = _stat(self._path)
        # Or at the same time: the system's clock for files goes by some milliseconds.
        between = self._written_after(file.written_at - 1, rotated)
        return between or (self._path if latest and latest.st_size else None)

    def _written_after(self, when: int, paths: Iterable[Path]) -> Path | None:
        """Of the files that have something in them, the one whose last write was first."""
        stats = ((path, _stat(path)) for path in paths)
        found = [
            (about.st_mtime_ns, path)
            for path, about in stats
            if about and about.st_size and about.st_mtime_ns > when
        ]
        return min(found)[1] if found else None

    def _beside(self) -> list[Path]:
        """The files that the log may have been rotated to."""
        name = self._path.name
        with os.scandir(self._path.parent) as entries:
            names = [entry.name for entry in entries]
        rotated = (n for n in names if n.startswith(name) and _ROTATED.match(n, len(name)))
        return [self._path.with_name(n) for n in rotated]

    def _go_on(self, path: Path) -> None:
        if file := self._opened(path):
            before, self._file = self._file, file
            if before and before.position:
                self._read.append(before.position)
            if before:
                before.close()

    def _say(self, trouble: str, level: int = logging.WARNING) -> None:
        if trouble not in self._warned:
            self._warned.add(trouble)
            log.log(level, "access log %s: %s", self._path, trouble)


def _stat(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except OSError:  # gone since it was listed
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _fitting(path: Path, position: Position) -> OpenLog | None:
    """The file at ``path``, opened at ``position``, if it is the one."""
    try:
        file = OpenLog.at(path, position.offset)
    except OSError:
        return None
    if file.is_of(position) and file.size >= position.offset:
        log.info("%s is read from byte %d", path, position.offset)
        return file
    file.close()
    return None


def _is_of_any(path: Path, positions: Iterable[Position]) -> bool:
    try:
        file = OpenLog.at(path)
    except OSError:
        return False
    try:
        return any(file.is_of(position) for position in positions)
    finally:
        file.close()
