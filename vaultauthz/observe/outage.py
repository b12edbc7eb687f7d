"""When lines are not written: since when, and why."""

from __future__ import annotations


class Outage:
    """One outage after the other. It lasts while a write has failed, or lines wait for too long."""

    def __init__(self) -> None:
        self.failing = ""  # why the last write failed
        self.stalled = False  # lines wait for too long
        self.told = ""  # why this one began, and when it is over for how long it was
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
            self._since, self.told = now, self.failing or "a line has waited for a second"
        else:
            self.told += f", for {now - (self._since or now):.1f} s"
            self._since = None
        return lasts
