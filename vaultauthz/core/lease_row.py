"""One login or lease as it is shown, from the machine that runs it to the page, the table and the JSON."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Self

from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_state import State


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

    @property
    def holds_nothing(self) -> bool:
        """Whether it has no credential now."""
        return self.state in _WITHOUT

    @classmethod
    def of(cls, stage: str, machine: LeaseMachine, now: float) -> Self:
        """One lease or login as it stands; what a machine does not know is a login's."""
        held, failure = machine.held, machine.last_failure
        left = min(held.ends_at, held.grant.login.ends_at) - now if held else inf
        due = machine.wake_at - now
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
        )


_WITHOUT = {state.value for state in (State.EMPTY, State.ISSUING, State.LAPSED, State.STOPPED)}
