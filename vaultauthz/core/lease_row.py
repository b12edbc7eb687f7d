"""One login or lease as it is shown, from the machine that runs it to the page, the table and the JSON."""

from __future__ import annotations

from dataclasses import dataclass


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
