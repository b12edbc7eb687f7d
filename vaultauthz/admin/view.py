"""What the admin server shows and asks for; the application supplies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vaultauthz.core.lease_row import LeaseRow

__all__ = ["AdminView", "LeaseRow", "Readiness", "Waiting"]


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
