"""``vaultauthz audit report``: who used what, how often and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from vaultauthz.audit.files import Log, Selection, line_of_ours
from vaultauthz.core import events
from vaultauthz.observe.record import REQUEST_ALLOWED, REQUEST_DENIED
from vaultauthz.terminal import Output, columns

# What the rows are about, and the keys of a line that tell one from another.
BY: Final = {
    "upstream": ("upstream", "stage"),
    "caller": ("caller", "upstream", "stage"),
    "credential": ("credential_id", "upstream", "stage"),
    "reason": ("reason", "upstream", "stage"),
}
_REQUESTS: Final = (REQUEST_ALLOWED, REQUEST_DENIED)
_ISSUED: Final = (events.ISSUED, events.ROTATED)
_WITH_ISSUED: Final = ("upstream", "credential")
NOBODY: Final = "-"  # in a table, for ""


@dataclass(slots=True)
class UsageRow:
    """The requests that have the keys in common; ``first`` and ``last`` are the times in their lines."""

    keys: tuple[str, ...]
    allowed: int = 0
    denied: int = 0
    first: str = ""
    last: str = ""
    callers: set[str] = field(default_factory=set)
    credentials: set[str] = field(default_factory=set)
    issued: int = 0  # credentials that Vault issued

    def add(self, record: dict[str, Any]) -> None:
        """Count a request."""
        if record["event"] == REQUEST_ALLOWED:
            self.allowed += 1
        else:
            self.denied += 1
        # As texts: each time in the log has the same form, and is in UTC.
        when = str(record.get("time", ""))
        self.first = min(self.first or when, when)
        self.last = max(self.last, when)
        if caller := str(record.get("caller", "")):
            self.callers.add(caller)
        if credential := str(record.get("credential_id", "")):
            self.credentials.add(credential)


@dataclass(slots=True)
class Usage:
    """What was counted, in rows about what ``by`` names."""

    by: str
    requests: int = 0
    unreadable: int = 0
    _rows: dict[tuple[str, ...], UsageRow] = field(default_factory=dict)

    @property
    def rows(self) -> list[UsageRow]:
        """Those with most requests first."""
        return sorted(self._rows.values(), key=lambda row: (-row.allowed - row.denied, row.keys))

    def add(self, record: dict[str, Any]) -> None:
        """Count a request or an issued credential; other lines count for nothing."""
        event = record.get("event")
        if event in _REQUESTS:
            self.requests += 1
            self._row(record).add(record)
        elif event in _ISSUED and self.by in _WITH_ISSUED:
            self._row(record).issued += 1

    def _row(self, record: dict[str, Any]) -> UsageRow:
        keys = tuple(str(record.get(name, "")) for name in BY[self.by])
        found = self._rows.get(keys)
        if found is None:
            found = self._rows[keys] = UsageRow(keys)
        return found


def count_usage(log: Log, by: str, selection: Selection) -> Usage:
    """Read it once. By reason, what has none is left out.

    Raises:
        LogError: a file cannot be read, or there is no line of ours.
    """
    made = Usage(by)
    for line in log:
        record = line_of_ours(line)
        if record is None:
            made.unreadable += 1
        elif selection.takes(record) and (by != "reason" or record.get("reason")):
            made.add(record)
    if made.unreadable == log.count:
        raise log.nothing_of_ours()
    return made


def print_usage(found: Usage, out: Output) -> None:
    """Print it."""
    if out.as_json:
        out.json(_as_json(found))
        return
    if not found.rows:
        out.lines("no request in there that fits")
    else:
        out.lines(*columns(_cells(found), out.width, least=4))
        out.lines("", counted(found.requests, "request"))
    if found.unreadable:
        out.lines(f"{counted(found.unreadable, 'line')} no audit record: vaultauthz audit verify")


def _as_json(found: Usage) -> dict[str, Any]:
    rows = [
        dict(zip(BY[found.by], row.keys, strict=True))
        | {
            "allowed": row.allowed,
            "denied": row.denied,
            "issued": row.issued,
            "first": row.first,
            "last": row.last,
            "callers": sorted(row.callers),
            "credentials": sorted(row.credentials),
        }
        for row in found.rows
    ]
    return {"requests": found.requests, "unreadable": found.unreadable, found.by + "s": rows}


def _cells(found: Usage) -> list[list[str]]:
    """The columns that say most come first: a narrow terminal drops the last."""
    about, *place_heads = BY[found.by]
    heads = [about, "allowed", "denied", "last used", *place_heads, "first used"]
    more = [name for name in ("callers", "credentials", "issued") if _fits(name, found.by)]
    cells = [[name.upper() for name in (*heads, *more)]]
    for row in found.rows:
        name, *where = (key or NOBODY for key in row.keys)
        counts = [f"{row.allowed:,}", f"{row.denied:,}"]
        amounts = {
            "callers": len(row.callers),
            "credentials": len(row.credentials),
            "issued": row.issued,
        }
        cells.append(
            [name, *counts, short(row.last), *where, short(row.first)]
            + [f"{amounts[one]:,}" for one in more]
        )
    return cells


def _fits(column: str, by: str) -> bool:
    """Whether such a column tells something of such rows."""
    if column == "issued":
        return by == "upstream"
    return by not in column


def counted(count: int, name: str) -> str:
    """As `1 line` and `2 lines`."""
    return f"{count:,} {name}{'s' * (count != 1)}"


def short(when: str) -> str:
    """A time of the log to the second, as 2026-11-22 08:30:00Z."""
    return f"{when[:10]} {when[11:19]}Z" if len(when) >= 19 else when or NOBODY
