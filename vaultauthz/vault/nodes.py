"""What is known of a Vault's addresses, and which of them is asked first.

By nginx's rule for the servers of an upstream: one that failed is passed over for a while, and then a
single call tries it again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import inf
from typing import Final

from vaultauthz.core.grant import NodeState

PAUSE: Final = 60.0  # seconds; a black hole costs one call in this time its share of the timeout
# A call that was sent and not answered may have found one engine slow, and not Vault away.
DOUBT: Final = 10.0  # seconds without an answer to any, after which that is said of Vault


class Nodes:
    """What is known of the addresses, shared by a session's threads."""

    def __init__(self, addresses: Sequence[str], pause: float = PAUSE) -> None:
        """``addresses`` in the order of preference; times are in seconds of one clock."""
        self._addresses = tuple(addresses)
        self._pause = pause
        self._passed_over: dict[str, float] = {}  # until when
        self._doubted: dict[str, float] = {}  # since when calls are not answered
        self._states = {address: NodeState(address) for address in addresses}
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

    def failed(self, address: str, now: float, reason: str = "", *, sure: bool = True) -> None:
        """It could not serve: it comes last for a while. Not ``sure``: it may have been one engine of its."""
        with self._lock:
            self._passed_over[address] = now + self._pause
            before = self._states[address]
            doubted = self._doubted.setdefault(address, now)
            if not sure and before.works and now - doubted < DOUBT:
                return
            since = doubted if before.since is None else before.since
            self._states[address] = NodeState(address, False, since, reason)

    def worked(self, address: str) -> None:
        """It answered as Vault."""
        with self._lock:
            self._passed_over.pop(address, None)
            self._doubted.pop(address, None)
            self._states[address] = NodeState(address, True)

    def states(self, now: float) -> tuple[NodeState, ...]:
        """What is known of each, in the order of preference.

        One that failed is not asked again while another before it works: after its time that is past.
        """
        with self._lock:
            served = any(state.works for state in self._states.values())
            return tuple(
                state._replace(works=None)
                if state.works is False and served and self._rank(state.address, now) == -inf
                else state
                for state in self._states.values()
            )
