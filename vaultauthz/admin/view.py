"""What the admin server shows and asks for; the application supplies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Waiting:
    """An upstream without its credential. ``reason`` is a phrase of ours, never Vault's text."""

    stage: str
    upstream: str
    reason: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """``waiting`` names what is missing, optional upstreams too; ``ready`` leaves those out.

    While requests cannot be ``recorded`` they are refused, and nothing is ready. ``besides`` is
    what else there is to say, which need not stand in the way: phrases of ours by a key.
    """

    ready: bool
    waiting: tuple[Waiting, ...] = ()
    recorded: bool = True
    besides: tuple[tuple[str, str], ...] = ()


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
    seconds_left: float | None = None
    renew_in: float | None = None
    failures: int = 0  # in a row, until now
    last_error: str = ""  # a phrase of ours
    optional: bool = False  # readiness does not wait for it


class AdminView(Protocol):
    """Called from several threads at once. Nothing here may wait for Vault."""

    def ready(self) -> Readiness:
        """Whether every upstream that is not optional has its credential, and checks are recorded."""
        ...

    def leases(self) -> list[LeaseRow]:
        """Every lease, in any order."""
        ...

    def metrics(self) -> str:
        """The metrics in Prometheus's text format 0.0.4."""
        ...

    def rotate(self, upstream: str, stage: str | None) -> tuple[str, ...]:
        """Ask for a replacement; the stages in which it was asked, () when there is none such.

        ``stage`` is None for all of the upstream's stages.
        """
        ...

    def revoke(self, upstream: str, stage: str | None) -> tuple[str, ...]:
        """Ask that the lease be revoked; answers as ``rotate`` does."""
        ...
