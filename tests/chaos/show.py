"""What a run tells: the plan before it, and the table at its end, at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from tests.chaos.bounds import BOUNDS, KINDS, MODES, Bound, Cause
from tests.chaos.final import Last
from tests.chaos.plan import Step
from tests.chaos.record import Record
from tests.chaos.run import Seen
from tests.chaos.watch import grown

WIDTH: Final = 80


def failures(record: Record, seen: Seen, last: Last | None, *, mild: bool) -> list[str]:
    """What is wrong; nothing, and the run was good."""
    counts = record.found.counts
    found = [
        f"{counts['dead']} dead outside their bounds" if counts["dead"] else "",
        f"{counts['anothers']} of another's" if counts["anothers"] else "",
        f"{counts['refused']} refused while nothing was wrong"
        if counts["refused"] and not mild
        else "",
        *seen.failed,
        *seen.shown,
        "" if record.counts["allowed"] else "nothing was allowed at all",
    ]
    if last is None:
        return [*filter(None, found), "it did not come to its end"]
    found += [
        f"{len(last.users)} database users are left: {last.users}" if last.users else "",
        "" if last.chain_holds else f"the audit log's chain does not hold: {last.chain}",
        *(f"join: {finding}" for finding in last.findings),
        *last.logs,
        "" if last.stopped in (0, 1) else f"vaultauthz ended with {last.stopped} after SIGTERM",
    ]
    found += [
        f"memory of process {g.pid} grew from {g.begin:.1f} to {g.end:.1f} MiB in {g.lived:.0f} s"
        for g in grown(seen.samples)
        if not g.flat
    ]
    return [one for one in found if one]


def table(record: Record, seen: Seen, last: Last | None, wrong: list[str]) -> Iterable[str]:
    """The last lines."""
    counts, found = record.counts, record.found.counts
    rows: list[tuple[str, str]] = [
        ("mode", record.mode),
        ("requests", f"{counts['requests']:,}, {counts['uses']:,} of them reached a service"),
        ("allowed", f"{counts['allowed']:,}"),
        ("refused", _counted(record.refused)),
        ("  during faults", _counted(record.excused, 12)),
        ("  by this machine's stops", f"{counts['starved']}"),
        ("  while nothing was wrong", f"{found['refused']}"),
        ("dead inside their bounds", _inside(record)),
        ("ended on their way", _counted(record.crossed)),
        ("dead outside", f"{found['dead']}"),
        ("another's", f"{found['anothers']}"),
        ("database users made", f"{record.ledger.minted:,}"),
    ]
    if last:
        rows += [
            ("users left", f"{len(last.users)}, {last.users_gone:.1f} s after SIGTERM"),
            ("chain", ("holds: " if last.chain_holds else "BROKEN: ") + last.chain),
            ("join", f"{len(last.findings)} findings; {last.explained} more that a fault explains"),
            ("memory", _memory(seen)),
        ]
    yield ""
    for name, text in rows:
        lines = textwrap.wrap(text, WIDTH - 28) or [""]
        yield f"{name:<27} {lines[0]}"
        yield from (f"{'':<28}{line}" for line in lines[1:])
    yield ""
    yield from (line for one in wrong for line in textwrap.wrap(f"FAILED  {one}", WIDTH * 2))
    yield "bad" if wrong else "good"


def _inside(record: Record) -> str:
    parts = [
        f"{n} {cause} (≤ {record.longest[cause]:.1f} s)" for cause, n in record.inside.most_common()
    ]
    return ", ".join(parts) or "0"


def _counted(counter: Any, most: int = 20) -> str:
    return f"{sum(counter.values())}: " + ", ".join(
        f"{n} {name}" for name, n in counter.most_common(most)
    )


def _memory(seen: Seen) -> str:
    told = [f"{g.begin:.1f} to {g.end:.1f} MiB in {g.lived:.0f} s" for g in grown(seen.samples)]
    if told:
        return ", ".join(told)
    most = max((s.mib for s in seen.samples), default=0.0)
    return f"not judged, no process lived 150 s; {most:.1f} MiB at most"


def as_json(
    steps: Iterable[Step], record: Record, seen: Seen, last: Last | None, wrong: list[str]
) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "mode": record.mode,
        "good": not wrong,
        "failures": wrong,
        "plan": [asdict(step) for step in steps],
        "faults": [
            {"label": w.label, "begin": w.begin - record.began, "end": w.end - record.began}
            for w in record.windows
        ],
        "counts": dict(record.counts),
        "refused": dict(record.refused),
        "during": dict(record.excused),
        "inside": dict(record.inside),
        "longest_inside": record.longest,
        "found": asdict(record.found) | {"counts": dict(record.found.counts)},
        "memory": [asdict(g) for g in grown(seen.samples)],
        "last": asdict(last) if last else None,
        "stops": len(record.late),
    }


def bounds_table() -> list[str]:
    """BOUNDS as docs/chaos.md has it."""
    rows = ["| no good any more, since | `ext_authz` | `sds` | said in |", "|---|---|---|---|"]
    for cause in Cause:
        ours, theirs = (BOUNDS[mode][cause] for mode in MODES)
        rows.append(f"| {cause.value} | {_bound(ours)} | {_bound(theirs)} | {ours.source} |")
    return rows


def _bound(bound: Bound) -> str:
    parts = [f"{bound.share:g} of the TTL"] * bool(bound.share)
    parts += [f"{bound.seconds:g} s"] * bool(bound.seconds)
    hidden = f", not while {', '.join(sorted(bound.hidden))}" if bound.hidden else ""
    return (" + ".join(parts) or "never") + hidden


def kinds_table() -> list[str]:
    """KINDS as docs/chaos.md has it."""
    rows = ["| fault | what is done | s | refusals are no surprise for |", "|---|---|---|---|"]
    for name, kind in KINDS.items():
        shortest, longest = kind.seconds
        lasts = f"{shortest:g} to {longest:g}" if shortest != longest else "at once"
        recovers = f"{kind.recovers:g} s after it" if kind.recovers else "no time"
        rows.append(f"| `{name}` | {kind.does} | {lasts} | {recovers} |")
    return rows
