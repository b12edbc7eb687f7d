"""When lines are not written, or not in time: since when, and why.

For how long the oldest line has waited is known without a time on each. Lines come out in the
order in which they went in. So it is enough to note, ten times a second, how many have gone in:
the line with that number has waited since then at the least. A check pays nothing for it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

LOOK: Final = 0.1  # seconds between two looks
# Seconds after which lines are overdue, by marks that may be one look younger than their line.
OVERDUE: Final = 1.0 - LOOK
# … and below which they are in time again: the writer is through.
IN_TIME: Final = 2.5 * LOOK
# Seconds between two looks of which one says nothing: we did not run, and nor did the writer.
_LATE: Final = 5 * LOOK


class Outage:
    """One outage after the other. It lasts while a write has failed, or lines wait for too long."""

    def __init__(self) -> None:
        self.failing = ""  # why the last write failed
        self.stalled = False  # lines wait for too long
        self.reason = ""  # why this one began, and when it is over for how long it was
        self._since: float | None = None

    def change(self, now: float, *, failing: str | None, stalled: bool | None) -> bool | None:
        """Take in what is so by now, None for what is as before; ``now`` in seconds.

        True when an outage begins by it, False when one ends, else None.
        """
        self.failing = self.failing if failing is None else failing
        self.stalled = self.stalled if stalled is None else stalled
        lasts = bool(self.failing) or self.stalled
        if lasts == (self._since is not None):
            return None
        if lasts:
            self._since, self.reason = now, self.failing or "a line has waited for a second"
        else:
            self.reason += f", for {now - (self._since or now):.1f} s"
            self._since = None
        return lasts


class QueueAge:
    """Told of two counters from time to time; ``age`` is what the last look found, in seconds."""

    def __init__(self) -> None:
        self.age = 0.0
        self._marks: deque[tuple[float, int]] = deque()  # when so many had gone in
        self._looked: float | None = None
        self._passed = False  # the last look said nothing

    def look(self, now: float, handed: int, written: int) -> None:
        """At ``now`` so many lines had been handed over since the start, and so many were written."""
        late = self._looked is not None and now - self._looked > _LATE
        self._looked = now
        while self._marks and self._marks[0][1] <= written:
            self._marks.popleft()
        if handed > (self._marks[-1][1] if self._marks else written):
            self._marks.append((now, handed))
        # A process that was frozen has its own first moment to write; but only one.
        self._passed = late and not self._passed
        if not self._passed:
            self.age = now - self._marks[0][0] if self._marks else 0.0

    def overdue(self, *, before: bool) -> bool:
        """Whether lines wait for too long; ``before``: whether they did at the last look."""
        return self.age > (IN_TIME if before else OVERDUE - 1e-9)
