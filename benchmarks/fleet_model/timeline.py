"""The simulated clock: what happens when, in order."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

Happening = Callable[[Any, Any], None]


class Timeline:
    """Runs happenings in the order of their time; ties in the order they were planned.

    ``now`` is in seconds from the start of the measurement. ``draw`` gives every
    jitter there is, so that one seed makes one run.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.draw = self.random.random
        self._planned: list[tuple[float, int, Happening, Any, Any]] = []
        self._count = 0

    def at(self, when: float, what: Happening, one: Any = None, two: Any = None) -> None:
        """Have ``what(one, two)`` happen at ``when``, which is not before ``now``."""
        self._count += 1
        heapq.heappush(self._planned, (when, self._count, what, one, two))

    def run(self, until: float) -> None:
        """Let everything happen that is planned before ``until``."""
        planned, pop = self._planned, heapq.heappop
        while planned and planned[0][0] < until:
            self.now, _, what, one, two = pop(planned)
            what(one, two)
        self.now = until
