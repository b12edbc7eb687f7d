"""Every login and lease as a row of a table, for the admin page and the metrics."""

from __future__ import annotations

from math import inf
from typing import Final

from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.leases.lease_runner import LeaseRunner
from vaultauthz.leases.runner import Runner

WITHOUT: Final = ("empty", "issuing", "lapsed", "stopped")  # states that hold no credential


def row(runner: Runner, now: float) -> LeaseRow:
    """One lease or login as it stands."""
    machine = runner.machine
    held, failure = machine.held, machine.last_failure
    lease = runner if isinstance(runner, LeaseRunner) else None
    left = min(held.ends_at, held.grant.login.ends_at) - now if held else inf
    due = machine.wake_at - now
    return LeaseRow(
        stage=runner.stage.name,
        upstream=lease.upstream.name if lease else "",
        state=machine.state.value,
        lease_id=held.lease_id if held else "",
        credential_id=held.grant.credential_id if held else "",
        seconds_left=left if left < inf else None,
        renew_in=due if due < inf else None,
        failures=machine.failures,
        last_error=failure.reason if failure else "",
        optional=lease.upstream.optional if lease else False,
        caller=lease.caller if lease else "",
        shared=lease is None or lease.scope is None,
    )
