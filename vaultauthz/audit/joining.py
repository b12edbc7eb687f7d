"""``vaultauthz audit join``: our log beside Vault's, and what only one of them knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vaultauthz.audit.files import Selection, text_of, time_of
from vaultauthz.audit.logs import (
    MOST_REQUESTS,
    CredentialUse,
    OwnCall,
    OwnLog,
    VaultCall,
    VaultLog,
    is_after,
)
from vaultauthz.audit.usage import NOBODY, counted, short
from vaultauthz.observe.record import KEYS, REQUEST_ALLOWED
from vaultauthz.terminal import Output, columns

# Seconds that an answer takes to become our line, while somebody copies the logs.
_ON_THE_WAY: Final = timedelta(seconds=2)
# Answers below here name a lease that is there already.
_OF_LEASES: Final = ("sys/leases/", "sys/renew", "sys/revoke", "auth/token/")
_EVER: Final = datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_FINDINGS: Final = 20  # that are shown to people
_HEADS: Final = (
    *("CREDENTIAL", "UPSTREAM", "USED", "ISSUED", "TO", "ENDED"),
    *("CALLERS", "LAST USED", "STAGE", "VAULT REQUEST"),
)


@dataclass(frozen=True, slots=True)
class JoinedCredential:
    """A credential and the call by which Vault issued it, None where Vault's log has none."""

    credential: CredentialUse
    call: VaultCall | None
    end: str  # the event, also that of its token
    ended: str


@dataclass(frozen=True, slots=True)
class JoinedLogs:
    """What the two logs tell together. ``findings`` are sentences; no crash or restart explains them."""

    rows: list[JoinedCredential]
    calls: dict[str, VaultCall]  # that both logs have, by Vault's request id
    findings: list[str]
    matched: int  # calls of ours, of the time that is wanted, that Vault's log has
    outside: int  # and those of a time that it does not cover
    whole: bool  # whether all was looked for, and so nothing is missing where nothing is found


@dataclass(frozen=True, slots=True)
class _UnknownIssue:
    """What a lease of somebody's leaves of its call."""

    accessor: str
    lease_id: str
    time: str
    id: str
    address: str


def join(own: OwnLog, vault: VaultLog, selection: Selection) -> JoinedLogs:
    """Read Vault's log once and put it beside ours.

    Raises:
        LogError: it cannot be read.
    """
    found: dict[str, VaultCall] = {}
    others: list[_UnknownIssue] = []
    for call in vault.calls():
        if call.id in own.calls:
            found[call.id] = call
        elif _is_unknown(call, own, selection):
            others.append(
                _UnknownIssue(call.accessor, call.lease_id, call.time, call.id, call.address)
            )
    ends = _token_ends(own, found)
    rows = [
        _row(one, found, ends) for one in own.credentials.values() if _is_selected(one, selection)
    ]
    rows.sort(key=lambda row: (row.credential.issued.time, row.credential.key))
    calls = {key: line for key, line in own.calls.items() if selection.covers({"time": line.time})}
    missing = {key: line for key, line in calls.items() if key not in found}
    outside = sum(not _covers(vault, line) for line in missing.values())
    matched = len(calls) - len(missing)
    findings = [
        *_strangers(calls, matched),
        *_missing(missing, vault, rows, selection),
        *_late(rows),
        *_unknown(own, found, others),
    ]
    whole = selection.everything and bool(matched) and not outside
    return JoinedLogs(rows, found, findings, matched, outside, whole)


def _is_unknown(call: VaultCall, own: OwnLog, selection: Selection) -> bool:
    """Whether it issued a lease that our log does not name at all."""
    return (
        selection.everything
        and bool(call.lease_id)
        and call.lease_id not in own.leases
        and not call.path.startswith(_OF_LEASES)
        and selection.covers({"time": call.time})
    )


def _is_selected(one: CredentialUse, selection: Selection) -> bool:
    """One that was used as is wanted; where nothing in particular is, also one that was only issued then."""
    if one.uses > 0 or selection.credential == one.key[2]:
        return True
    return selection.everything and selection.covers({"time": one.issued.time})


def _token_ends(own: OwnLog, found: dict[str, VaultCall]) -> dict[str, tuple[str, str]]:
    """Event and time of the end of each token that was ended, by its accessor as Vault's log has it."""
    return {
        made.accessor: own.tokens_ended[accessor]
        for login, accessor in own.logins.items()
        if (made := found.get(login)) and made.accessor and accessor in own.tokens_ended
    }


def _row(
    one: CredentialUse, found: dict[str, VaultCall], ends: dict[str, tuple[str, str]]
) -> JoinedCredential:
    call = found.get(one.issued.vault_request)
    end, ended = one.end, one.ended
    # Without a lease it outlives the token that it was read with.
    if call and not end and one.issued.lease_id:
        end, ended = ends.get(call.accessor, ("", ""))
    return JoinedCredential(one, call, end, ended)


def _covers(vault: VaultLog, line: OwnCall) -> bool:
    """Whether Vault's log should have it. Vault wrote its line before we did."""
    return _within(line.time, vault.begins, vault.ends, earlier=_ON_THE_WAY)


def _within(when: str, begins: str, ends: str, *, earlier: timedelta = timedelta()) -> bool:
    """Whether a log from ``begins`` to ``ends`` must have what the other has at that time.

    ``earlier``: by how much its own line may be before that.
    """
    then, first, last = (time_of({"time": one}) for one in (when, begins, ends))
    if then is None or first is None or last is None:
        return False
    if not _EVER[0] < min(then, first, last) <= max(then, first, last) < _EVER[1]:
        return False
    return first + earlier <= then < last - _ON_THE_WAY


def _strangers(calls: dict[str, OwnCall], matched: int) -> Iterator[str]:
    if calls and not matched:
        yield (
            f"none of our {len(calls):,} calls to Vault is in that log: it is another Vault's, or of "
            "another time"
        )


def _missing(
    missing: dict[str, OwnCall], vault: VaultLog, rows: list[JoinedCredential], selection: Selection
) -> Iterator[str]:
    asked = {issue.vault_request for row in rows for issue in row.credential.issues}
    for call, line in missing.items():
        if _covers(vault, line) and (selection.everything or call in asked):
            yield (
                f"Vault's log has no request {call}, by which ours has {line.event} of "
                f"{_of(line)} at {line.time}: an audit file of another node, or lines are missing"
            )


def _of(line: OwnCall) -> str:
    return f"{line.upstream or 'a login'}, stage {line.stage}"


def _late(rows: list[JoinedCredential]) -> Iterator[str]:
    for row in rows:
        one = row.credential
        stage, upstream, name = one.key
        of_token = bool(row.ended) and not one.ended and is_after(one.last, row.ended)
        if one.late or of_token:
            times = f"{one.late:,}" if one.late else "one or more"
            yield (
                f"credential {name} of {upstream}, stage {stage}: {times} used after its end "
                f"({row.end} at {row.ended}), last at {one.last}"
            )


def _unknown(
    own: OwnLog, found: dict[str, VaultCall], others: list[_UnknownIssue]
) -> Iterator[str]:
    """Leases that Vault issued to tokens of ours, and that we did not write down."""
    tokens = {call.accessor for call in found.values() if call.accessor}
    for one in others:
        if one.accessor in tokens and _within(one.time, own.begins, own.ends):
            yield (
                f"Vault issued lease {one.lease_id} to a token of ours at {one.time} (request "
                f"{one.id}, from {one.address or 'an unknown address'}), and our log does not have "
                "it: an answer that did not reach us, lines that are missing, or somebody else has "
                "the token"
            )


def print_joined(own: OwnLog, found: JoinedLogs, out: Output, *, whole: bool) -> int:
    """Print it; ``whole`` for each request by itself. The exit status: 1 when there is a finding."""
    if out.as_json:
        out.json(_as_json(own, found))
        return 1 if found.findings else 0
    if whole:
        _print_requests(own, found, out)
    elif found.rows:
        out.lines(*columns([list(_HEADS), *map(_cells, found.rows)], out.width, least=5))
    else:
        out.lines("no credential in there that fits")
    _print_sums(own, found, out)
    return 1 if found.findings else 0


def _cells(row: JoinedCredential) -> list[str]:
    one = row.credential
    stage, upstream, name = one.key
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


def _holder(call: VaultCall | None) -> str:
    """To whom Vault issued it: by which method, as which role."""
    if call is None:
        return ""
    named = call.display_name == call.role or call.display_name.endswith(f"-{call.role}")
    return call.display_name if named or not call.role else f"{call.display_name} {call.role}"


def _print_sums(own: OwnLog, found: JoinedLogs, out: Output) -> None:
    whole = ", and neither lacks what the other has" if found.whole and not found.findings else ""
    out.lines("", f"{counted(found.matched, 'call')} to Vault in both logs{whole}")
    if found.outside:
        out.lines(f"{found.outside:,} more of a time that Vault's log does not cover")
    if own.nameless:
        out.lines(f"{counted(own.nameless, 'request')} with a credential that is not known")
    if own.unreadable:
        out.lines(f"{counted(own.unreadable, 'line')} no audit record: vaultauthz audit verify")
    for text in found.findings[:_FINDINGS]:
        out.lines(f"!! {text}")
    if len(found.findings) > _FINDINGS:
        out.lines(f"   … and {len(found.findings) - _FINDINGS:,} more (--json)")


def _print_requests(own: OwnLog, found: JoinedLogs, out: Output) -> None:
    """Each request: who, what, with which credential, and where that came from."""
    rows = {row.credential.key: row for row in found.rows}
    if not own.requests:
        out.lines("no such request in there")
    for record in own.requests:
        shown = {key: _flat(text_of(record, key)) for key in KEYS}
        path = text_of(record, "path").replace(" ", "%20")
        out.lines(
            f"{shown['time']}  {shown['method']} {shown['host']}{path}",
            f"  caller      {shown['caller'] or 'nobody known'}, by {shown['gateway'] or NOBODY}",
            f"  {shown['decision'] or NOBODY:<10}  {_outcome(shown)}",
        )
        if row := rows.get((shown["stage"], shown["upstream"], shown["credential_id"])):
            out.lines(*_story(row, found.calls, shown["time"]))
    if own.asked > MOST_REQUESTS:
        out.lines(f"{own.asked:,} have this id; the first {MOST_REQUESTS} are shown")


def _flat(text: str) -> str:
    """A client's text cannot be laid out like lines of ours."""
    return " ".join(text.split())


def _outcome(shown: dict[str, str]) -> str:
    place = f"upstream {shown['upstream'] or NOBODY}, stage {shown['stage'] or NOBODY}"
    if shown["event"] != REQUEST_ALLOWED:
        return f"{shown['reason']}, {place}"
    return place + (f", answered {shown['status']}" if shown["status"] else "")


def _story(row: JoinedCredential, calls: Mapping[str, VaultCall], when: str) -> list[str]:
    one = row.credential
    issue = one.issued_for(when)
    lease = f", lease {issue.lease_id}" if issue.lease_id else ""
    by = f" by Vault's request {issue.vault_request}" if issue.vault_request else ""
    lines = [
        f"  credential  {one.key[2]}{lease}",
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


def _as_json(own: OwnLog, found: JoinedLogs) -> dict[str, Any]:
    return {
        "credentials": [_row_as_json(row) for row in found.rows],
        "requests": own.requests,
        "requests_asked": own.asked,
        "matched": found.matched,
        "outside": found.outside,
        "whole": found.whole,
        "nameless": own.nameless,
        "unreadable": own.unreadable,
        "findings": found.findings,
    }


def _row_as_json(row: JoinedCredential) -> dict[str, Any]:
    one, call = row.credential, row.call
    stage, upstream, name = one.key
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
