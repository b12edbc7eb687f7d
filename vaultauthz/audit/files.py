"""Audit logs as files (rotated, compressed, standard input; ours and Vault's alike), and which lines are meant.

Which comes first, their names do not say: a shell sorts audit.jsonl before audit.jsonl.1, and both
before audit.jsonl.10. Nor do the times of our lines, since one about a request has the request's
time, which an Envoy may tell much later. What says it is the chain.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sys
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from vaultauthz.core.duration import length_of
from vaultauthz.observe.chain import TAIL_BYTES, LogEnd, NotOursError, digest, ending, halves

STDIN: Final = Path("-")
# Of one line. Vault writes whole answers, fingerprinted; ours are a few kilobytes.
_LONGEST: Final = 8 * 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
_LOOKED_AT: Final = 100  # lines until a record; before it are torn ones at most
_MOST_TORN: Final = 16  # files in a row that have no more than torn lines
_AT_ONCE: Final = 1 << 20


class LogError(Exception):
    """A log cannot be read; the message names it and what to do."""


Order = Callable[[Sequence[Path]], list[Path]]


class Log:
    """The lines of ``paths`` one after the other, in the ``order`` of what is in them.

    A file may be compressed by gzip. What can be read only once, as a pipe and ``-``, standard input,
    comes last.

    Raises:
        LogError: a file cannot be read, or is named twice.
    """

    def __init__(self, paths: Sequence[Path], order: Order) -> None:
        files = [path for path in paths if path.is_file()]
        for at, path in enumerate(files):
            if any(path.samefile(other) for other in files[:at]):
                raise LogError(f"{path}: is named twice")
        # The shell's audit.jsonl* puts the newest first, logrotate's numbers the newest before the oldest.
        self.paths = order(files) + [path for path in paths if not path.is_file()]
        self.count = 0  # of the lines that were read
        self._starts: list[int] = []  # how many lines came before each file

    def __iter__(self) -> Iterator[bytes]:
        """Each line, with its newline if it has one.

        Raises:
            LogError: a file cannot be read, or is no log.
        """
        self._starts, self.count = [], 0
        for path in self.paths:
            self._starts.append(self.count)
            with opened(path) as file:
                while line := line_of(file, path):
                    self.count += 1
                    yield line

    def nothing_of_ours(self) -> LogError:
        """The error for a log in which there is no line of ours."""
        return LogError(f"{', '.join(map(str, self.paths))}: no line of a vaultauthz audit log")

    def place(self, number: int) -> tuple[Path, int]:
        """The file of line ``number`` and its number there, both from 1, of those that were read."""
        at = bisect_right(self._starts, number - 1) - 1
        return self.paths[at], number - self._starts[at]


def record_of(line: bytes) -> dict[str, Any] | None:
    """The object in a line, or None where there is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def line_of_ours(line: bytes) -> dict[str, Any] | None:
    """The same of a line of our audit log, also behind a torn one; None for any other."""
    record = record_of(line) or record_of(halves(line)[-1])
    return record if record and type(record.get("seq")) is int and "event" in record else None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open it; what goes wrong in the block by the file's fault is a LogError too."""
    try:
        if path == STDIN:
            standard: io.BufferedReader[Any] = io.BufferedReader(cast("Any", sys.stdin.buffer))
            try:
                yield from _plain(standard)
            finally:
                standard.detach()  # it is not ours to close
            return
        with path.open("rb") as file:
            yield from _plain(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise LogError(f"{path}: its compression is damaged; take the file from a backup") from exc
    except OSError as exc:
        raise LogError(f"{path}: {(exc.strerror or 'it cannot be read').lower()}") from exc


def _plain(file: io.BufferedReader[Any]) -> Iterator[BinaryIO]:
    """The file, or what it holds."""
    if file.peek(2)[:2] != _GZIP:
        yield file
        return
    with gzip.open(file) as plain:
        yield cast("BinaryIO", plain)


def line_of(file: BinaryIO, path: Path) -> bytes:
    """The next line, with its newline; empty at the end.

    Raises:
        LogError: it is too long for one.
    """
    line = file.readline(_LONGEST + 1)
    if len(line) > _LONGEST:
        raise LogError(f"{path}: a line of more than {_LONGEST >> 20} MiB; this is no audit log")
    return line


def text_of(record: dict[str, Any], key: str) -> str:
    """The text there; "" for none, and for anything else that a damaged line may have."""
    found = record.get(key)
    return found if isinstance(found, str) else ""


def part_of(record: dict[str, Any], key: str) -> dict[str, Any]:
    """The object there; an empty one for none."""
    found = record.get(key)
    return found if isinstance(found, dict) else {}


def by_chain(paths: Sequence[Path]) -> list[Path]:
    """Ours: each file after the one whose last hash it begins with; otherwise by time.

    A file that has no more than torn lines goes where the chain has it, or to the end.
    """
    if len(paths) < 2:
        return list(paths)
    found = sorted((_ends(path) for path in paths), key=lambda one: (one.time, one.changed))
    ends, torn = [one for one in found if one.time], [one for one in found if not one.time]
    after = {one.needs: one for one in ends if one.needs}  # by the hash that leads to it
    ways = {one.path: _way(one, torn, after) for one in ends}
    followed = {way[-1].path for way in ways.values() if way}
    ordered: list[_Ends] = []
    for first in ends:
        way = [first] if first.path not in followed else []
        while way and way[-1] not in ordered:
            ordered += way
            way = ways[way[-1].path]
    return [one.path for one in (*ordered, *(one for one in found if one not in ordered))]


def _way(one: _Ends, torn: Sequence[_Ends], after: Mapping[str, _Ends]) -> list[_Ends]:
    """What comes after it: the file that the chain leads to, and torn ones before that."""
    if following := after.get(digest(one.text)):
        return [following]
    for start in range(len(torn)):
        text = one.text
        for end in range(start, min(len(torn), start + _MOST_TORN)):
            text += b"\n" + torn[end].text
            if following := after.get(digest(text)):
                return [*torn[start : end + 1], following]
    return []


def by_time(paths: Sequence[Path]) -> list[Path]:
    """Vault's: by the time in the first line."""
    return sorted(paths, key=lambda path: _head(path)[0])


@dataclass(frozen=True, slots=True)
class _Ends:
    """Where a file's chain begins and ends: the hash in its first record, and what the next file's is of."""

    path: Path
    time: str  # "" where there is no record
    needs: str
    text: bytes  # which the hash covers
    changed: int  # in ns since 1970, which compression leaves as it is


def _ends(path: Path) -> _Ends:
    time, needs = _head(path)
    with opened(path) as file:
        tail, whole = _tail(file)
    try:
        end = ending(tail, whole=whole)
    except NotOursError:
        end = LogEnd()
    return _Ends(path, time, needs, end.text, path.stat().st_mtime_ns)


def _head(path: Path) -> tuple[str, str]:
    """Time and hash of the first record; "" where there is none, which the reading will tell."""
    with opened(path) as file:
        for _ in range(_LOOKED_AT):
            line = line_of(file, path)
            record = (line_of_ours(line) or record_of(line)) if line else None
            if record:
                time = record.get("time")
                return (time if isinstance(time, str) else ""), text_of(record, "prev")
            if not line:
                break
    return "", ""


def _tail(file: BinaryIO) -> tuple[bytes, bool]:
    """The last bytes, and whether they are all."""
    kept, count = b"", 0
    if file.seekable() and not hasattr(file, "fileobj"):  # not one that is compressed
        file.seek(-min(TAIL_BYTES, file.seek(0, 2)), 2)
        count = file.tell()
    while data := file.read(_AT_ONCE):
        count += len(data)
        kept = (kept + data)[-TAIL_BYTES:]
    return kept, count <= TAIL_BYTES


class MomentError(ValueError):
    """A time that is none; the message says how one is written."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for; "" and None for anything. ``since`` counts itself, ``until`` does not."""

    upstream: str = ""
    stage: str = ""
    caller: str = ""
    credential: str = ""
    request: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def everything(self) -> bool:
        """Whether it names nothing in particular, at whatever time."""
        return not any((self.upstream, self.stage, self.caller, self.credential, self.request))

    def takes(self, record: dict[str, Any]) -> bool:
        """Whether this line of a request is meant."""
        named = (
            ("upstream", self.upstream),
            ("stage", self.stage),
            ("caller", self.caller),
            ("credential_id", self.credential),
            ("request_id", self.request),
        )
        if any(value and record.get(key) != value for key, value in named):
            return False
        return self.covers(record)

    def covers(self, record: dict[str, Any]) -> bool:
        """Whether the line is of the time that is meant."""
        if self.since is None and self.until is None:
            return True
        when = time_of(record)
        if when is None or (self.since and when < self.since):
            return False
        return self.until is None or when < self.until


def time_of(record: dict[str, Any]) -> datetime | None:
    """When it was written, in UTC; None where that cannot be read. Ours and Vault's alike."""
    try:
        return _aware(datetime.fromisoformat(record["time"]))
    except (KeyError, TypeError, ValueError):
        return None


def moment(text: str, now: datetime) -> datetime:
    """``24h`` (ago), a day or a time in ISO 8601, in UTC unless it says otherwise.

    Raises:
        WantedError: it is none of these.
    """
    try:
        ago = length_of(text)
        if ago is not None:
            return now - timedelta(seconds=ago)
        return _aware(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise MomentError(
            f"{text!r} is no time: write 24h or 7d (ago), 2026-11-22 or 2026-11-22T08:30:00Z"
        ) from None


def _aware(when: datetime) -> datetime:
    return when if when.tzinfo else when.replace(tzinfo=UTC)
