"""One login or lease as it is shown, from the machine that runs it to the page, the table and the JSON.

That its service refuses a credential no machine knows: ``Refusals`` says it of those that are shown.
``troubles`` says what fails of one, ``grouped`` what fails alike of many.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import inf
from operator import attrgetter
from typing import Final, NamedTuple, Self

from vaultauthz.core.grant import NodeState
from vaultauthz.core.history import Past, Tone
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
    held_for: float | None = None  # seconds since this credential came into use; None without one
    policies: tuple[str, ...] = ()  # a login's, as Vault told them

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
            held_for=now - held.since if held else None,
            policies=held.grant.policies if held else (),
        )


class StageFacts(NamedTuple):
    """A stage as it is configured, and what is known of its Vault."""

    stage: str
    method: str
    mount: str = ""  # of the auth method, below auth/
    namespace: str = ""
    nodes: tuple[NodeState, ...] = ()


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


# --- what fails, in plain words and since when -----------------------------------

BADNESS: Final = {tone: place for place, tone in enumerate(Tone)}
_URGENT: Final = 60.0  # seconds of life in which what is not renewed is about to fail
_ON_ITS_WAY: Final = "it is on its way"
_REFUSED: Final = "the service does not take the credential in use; a rotation gets another"


class ShownTrouble(NamedTuple):
    """Something that fails: of a lease, a login or, without a stage, of the server. ``since`` as the clock has it."""

    tone: Tone
    what: str
    why: str
    since: float | None = None
    place: tuple[str, str, str] = ("", "", "")  # stage, upstream, caller


def troubles(row: LeaseRow, past: Past | None, now: float) -> list[ShownTrouble]:
    """What fails of one lease or login, the worst first."""
    place = (row.stage, row.upstream, row.caller)
    failing_since = past.failing_since if past else None
    out_since = past.out_since if past else None
    worst = Tone.WARN if row.optional or not row.shared else Tone.BAD
    found = []
    if not row.usable and (row.failures or row.shared):
        what = "No credential: requests are answered 503" if row.upstream else "No login to Vault"
        began = failing_since if out_since is None else out_since
        expected = not row.failures and out_since is None  # as at the start
        tone = Tone.WARN if expected else worst
        found.append(ShownTrouble(tone, what, row.last_error or _ON_ITS_WAY, began, place))
    elif row.failures:
        lasts = row.seconds_left is None or row.seconds_left > _URGENT
        what = "Calls to Vault for it fail; it is used until it ends"
        found.append(
            ShownTrouble(Tone.WARN if lasts else worst, what, row.last_error, failing_since, place)
        )
    if row.refused:
        since = None if row.refused_for is None else now - row.refused_for
        found.append(ShownTrouble(worst, "Its service answers 401", _REFUSED, since, place))
    if row.revoke_error:
        what = "An earlier lease of it could not be revoked at Vault, which is tried again"
        found.append(ShownTrouble(Tone.WARN, what, row.revoke_error, None, place))
    return sorted(found, key=lambda trouble: BADNESS[trouble.tone])


@dataclass(slots=True)
class AlikeTroubles:
    """Troubles that are the same but for where they are."""

    trouble: ShownTrouble
    places: list[tuple[str, str, str]] = field(default_factory=list)
    since: float | None = None

    def add(self, trouble: ShownTrouble) -> None:
        if trouble.place[0]:
            self.places.append(trouble.place)
        if trouble.since is not None:
            self.since = trouble.since if self.since is None else min(self.since, trouble.since)

    @property
    def order(self) -> tuple[int, bool, int]:
        """Of what is as bad: the server's own first, then what most have."""
        return BADNESS[self.trouble.tone], bool(self.places), -len(self.places)


def grouped(found: Iterable[ShownTrouble]) -> list[AlikeTroubles]:
    """One entry for each thing that fails, however many upstreams it has; the worst first."""
    groups: dict[tuple[Tone, str, str], AlikeTroubles] = {}
    for trouble in found:
        key = (trouble.tone, trouble.what, trouble.why)
        groups.setdefault(key, AlikeTroubles(trouble)).add(trouble)
    return sorted(groups.values(), key=attrgetter("order"))
