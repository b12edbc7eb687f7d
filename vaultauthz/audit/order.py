"""Which of a log's files comes first.

Their names do not say it: a shell sorts audit.jsonl before audit.jsonl.1, and both before
audit.jsonl.10. Nor do the times of our lines, since one about a request has the request's
time, which an Envoy may tell much later. What says it is the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from vaultauthz.audit.files import line_of, opened, record_of
from vaultauthz.observe.chain import TAIL_BYTES, NotOursError, resume
from vaultauthz.observe.record import place_of

_LOOKED_AT: Final = 100  # lines until a record; before it are torn ones at most
_AT_ONCE: Final = 1 << 20


def by_chain(paths: Sequence[Path]) -> list[Path]:
    """Ours: each file after the one whose last hash it begins with; otherwise by time."""
    if len(paths) < 2:
        return list(paths)
    ends = sorted((_ends(path) for path in paths), key=lambda one: one.time)
    after = {one.needs: one for one in ends if one.needs}  # by the hash that leads to it
    followed = after.keys() & {one.leads_to for one in ends}
    ordered: list[_Ends] = []
    for first in ends:
        one: _Ends | None = first if first.needs not in followed else None
        while one and one not in ordered:
            ordered.append(one)
            one = after.get(one.leads_to)
    return [one.path for one in (*ordered, *(one for one in ends if one not in ordered))]


def by_time(paths: Sequence[Path]) -> list[Path]:
    """Vault's: by the time in the first line."""
    return sorted(paths, key=lambda path: _head(path)[0])


@dataclass(frozen=True, slots=True)
class _Ends:
    """Where a file's chain begins and ends: the hash in its first record, and that for the next file's."""

    path: Path
    time: str
    needs: str
    leads_to: str


def _ends(path: Path) -> _Ends:
    time, needs = _head(path)
    with opened(path) as file:
        tail, whole = _tail(file)
    try:
        leads_to = resume(tail, whole=whole).prev
    except NotOursError:
        leads_to = ""
    return _Ends(path, time, needs, leads_to)


def _head(path: Path) -> tuple[str, str]:
    """Time and hash of the first record; "" where there is none, which the reading will tell."""
    with opened(path) as file:
        for _ in range(_LOOKED_AT):
            line = line_of(file, path)
            record = record_of(line) if line else None
            if record:
                time = record.get("time")
                return (time if isinstance(time, str) else ""), (place_of(line) or (0, ""))[1]
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
