"""Which of a log's files comes first.

Their names do not say it: a shell sorts audit.jsonl before audit.jsonl.1, and both before
audit.jsonl.10. Nor do the times of our lines, since one about a request has the request's
time, which an Envoy may tell much later. What says it is the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from vaultauthz.audit.files import line_of, line_of_ours, opened, record_of, text_of
from vaultauthz.observe.chain import TAIL_BYTES, Ending, NotOursError, digest, ending

_LOOKED_AT: Final = 100  # lines until a record; before it are torn ones at most
_MOST_TORN: Final = 16  # files in a row that have no more than torn lines
_AT_ONCE: Final = 1 << 20


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
        end = Ending()
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
