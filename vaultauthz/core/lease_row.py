"""One login or lease as it is shown, from the machine that runs it to the page, the table and the JSON.

That its service refuses a credential no machine knows: ``Refusals`` says it of those that are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import Final, NamedTuple, Self

from vaultauthz.core.lease import LeaseMachine

_MOST: Final = 1024  # refused credentials that are remembered
_UNAUTHORIZED: Final = 401
_SERVER_ERRORS: Final = 500  # … and above: they say nothing of the credential


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One upstream's lease in one stage, or that stage's login. All of it is safe to show.

    For a login ``upstream`` is "" and ``lease_id`` is its token's accessor.
    Times are in seconds from now; None where there is no such moment.
    """

    stage: str
    upstream: str
    state: str
    lease_id: str = ""
    credential_id: str = ""
    seconds_left: float | None = None  # None: no credential, or one without an end
    renew_in: float | None = None  # the next call to Vault
    failures: int = 0  # in a row, until now
    last_error: str = ""  # a phrase of ours
    optional: bool = False  # readiness does not wait for it
    caller: str = ""  # whose it is, under `per: caller` and `per: request`
    shared: bool = True  # by all callers
    usable: bool = True  # a request that comes now would get it
    wanted: bool = False  # a replacement was asked for, and is not there yet
    revoking: int = (
        0  # earlier leases of it that Vault may have, though they were to be revoked by now
    )
    revoke_error: str = ""  # why the last of these revocations failed; a phrase of ours
    refused: int = 0  # requests with it that its service answered 401, since it answered otherwise
    refused_for: float | None = None  # seconds since the first of these
    # What it was last granted for; None: without an end, or Vault changes it at times of its own.
    ttl: float | None = None
    not_after: float | None = None  # when the certificate in it ends, in seconds since 1970

    @classmethod
    def of(cls, stage: str, machine: LeaseMachine, now: float) -> Self:
        """One lease or login as it stands; what a machine does not know is a login's."""
        held, failure = machine.held, machine.last_failure
        left = min(held.ends_at, held.grant.login.ends_at) - now if held else inf
        due = machine.wake_at - now
        ttl = held.ttl if held and held.rotates_at == inf else inf
        overdue = machine.retired.overdue(now)
        return cls(
            stage=stage,
            upstream="",
            state=machine.state.value,
            lease_id=held.lease_id if held else "",
            credential_id=held.grant.credential_id if held else "",
            seconds_left=left if left < inf else None,
            renew_in=due if due < inf else None,
            failures=machine.failures,
            last_error=failure.reason if failure else "",
            usable=held is not None and left > 0,
            wanted=machine.wanted,
            revoking=len(overdue) + (machine.limbo is not None),
            ttl=ttl if ttl < inf else None,
            revoke_error=next((old.last_failure for old in overdue if old.last_failure), ""),
        )


class RefusedSince(NamedTuple):
    """A service's 401s to one credential; ``since`` is when it began, in seconds."""

    times: int
    since: float


class Refusals:
    """Which credentials their services refuse; not safe for threads.

    One is refused from a 401 on until a request with it is answered otherwise. A new credential has
    another name, and so is not. An answer that tells of the service alone (5xx, or none at all) changes nothing.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], RefusedSince] = {}

    def __len__(self) -> int:
        return len(self._found)

    def answered(
        self, stage: str, upstream: str, credential_id: str, status: int, now: float
    ) -> None:
        """A request with this credential was answered; ``status`` 0: it was not."""
        key = (stage, upstream, credential_id)
        if status == _UNAUTHORIZED:
            before = self._found.get(key)
            self._found[key] = (
                RefusedSince(before.times + 1, before.since) if before else RefusedSince(1, now)
            )
            if len(self._found) > _MOST:
                del self._found[next(iter(self._found))]
        elif 0 < status < _SERVER_ERRORS:
            self._found.pop(key, None)

    def shown(self, rows: Iterable[LeaseRow], now: float) -> list[LeaseRow]:
        """The rows, with what is refused of them."""
        return [self._shown(row, now) for row in rows] if self._found else list(rows)

    def _shown(self, row: LeaseRow, now: float) -> LeaseRow:
        found = self._found.get((row.stage, row.upstream, row.credential_id))
        if found is None:
            return row
        return replace(row, refused=found.times, refused_for=max(0.0, now - found.since))
