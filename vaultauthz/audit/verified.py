"""``vaultauthz audit verify``: whether lines were changed, removed, moved or put in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from vaultauthz.audit.files import Log, record_of
from vaultauthz.observe.chain import Chain
from vaultauthz.observe.verify import Break, Verifier
from vaultauthz.terminal import Told

_KEPT: Final = 1000  # breaks; the others are counted
_SHOWN: Final = 20
_SEAL: Final = re.compile(r"([1-9]\d{0,18}):([0-9a-f]{64})\Z")


class SealError(ValueError):
    """A seal that is none; the message says how one looks."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading a log showed. ``seal`` is of its last line, ``sealed`` whether the given one was found."""

    log: Log
    lines: int
    begins: str
    ends: str
    seal: str
    breaks: tuple[Break, ...]
    tampering: int
    notes: int
    sealed: bool | None  # None where none was given

    @property
    def holds(self) -> bool:
        """Whether nothing but crashes, restarts and rotations shows."""
        return not self.tampering and self.sealed is not False


def seal_of(text: str) -> Chain:
    """From ``NUMBER:SHA256``, as it is printed.

    Raises:
        SealError: it is none.
    """
    found = _SEAL.match(text)
    if not found:
        raise SealError(f"{text!r} is no seal: it is NUMBER:SHA256, as `audit verify` prints it")
    return Chain(int(found[1]), found[2])


def verification(log: Log, seal: Chain | None = None) -> Verification:
    """Read it once.

    Raises:
        LogError: a file cannot be read, or there is no line of ours.
    """
    verifier = Verifier(seal=seal)
    kept: list[Break] = []
    counts = {True: 0, False: 0}
    for found in verifier.read(log):
        counts[found.tampering] += 1
        if len(kept) < _KEPT:
            kept.append(found)
    if not verifier.last:
        raise log.nothing_of_ours()
    place = verifier.place
    return Verification(
        log,
        log.count,
        _time(verifier.first),
        _time(verifier.last),
        f"{place.seq}:{place.prev}",
        tuple(kept),
        counts[True],
        counts[False],
        None if seal is None else verifier.sealed,
    )


def _time(line: bytes) -> str:
    return str((record_of(line) or {}).get("time", ""))


def tell(found: Verification, out: Told) -> int:
    """Print it; the exit status, 1 when it does not hold."""
    if out.as_json:
        out.json(_as_json(found))
    else:
        _tell(found, out)
    return 0 if found.holds else 1


def _as_json(found: Verification) -> dict[str, Any]:
    breaks = []
    for one in found.breaks:
        path, line = found.log.place(one.line)
        breaks.append(
            {
                "file": str(path),
                "line": line,
                "kind": str(one.kind),
                "detail": one.detail,
                "tampering": one.tampering,
            }
        )
    return {
        "holds": found.holds,
        "files": [str(path) for path in found.log.paths],
        "lines": found.lines,
        "begins": found.begins,
        "ends": found.ends,
        "seal": found.seal,
        "sealed": found.sealed,
        "tampering": found.tampering,
        "notes": found.notes,
        "breaks": breaks,
    }


def _tell(found: Verification, out: Told) -> None:
    for one in found.breaks[:_SHOWN]:
        path, line = found.log.place(one.line)
        mark = "!!" if one.tampering else "--"
        out.lines(f"{mark} {path}:{line}  {one.kind}: {one.detail}")
    more = found.tampering + found.notes - _SHOWN
    if more > 0:
        out.lines(f"   … and {more:,} more (--json)")
    files = len(found.log.paths)
    out.lines(
        f"{found.lines:,} lines in {files} file{'s' * (files > 1)}, {found.begins} to {found.ends}"
    )
    if found.sealed is False:
        out.lines("!! the sealed line is not in there: lines at the end were cut off or changed")
    if found.holds:
        out.lines("The chain holds: no line was changed, removed, moved or put in before the last.")
    else:
        out.lines("The chain does not hold; !! is what no crash or restart explains.")
    out.lines(f"Seal: {found.seal}")
    if found.sealed is None:
        out.lines(
            "Only somebody who kept an earlier seal elsewhere can tell whether the end was cut off: --seal"
        )
