"""Every login and lease as a row of a table, for the admin page and the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from vaultauthz.leases.lease_runner import LeaseRunner
from vaultauthz.leases.runner import Runner

WITHOUT: Final = ("empty", "issuing", "lapsed", "stopped")  # states that hold no credential


@dataclass(frozen=True, slots=True)
class Row:
    """One lease as the admin page shows it; times are seconds from now."""

    stage: str
    upstream: str  # "" for the login itself
    state: str
    lease_id: str
    credential_id: str
    seconds_left: float | None  # None: no credential, or one without an end
    next_call_in: float | None
    failures: int
    last_error: str
    optional: bool
    caller: str = ""  # whose it is, under `per: caller` and `per: request`
    shared: bool = True  # by all callers


def row(runner: Runner, now: float) -> Row:
    """One lease or login as it stands."""
    machine = runner.machine
    held, failure = machine.held, machine.last_failure
    lease = runner if isinstance(runner, LeaseRunner) else None
    left = min(held.ends_at, held.grant.login.ends_at) - now if held else inf
    due = machine.wake_at - now
    return Row(
        stage=runner.stage.name,
        upstream=lease.upstream.name if lease else "",
        state=machine.state.value,
        lease_id=held.lease_id if held else "",
        credential_id=held.grant.credential_id if held else "",
        seconds_left=left if left < inf else None,
        next_call_in=due if due < inf else None,
        failures=machine.failures,
        last_error=failure.reason if failure else "",
        optional=lease.upstream.optional if lease else False,
        caller=lease.caller if lease else "",
        shared=lease is None or lease.scope is None,
    )
