"""What ``vaultauthz audit join`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vaultauthz.audit.files import text_of
from vaultauthz.audit.joined import Joined, Row
from vaultauthz.audit.ours import MOST_REQUESTS, Ours
from vaultauthz.audit.reported import NOBODY, counted, short
from vaultauthz.audit.vault_log import Call
from vaultauthz.observe.record import KEYS, REQUEST_ALLOWED
from vaultauthz.terminal import Told, columns

_FINDINGS: Final = 20  # that are shown to people
_HEADS: Final = (
    *("CREDENTIAL", "UPSTREAM", "USED", "ISSUED", "TO", "ENDED"),
    *("CALLERS", "LAST USED", "STAGE", "VAULT REQUEST"),
)


def tell(ours: Ours, found: Joined, out: Told, *, whole: bool) -> int:
    """Print it; ``whole`` for each request by itself. The exit status: 1 when there is a finding."""
    if out.as_json:
        out.json(_as_json(ours, found))
        return 1 if found.findings else 0
    if whole:
        _tell_requests(ours, found, out)
    elif found.rows:
        out.lines(*columns([list(_HEADS), *map(_cells, found.rows)], out.width, least=5))
    else:
        out.lines("no credential in there that fits")
    _tell_sums(ours, found, out)
    return 1 if found.findings else 0


def _cells(row: Row) -> list[str]:
    one = row.credential
    stage, upstream, name = one.place
    return [
        name,
        upstream,
        f"{one.uses:,}",
        short(one.issued.time),
        _holder(row.call) or NOBODY,
        short(row.ended),
        f"{len(one.callers):,}",
        short(one.last),
        stage,
        one.issued.vault_request or NOBODY,
    ]


def _holder(call: Call | None) -> str:
    """To whom Vault issued it: by which method, as which role."""
    if call is None:
        return ""
    named = call.display_name == call.role or call.display_name.endswith(f"-{call.role}")
    return call.display_name if named or not call.role else f"{call.display_name} {call.role}"


def _tell_sums(ours: Ours, found: Joined, out: Told) -> None:
    whole = ", and neither lacks what the other has" if found.whole and not found.findings else ""
    out.lines("", f"{counted(found.matched, 'call')} to Vault in both logs{whole}")
    if found.outside:
        out.lines(f"{found.outside:,} more of a time that Vault's log does not cover")
    if ours.nameless:
        out.lines(f"{counted(ours.nameless, 'request')} with a credential that is not known")
    if ours.unreadable:
        out.lines(f"{counted(ours.unreadable, 'line')} no audit record: vaultauthz audit verify")
    for text in found.findings[:_FINDINGS]:
        out.lines(f"!! {text}")
    if len(found.findings) > _FINDINGS:
        out.lines(f"   … and {len(found.findings) - _FINDINGS:,} more (--json)")


def _tell_requests(ours: Ours, found: Joined, out: Told) -> None:
    """Each request: who, what, with which credential, and where that came from."""
    rows = {row.credential.place: row for row in found.rows}
    if not ours.requests:
        out.lines("no such request in there")
    for record in ours.requests:
        told = {key: _flat(text_of(record, key)) for key in KEYS}
        path = text_of(record, "path").replace(" ", "%20")
        out.lines(
            f"{told['time']}  {told['method']} {told['host']}{path}",
            f"  caller      {told['caller'] or 'nobody known'}, by {told['gateway'] or NOBODY}",
            f"  {told['decision'] or NOBODY:<10}  {_outcome(told)}",
        )
        if row := rows.get((told["stage"], told["upstream"], told["credential_id"])):
            out.lines(*_story(row, found.calls, told["time"]))
    if ours.asked > MOST_REQUESTS:
        out.lines(f"{ours.asked:,} have this id; the first {MOST_REQUESTS} are shown")


def _flat(text: str) -> str:
    """A client's text cannot be laid out like lines of ours."""
    return " ".join(text.split())


def _outcome(told: dict[str, str]) -> str:
    place = f"upstream {told['upstream'] or NOBODY}, stage {told['stage'] or NOBODY}"
    if told["event"] != REQUEST_ALLOWED:
        return f"{told['reason']}, {place}"
    return place + (f", answered {told['status']}" if told["status"] else "")


def _story(row: Row, calls: Mapping[str, Call], when: str) -> list[str]:
    one = row.credential
    issue = one.issued_for(when)
    lease = f", lease {issue.lease_id}" if issue.lease_id else ""
    by = f" by Vault's request {issue.vault_request}" if issue.vault_request else ""
    lines = [
        f"  credential  {one.place[2]}{lease}",
        f"  issued      {issue.time or 'before this log begins'}{by}",
    ]
    if call := calls.get(issue.vault_request):
        policies = ", ".join(call.policies) or NOBODY
        lines += [
            f"  Vault       {call.operation} {call.namespace}{call.path}, from {call.address}",
            f"  to          {_holder(call)}, policies {policies}, entity {call.entity or NOBODY}",
        ]
    if issue != one.issued:
        return [*lines, f"  read again  {one.issued.time}"]
    if one.renewed:
        lines.append(f"  renewed     {one.renewed} time{'s' * (one.renewed > 1)}")
    return [
        *lines,
        f"  ended       {f'{row.ended} ({row.end})' if row.ended else 'not in this log'}",
    ]


def _as_json(ours: Ours, found: Joined) -> dict[str, Any]:
    return {
        "credentials": [_row_as_json(row) for row in found.rows],
        "requests": ours.requests,
        "requests_asked": ours.asked,
        "matched": found.matched,
        "outside": found.outside,
        "whole": found.whole,
        "nameless": ours.nameless,
        "unreadable": ours.unreadable,
        "findings": found.findings,
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    one, call = row.credential, row.call
    stage, upstream, name = one.place
    return {
        "credential_id": name,
        "upstream": upstream,
        "stage": stage,
        "lease_id": one.issued.lease_id,
        "issued": one.issued.time,
        "renewed": one.renewed,
        "ended": row.ended,
        "end": row.end,
        "uses": one.uses,
        "callers": sorted(one.callers),
        "first_use": one.first,
        "last_use": one.last,
        "late_uses": one.late,
        "vault_request_id": one.issued.vault_request,
        "vault": None
        if call is None
        else {
            "time": call.time,
            "operation": call.operation,
            "path": call.namespace + call.path,
            "remote_address": call.address,
            "display_name": call.display_name,
            "role": call.role,
            "entity_id": call.entity,
            "policies": list(call.policies),
            "token_accessor": call.accessor,
        },
    }
