"""Which of a cluster's addresses is asked first.

The rule is nginx's for the servers of an upstream: one that failed is passed over
for a while, and then a single call tries it again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import inf

PAUSE = 60.0  # seconds; a black hole costs one call in this time its share of the timeout


class Nodes:
    """What is known of the addresses, shared by a session's threads."""

    def __init__(self, addresses: Sequence[str], pause: float = PAUSE) -> None:
        """``addresses`` in the order of preference; times are in seconds of one clock."""
        self._addresses = tuple(addresses)
        self._pause = pause
        self._passed_over: dict[str, float] = {}  # until when
        self._lock = threading.Lock()

    def order(self, now: float) -> tuple[str, ...]:
        """Every address once: those that work, then those that failed, longest ago first."""
        with self._lock:
            found = sorted(self._addresses, key=lambda address: self._rank(address, now))
            if found[0] in self._passed_over:
                # This call tries it again; the others wait for what comes of it.
                self._passed_over[found[0]] = now + self._pause
            return tuple(found)

    def _rank(self, address: str, now: float) -> float:
        until = self._passed_over.get(address, -inf)
        return until if until > now else -inf

    def failed(self, address: str, now: float) -> None:
        """It could not serve: it comes last for a while."""
        with self._lock:
            self._passed_over[address] = now + self._pause

    def worked(self, address: str) -> None:
        """It answered as Vault."""
        with self._lock:
            self._passed_over.pop(address, None)
