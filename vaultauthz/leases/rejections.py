"""An upstream's 401s on their way to the keeper: few, however many come.

The machine rotates at most once in 30 seconds. This keeps a flood of 401s away from the
keeper's lock, which guards everybody's leases.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

_GAP: Final = 1.0  # seconds between two tellings of one credential
_MOST: Final = 1024  # credentials whose last telling is remembered

# Upstream, stage and credential_id; whether that is the credential in use.
Reject = Callable[[str, str, str], bool]


class Rejections:
    """Passes on to ``reject``; safe for threads. ``clock`` is in seconds and never goes back."""

    def __init__(self, reject: Reject, clock: Callable[[], float] = time.monotonic) -> None:
        self._reject = reject
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str, str], float] = {}

    def tell(self, upstream: str, stage: str, credential_id: str) -> bool:
        """Pass a 401 on, unless that was just done; whether it was, and concerned what is in use."""
        key, now = (upstream, stage, credential_id), self._clock()
        with self._lock:
            if now - self._told.get(key, -_GAP) < _GAP:
                return False
            self._told.pop(key, None)
            if len(self._told) >= _MOST:
                if now - next(iter(self._told.values())) < _GAP:
                    return False  # so many in a second: nobody's upstreams are like that
                del self._told[next(iter(self._told))]
            self._told[key] = now
        return self._reject(upstream, stage, credential_id)
