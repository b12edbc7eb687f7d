"""``vaultauthz leases``, ``rotate`` and ``revoke``: for people a table, for programs JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, Final, NamedTuple

from vaultauthz.admin.client import AdminClient, UnknownUpstreamError
from vaultauthz.core.certificate import date
from vaultauthz.terminal import Output, columns

Row = dict[str, Any]

_COLUMNS: Final = ("UPSTREAM", "STAGE", "STATE", "LEFT", "NEXT CALL", "CREDENTIAL")
PATIENCE: Final = 15.0  # seconds for which a wish's outcome is waited for
_LOOK: Final = 0.2  # seconds between two looks at it
_NAMED: Final = 10  # upstreams, in a sentence
_DONE: Final = {  # by what was asked, and whether there is a lease
    ("rotate", True): "replaced; the one before is revoked when requests on their way are done",
    ("rotate", False): "read again, and in use as Vault has it",
    ("revoke", True): "revoked at Vault; another credential is in use",
    (
        "revoke",
        False,
    ): "there is no lease to revoke; it was read again, and is in use as Vault has it",
}
_BELOW: Final[dict[str, Any]] = {
    "initial_indent": "  for ",
    "subsequent_indent": "      ",
    "break_on_hyphens": False,
}
_DOING: Final = {
    "rotate": ("rotating", "the present credential is used until the new one is there"),
    "revoke": ("revoking", "requests are answered 503 until there is another credential"),
}


def leases(client: AdminClient, out: Output) -> int:
    """Show every login and lease; status 1 when one has no credential, or one that is refused.

    Whether the server is ready is what itself says of that; if it is not, that is status 1, too.

    Raises:
        ClientError: the server cannot be asked.
    """
    rows, readiness = sorted(client.leases(), key=_order), client.readiness()
    lacking = [row for row in rows if not _has_credential(row)]
    if out.as_json:
        out.json(rows)
    else:
        out.lines(
            *table(rows, out.width),
            "",
            *_troubles(rows),
            *_certificates(client.certificates(), out.width),
            *_summary(rows, lacking),
            *_unready(readiness),
        )
    return 1 if lacking or any(map(_refused, rows)) or not readiness["ready"] else 0


def certificates(client: AdminClient, out: Output) -> int:
    """Show every certificate in use; status 1 when one has ended, or its file's next one is not taken.

    Raises:
        ClientError: the server cannot be asked.
    """
    found = client.certificates()
    if out.as_json:
        out.json(found)
    else:
        out.lines(*(_certificates(found, out.width) or ["no certificate is in use", ""])[:-1])
    return 1 if any(one["trouble"] or _ended(one) for one in found) else 0


def ask(
    client: AdminClient,
    action: str,
    upstream: str,
    stage: str | None,
    out: Output,
    *,
    wait: bool | None = False,
    reason: str = "",
) -> int:
    """Have a credential replaced (``rotate``) or ended (``revoke``); status 1 if unknown.

    ``wait``: until that is done at Vault, for ``PATIENCE`` seconds at most; status 1 when it is not
    done by then. None: on a terminal. ``reason``: why, for the audit log.

    Raises:
        ClientError: the server cannot be asked.
    """
    try:
        answer = client.ask(action, upstream, stage, reason)
    except UnknownUpstreamError:
        if out.as_json:
            out.json({"error": "unknown_upstream", "upstream": upstream, "stage": stage})
        else:
            sys.stderr.write(f"vaultauthz: {_unknown(client.leases(), upstream, stage)}\n")
        return 1
    stages = [str(name) for name in answer.get("stages", [])]
    if not out.as_json:
        doing, meanwhile = _DOING[action]
        out.lines(f"{doing} {upstream} in {', '.join(stages)}", meanwhile)
    if out.width is None if wait is None else not wait:
        outcomes = []
    else:
        outcomes = _waited(client, action, upstream, stages)
        answer["outcomes"] = [outcome._asdict() for outcome in outcomes]
    if out.as_json:
        out.json(answer)
    else:
        out.lines(*(f"{o.stage}: {o.said}" for o in outcomes))
    return 0 if all(outcome.done for outcome in outcomes) else 1


class Outcome(NamedTuple):
    """What has become of a wish in one stage, and if it is not ``done`` what will."""

    stage: str
    done: bool
    said: str


def outcome(action: str, stage: str, rows: Sequence[Row]) -> Outcome:
    """By the upstream's leases in that stage, as they stand now."""
    mine = [row for row in rows if row["stage"] == stage]
    if action == "revoke" and (waiting := sum(row.get("revoking", 0) for row in mine)):
        why = next(
            (row["revoke_error"] for row in mine if row.get("revoke_error")), "no answer yet"
        )
        leases = "lease" if waiting == 1 else f"{waiting} leases"
        return Outcome(
            stage,
            False,
            f"not revoked at Vault yet: {why}; no request gets it any more, and Vault is asked again until "
            f"the {leases} would have ended",
        )
    lacking = [row for row in mine if not _has_credential(row)]
    if lacking:
        revoked = "revoked at Vault, but " if action == "revoke" else ""
        return Outcome(
            stage,
            False,
            f"{revoked}there is no other credential yet: {_why(lacking)}; requests are answered 503 until then",
        )
    kept = [row for row in mine if row.get("wanted")] if action == "rotate" else []
    if kept:
        said = f"not replaced yet: {_why(kept)}; the present one is used on"
        return Outcome(stage, False, said)
    if action == "rotate" and (kept := [row for row in mine if row["failures"]]):
        said = f"not replaced: {kept[0]['last_error']}; the present one is used on"
        return Outcome(stage, False, said)
    return Outcome(stage, True, _DONE[action, any(row["lease_id"] for row in mine)])


def _why(rows: Sequence[Row]) -> str:
    """Why there is nothing new for these yet, and when Vault is asked next."""
    row = max(rows, key=lambda row: int(row["failures"]))
    again = f", asked again in {span(row['renew_in'])}" if row["renew_in"] is not None else ""
    return f"{row['last_error'] or 'no answer yet'}{again}"


def _waited(
    client: AdminClient, action: str, upstream: str, stages: Sequence[str]
) -> list[Outcome]:
    """The outcome in each stage, as soon as all are done or nobody wants to wait any more."""
    until = time.monotonic() + PATIENCE
    while True:
        rows = client.leases(upstream)
        found = [outcome(action, stage, rows) for stage in stages]
        if all(one.done for one in found) or time.monotonic() >= until:
            return found
        time.sleep(_LOOK)


def _unknown(rows: list[Row], upstream: str, stage: str | None) -> str:
    stages = sorted({str(row["stage"]) for row in rows if row["upstream"] == upstream})
    if stages:
        return f"{upstream} is not in stage {stage!r}; its stages: {', '.join(stages)}"
    names = sorted({str(row["upstream"]) for row in rows if row["upstream"]})
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"there is no upstream {upstream!r}; upstreams: {shown}"


def _order(row: Row) -> tuple[str, str, str]:
    """By stage, each stage's login first: what is wrong with it is wrong with all."""
    return str(row["stage"]), str(row["upstream"]), str(row.get("caller", ""))


def _has_credential(row: Row) -> bool:
    # A login has no credential_id, a static secret no lease.
    return bool(row["credential_id"] or row["lease_id"]) and bool(row.get("usable", True))


def _refused(row: Row) -> int:
    """How many times its service has refused it, without another answer since."""
    return int(row.get("refused", 0))


# --- the table ---


def span(seconds: float | None) -> str:
    """``3m12s``: the two largest units."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // part:02d}{part_name}"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def table(rows: Sequence[Row], width: int | None) -> list[str]:
    """The rows under their headings; in ``width`` columns, if need be with less in them."""
    # The credential goes first: leases --json has it.
    lines = columns([list(_COLUMNS), *(_cells(row, _name(row)) for row in rows)], width, least=4)
    if all(map(str.startswith, lines[1:], map(_name, rows))) or width is None:
        return lines
    # The callers below their leases, as two whose ends are cut look like one.
    heads, *lines = columns(
        [list(_COLUMNS), *(_cells(row, _upstream(row)) for row in rows)], width, least=4
    )
    below = (wrap(_whose(row), width, **_BELOW) for row in rows)
    return [
        heads,
        *(part for line, more in zip(lines, below, strict=True) for part in (line, *more)),
    ]


def _cells(row: Row, name: str) -> list[str]:
    left = span(row["seconds_left"]) or "no end" if _has_credential(row) else "-"
    return [
        name + (" *" if row.get("optional") else ""),
        str(row["stage"]),
        "refused" if _refused(row) else str(row["state"]),
        left,
        f"in {span(row['renew_in'])}" if row["renew_in"] is not None else "-",
        str(row["credential_id"]),
    ]


def _upstream(row: Row) -> str:
    return str(row["upstream"] or "(login)")


def _whose(row: Row) -> str:
    """Whose lease it is; "" for one that all callers share."""
    nobody = "" if row.get("shared", True) else "a request"  # of nobody that we know
    return str(row.get("caller") or nobody)


def _name(row: Row) -> str:
    whose = _whose(row)
    return f"{_upstream(row)} for {whose}" if whose else _upstream(row)


def _troubles(rows: Sequence[Row]) -> list[str]:
    """What Vault or a service last said no to, a line for each that has not worked since."""
    lines = []
    for row in rows:
        if row["failures"]:
            times = f" ({row['failures']} times in a row)" if row["failures"] > 1 else ""
            lines.append(f"! {_name(row)} in {row['stage']}: {row['last_error']}{times}")
        if count := _refused(row):
            times = f" ({count} times)" if count > 1 else ""
            since = f"for {span(row['refused_for'])} it has answered 401 to this credential{times}"
            lines.append(f"! {_name(row)} in {row['stage']}: {since}")
    return [*lines, ""] if lines else []


def _certificates(found: Sequence[Row], width: int | None) -> list[str]:
    """Their table, and a line for each whose file holds what is not taken; [] where there are none."""
    cells = [
        [one["name"], _left(one), _moment(one["not_after"]), one["file"] or "-"] for one in found
    ]
    if not cells:
        return []
    lines = columns([["CERTIFICATE", "LEFT", "ENDS", "FILE"], *cells], width, least=2)
    not_taken = [f"! {one['name']}: not taken: {one['trouble']}" for one in found if one["trouble"]]
    return [*lines, *not_taken, ""]


def _left(certificate: Row) -> str:
    return "ENDED" if _ended(certificate) else span(certificate["seconds_left"]) or "no end"


def _ended(certificate: Row) -> bool:
    return certificate["seconds_left"] is not None and certificate["seconds_left"] <= 0


def _moment(not_after: float | None) -> str:
    return "-" if not_after is None else date(not_after)


def _unready(readiness: Row) -> list[str]:
    """Why the server is not ready, as itself says."""
    if readiness["ready"]:
        return []
    said = [f"{key}: {value}" for key, value in readiness.items() if isinstance(value, str)]
    lacking = [w for w in readiness.get("waiting", []) if not w.get("optional")]
    names = ", ".join(f"{w['upstream']} ({w['stage']})" for w in lacking[:_NAMED])
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    if lacking:
        said.append(f"no credential for {names}{more}")
    return [f"not ready: {'; '.join(said) or 'each upstream has yet to have its credential'}"]


def _summary(rows: Sequence[Row], lacking: Sequence[Row]) -> list[str]:
    if lacking:
        has = "has" if len(lacking) == 1 else "have"
        lines = [f"{len(lacking)} of {len(rows)} {has} no credential"]
    else:
        lines = [f"all {len(rows)} have their credential"]
    if any(row.get("optional") for row in rows):
        lines.append("* optional: readiness does not wait for it")
    return lines
