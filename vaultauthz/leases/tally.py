"""How many leases of their own the callers of an upstream have, in one stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nobody_waits() -> None:
    """Nothing to do when a lease has gone."""


@dataclass(slots=True)
class Tally:
    """Counts over all scopes of the place: one that a reload has replaced still drains."""

    alive: int = 0  # at Vault, or being asked for
    freed: Callable[[], None] = _nobody_waits  # told when there is one less
