"""``vaultauthz audit join``: our log beside Vault's, and what only one of them knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from vaultauthz.audit.ours import Credential, Ours, Told, is_after
from vaultauthz.audit.vault_log import Call, VaultLog
from vaultauthz.audit.wanted import Wanted, time_of

# Seconds that an answer takes to become our line, while somebody copies the logs.
_ON_THE_WAY: Final = 2.0
# Answers below here name a lease that is there already.
_OF_LEASES: Final = ("sys/leases/", "sys/renew", "sys/revoke", "auth/token/")


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
    findings: list[str]
    outside: int  # calls of ours from a time that Vault's log does not cover
    matched: int
    nameless: int


def join(ours: Ours, vault: VaultLog, wanted: Wanted) -> Joined:
    """Read Vault's log once and put it beside ours.

    Raises:
        LogError: it cannot be read.
    """
    found: dict[str, Call] = {}
    issued: list[Call] = []
    for call in vault.calls():
        if call.id in ours.calls:
            found[call.id] = call
        elif call.lease_id and not call.path.startswith(_OF_LEASES):
            issued.append(call)
    rows = [_row(one, ours, found) for one in ours.credentials.values() if _is_wanted(one, wanted)]
    rows.sort(key=lambda row: (row.credential.issued, row.credential.place))
    findings = [*_missing(ours, found, vault, rows, wanted), *_late(rows)]
    if wanted.everything:
        findings += _unknown(
            ours, found, [one for one in issued if wanted.covers({"time": one.time})]
        )
    outside = sum(not _covers(vault, told) for told in ours.calls.values())
    return Joined(rows, findings, outside, len(found), ours.nameless)


def _is_wanted(one: Credential, wanted: Wanted) -> bool:
    """One that was used as is wanted; where nothing in particular is, also one that was only issued then."""
    if one.uses > 0 or wanted.credential == one.place[2]:
        return True
    return wanted.everything and wanted.covers({"time": one.issued})


def _row(one: Credential, ours: Ours, found: dict[str, Call]) -> Row:
    call = found.get(one.vault_request)
    end, ended = one.end, one.ended
    if call and not end:
        end, ended = _token_end(call, ours, found)
    return Row(one, call, end, ended)


def _token_end(call: Call, ours: Ours, found: dict[str, Call]) -> tuple[str, str]:
    """When the token ended that the credential hangs on; "" where the log does not say."""
    for login, accessor in ours.logins.items():
        made = found.get(login)
        if made and made.accessor and made.accessor == call.accessor:
            return ours.tokens_ended.get(accessor, ("", ""))
    return "", ""


def _covers(vault: VaultLog, told: Told) -> bool:
    """Whether Vault's log should have it. Vault wrote its line before we did."""
    return _within(told.time, vault.begins, vault.ends, earlier=_ON_THE_WAY)


def _within(when: str, begins: str, ends: str, *, earlier: float = 0.0) -> bool:
    """Whether a log from ``begins`` to ``ends`` must have what the other has at that time.

    ``earlier``: by how many seconds its own line may be before that.
    """
    then, first, last = (time_of({"time": one}) for one in (when, begins, ends))
    if then is None or first is None or last is None:
        return False
    return first + timedelta(seconds=earlier) <= then < last - timedelta(seconds=_ON_THE_WAY)


def _missing(
    ours: Ours, found: dict[str, Call], vault: VaultLog, rows: list[Row], wanted: Wanted
) -> Iterator[str]:
    asked = {row.credential.vault_request for row in rows}
    for call, told in ours.calls.items():
        if call in found or not _covers(vault, told):
            continue
        if wanted.everything or call in asked:
            yield (
                f"Vault's log has no request {call}, by which ours has {told.event} of "
                f"{_of(told)} at {told.time}: an audit file of another node, or lines are missing"
            )


def _of(told: Told) -> str:
    return f"{told.upstream or 'a login'}, stage {told.stage}"


def _late(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        one = row.credential
        stage, upstream, name = one.place
        of_token = bool(row.ended) and not one.ended and is_after(one.last, row.ended)
        if one.late or of_token:
            times = f"{one.late} times" if one.late else "at least once"
            yield (
                f"credential {name} of {upstream}, stage {stage}, was used {times} after its end "
                f"({row.end} at {row.ended}), last at {one.last}"
            )


def _unknown(ours: Ours, found: dict[str, Call], issued: list[Call]) -> Iterator[str]:
    """Leases that Vault issued to tokens of ours, and that we did not write down."""
    tokens = {call.accessor for call in found.values() if call.accessor}
    for call in issued:
        if call.accessor in tokens and _within(call.time, ours.begins, ours.ends):
            yield (
                f"Vault issued lease {call.lease_id} to a token of ours at {call.time} (request "
                f"{call.id}, from {call.address or 'an unknown address'}), and our log does not have "
                "it: an answer that did not reach us, lines that are missing, or somebody else has "
                "the token"
            )
