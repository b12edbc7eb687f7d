"""``ttl`` and ``increment``: how long leases are asked to live, of a stage or of one secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vaultauthz.config.kinds import duration
from vaultauthz.config.reader import Table

# The role and the mount bound it. Vault's own bound is 768h unless it is set, and certificates
# of an authority live for ten years.
LIFETIME: Final = duration(1.0, 87_600 * 3600.0)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """What is asked for, in seconds; None: as the role in Vault has it.

    ``ttl`` when a credential is issued, ``increment`` at each renewal of its lease.
    """

    ttl: float | None = None
    increment: float | None = None


def read_lifetimes(table: Table, usual: Lifetimes) -> Lifetimes:
    """Both keys of ``table``, each as in ``usual`` where it is absent."""
    return Lifetimes(
        ttl=table.get("ttl", LIFETIME.read, usual.ttl),
        increment=table.get("increment", LIFETIME.read, usual.increment),
    )
