"""When a server that Kong has started is to end. Pure: the caller looks and tells.

Kong's own words do not reach it: the SIGTERM and the SIGKILL of a stop and of a reload hit the
supervisor. So it goes by what there is: a supervisor, Kong's master, connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Kong ends a supervisor before the next one is there, which takes a Python's start. And it
# never starts one again when a reload has taken the plugin out.
LINGER: Final = 8.0  # seconds that a server of a living Kong goes on without a supervisor
ALONE: Final = 2.0  # … at least the last of them without any connection


@dataclass(slots=True)
class Vigil:
    """``over`` is asked again and again; ``now`` is monotonic, in seconds."""

    _watched_at: float | None = None
    _used_at: float = 0.0

    def over(self, now: float, *, supervised: bool, master_gone: bool, connected: bool) -> bool:
        """Whether nobody needs the server any more."""
        if supervised or self._watched_at is None:
            self._watched_at = now
        if connected:
            self._used_at = now
        if supervised:
            return False
        if master_gone:
            return True
        return now - self._watched_at >= LINGER and now - self._used_at >= ALONE


def pause(failures: int) -> float:
    """Seconds to wait before the next start, after so many that failed one after the other."""
    return 0.0 if failures <= 0 else min(30.0, 2.0 ** min(failures - 1, 5))
