"""``vaultauthz audit join``: our log beside Vault's, and what only one of them knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vaultauthz.audit.ours import Credential, OurCall, Ours, is_after
from vaultauthz.audit.vault_log import Call, VaultLog
from vaultauthz.audit.wanted import Wanted, time_of

# Seconds that an answer takes to become our line, while somebody copies the logs.
_ON_THE_WAY: Final = timedelta(seconds=2)
# Answers below here name a lease that is there already.
_OF_LEASES: Final = ("sys/leases/", "sys/renew", "sys/revoke", "auth/token/")
_EVER: Final = datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """A credential and the call by which Vault issued it, None where Vault's log has none."""

    credential: Credential
    call: Call | None
    end: str  # the event, also that of its token
    ended: str


@dataclass(frozen=True, slots=True)
class Joined:
    """What the two logs tell together. ``findings`` are sentences; no crash or restart explains them."""

    rows: list[Row]
    calls: dict[str, Call]  # that both logs have, by Vault's request id
    findings: list[str]
    matched: int  # calls of ours, of the time that is wanted, that Vault's log has
    outside: int  # and those of a time that it does not cover
    whole: bool  # whether all was looked for, and so nothing is missing where nothing is found


@dataclass(frozen=True, slots=True)
class _Issued:
    """What a lease of somebody's leaves of its call."""

    accessor: str
    lease_id: str
    time: str
    id: str
    address: str


def join(ours: Ours, vault: VaultLog, wanted: Wanted) -> Joined:
    """Read Vault's log once and put it beside ours.

    Raises:
        LogError: it cannot be read.
    """
    found: dict[str, Call] = {}
    others: list[_Issued] = []
    for call in vault.calls():
        if call.id in ours.calls:
            found[call.id] = call
        elif _is_unknown(call, ours, wanted):
            others.append(_Issued(call.accessor, call.lease_id, call.time, call.id, call.address))
    ends = _token_ends(ours, found)
    rows = [_row(one, found, ends) for one in ours.credentials.values() if _is_wanted(one, wanted)]
    rows.sort(key=lambda row: (row.credential.issued.time, row.credential.place))
    calls = {key: line for key, line in ours.calls.items() if wanted.covers({"time": line.time})}
    missing = {key: line for key, line in calls.items() if key not in found}
    outside = sum(not _covers(vault, line) for line in missing.values())
    matched = len(calls) - len(missing)
    findings = [
        *_strangers(calls, matched),
        *_missing(missing, vault, rows, wanted),
        *_late(rows),
        *_unknown(ours, found, others),
    ]
    whole = wanted.everything and bool(matched) and not outside
    return Joined(rows, found, findings, matched, outside, whole)


def _is_unknown(call: Call, ours: Ours, wanted: Wanted) -> bool:
    """Whether it issued a lease that our log does not name at all."""
    return (
        wanted.everything
        and bool(call.lease_id)
        and call.lease_id not in ours.leases
        and not call.path.startswith(_OF_LEASES)
        and wanted.covers({"time": call.time})
    )


def _is_wanted(one: Credential, wanted: Wanted) -> bool:
    """One that was used as is wanted; where nothing in particular is, also one that was only issued then."""
    if one.uses > 0 or wanted.credential == one.place[2]:
        return True
    return wanted.everything and wanted.covers({"time": one.issued.time})


def _token_ends(ours: Ours, found: dict[str, Call]) -> dict[str, tuple[str, str]]:
    """Event and time of the end of each token that was ended, by its accessor as Vault's log has it."""
    return {
        made.accessor: ours.tokens_ended[accessor]
        for login, accessor in ours.logins.items()
        if (made := found.get(login)) and made.accessor and accessor in ours.tokens_ended
    }


def _row(one: Credential, found: dict[str, Call], ends: dict[str, tuple[str, str]]) -> Row:
    call = found.get(one.issued.vault_request)
    end, ended = one.end, one.ended
    # Without a lease it outlives the token that it was read with.
    if call and not end and one.issued.lease_id:
        end, ended = ends.get(call.accessor, ("", ""))
    return Row(one, call, end, ended)


def _covers(vault: VaultLog, line: OurCall) -> bool:
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


def _strangers(calls: dict[str, OurCall], matched: int) -> Iterator[str]:
    if calls and not matched:
        yield (
            f"none of our {len(calls):,} calls to Vault is in that log: it is another Vault's, or of "
            "another time"
        )


def _missing(
    missing: dict[str, OurCall], vault: VaultLog, rows: list[Row], wanted: Wanted
) -> Iterator[str]:
    asked = {issue.vault_request for row in rows for issue in row.credential.issues}
    for call, line in missing.items():
        if _covers(vault, line) and (wanted.everything or call in asked):
            yield (
                f"Vault's log has no request {call}, by which ours has {line.event} of "
                f"{_of(line)} at {line.time}: an audit file of another node, or lines are missing"
            )


def _of(line: OurCall) -> str:
    return f"{line.upstream or 'a login'}, stage {line.stage}"


def _late(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        one = row.credential
        stage, upstream, name = one.place
        of_token = bool(row.ended) and not one.ended and is_after(one.last, row.ended)
        if one.late or of_token:
            times = f"{one.late:,}" if one.late else "one or more"
            yield (
                f"credential {name} of {upstream}, stage {stage}: {times} used after its end "
                f"({row.end} at {row.ended}), last at {one.last}"
            )


def _unknown(ours: Ours, found: dict[str, Call], others: list[_Issued]) -> Iterator[str]:
    """Leases that Vault issued to tokens of ours, and that we did not write down."""
    tokens = {call.accessor for call in found.values() if call.accessor}
    for one in others:
        if one.accessor in tokens and _within(one.time, ours.begins, ours.ends):
            yield (
                f"Vault issued lease {one.lease_id} to a token of ours at {one.time} (request "
                f"{one.id}, from {one.address or 'an unknown address'}), and our log does not have "
                "it: an answer that did not reach us, lines that are missing, or somebody else has "
                "the token"
            )
