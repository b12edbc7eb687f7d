"""``vaultauthz audit verify``: whether lines were changed, removed, moved or put in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from vaultauthz.audit.files import Log, LogError, record_of
from vaultauthz.audit.usage import counted
from vaultauthz.observe.chain import Break, Chain, ChainVerifier
from vaultauthz.observe.record import position_of
from vaultauthz.terminal import Output

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
    number: int  # of the first line
    chains: int
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
    verifier = ChainVerifier(seal=seal)
    kept: list[Break] = []
    counts = {True: 0, False: 0}
    for found in verifier.read(log):
        counts[found.tampering] += 1
        if len(kept) < _KEPT:
            kept.append(found)
    if not verifier.last:
        raise log.nothing_of_ours()
    begins = position_of(verifier.first)
    if seal and begins and seal.seq < begins[0] and not verifier.sealed:
        raise LogError(
            f"{log.paths[0]}: begins with number {begins[0]}, and the seal is of number {seal.seq}: name "
            "the older files, too"
        )
    position = verifier.position
    return Verification(
        log,
        log.count,
        _time(verifier.first),
        _time(verifier.last),
        f"{position.seq}:{position.prev}",
        begins[0] if begins else 0,
        verifier.chains,
        tuple(kept),
        counts[True],
        counts[False],
        None if seal is None else verifier.sealed,
    )


def _time(line: bytes) -> str:
    return str((record_of(line) or {}).get("time", ""))


def print_verification(found: Verification, out: Output) -> int:
    """Print it; the exit status, 1 when it does not hold."""
    if out.as_json:
        out.json(_as_json(found))
    else:
        _print_lines(found, out)
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
        "chains": found.chains,
        "seal": found.seal,
        "sealed": found.sealed,
        "tampering": found.tampering,
        "notes": found.notes,
        "breaks": breaks,
    }


def _print_lines(found: Verification, out: Output) -> None:
    for one in found.breaks[:_SHOWN]:
        path, line = found.log.place(one.line)
        mark = "!!" if one.tampering else "--"
        out.lines(f"{mark} {path}:{line}  {one.kind}: {one.detail}")
    more = found.tampering + found.notes - _SHOWN
    if more > 0:
        out.lines(f"   … and {more:,} more (--json)")
    read = f"{counted(found.lines, 'line')} in {counted(len(found.log.paths), 'file')}"
    out.lines(
        f"{read}, {found.begins} to {found.ends}",
        *_verdict(found),
        f"Seal: {found.seal}",
    )


def _verdict(found: Verification) -> list[str]:
    if found.tampering:
        return ["The chain does not hold; !! is what no crash or restart explains."]
    if found.sealed is False:
        return [
            "!! The sealed line is not in there: lines at the end were cut off, or written anew."
        ]
    if found.chains > 1:
        lines = [
            f"Each of the {found.chains} chains holds: no line before its last was changed or removed.",
            "What was cut off before a new chain began, or a whole chain, would not show: see -- above.",
        ]
    else:
        since = f"The chain holds from number {found.number} on"
        lines = [f"{since}: no line before the last was changed, removed, moved or put in."]
    if found.sealed is None:
        lines.append("Whether the end was cut off, only an earlier seal can tell: --seal")
    else:
        lines.append("The sealed line is in there.")
    return lines
