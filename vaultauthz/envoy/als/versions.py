"""Which credential each Envoy had at a given time, from what came and what Envoy took.

Envoy does not tell which version of a secret it put on a request. What is known: it cannot
have used one before that came from Vault, and it used no older one once it had acknowledged
this one, give or take the moment that its workers need to hear of it and what its clock
differs from ours. So the answer to "which" is one credential, or near a change the few that
it can have been; never a guess.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from vaultauthz.core import events
from vaultauthz.core.events import Event

# Seconds that Envoy's clock may be ahead of or behind ours, and that its workers may need to
# take over what its main thread has acknowledged.
SKEW: Final = 1.0
SETTLE: Final = 1.0
_KEPT: Final = 16  # versions of one secret: a request may last for hours
_NOTES: Final = 500_000  # of an Envoy that took a version; beyond, none are made


class Given(NamedTuple):
    """A credential, by its id; "" for one that is not known."""

    credential_id: str
    lease_id: str


UNKNOWN: Final = Given("", "")
_Place = tuple[str, str]  # stage, upstream


@dataclass(slots=True)
class _Version:
    given: Given
    came_at: float
    # By node: when it acknowledged this one; infinity where it refused a part of it, and so
    # may go on with the one before.
    taken_at: dict[str, float] = field(default_factory=dict)


class Versions:
    """Hears what happens to credentials, and is asked by the access logs; safe for threads.

    ``wall`` is the time in seconds since 1970. A node's name must be one Envoy's alone.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._places: dict[_Place, list[_Version]] = {}
        self._notes = 0

    def record_event(self, event: Event) -> None:
        """Note a credential that came, or that an Envoy took or refused; a Listener."""
        place, given = (event.stage, event.upstream), Given(event.credential_id, event.lease_id)
        with self._lock:
            match event.name:
                case events.ISSUED | events.ROTATED if not event.caller:  # else not for Envoys
                    self._came(place, given)
                case events.SDS_DELIVERED:
                    self._heard(place, given, event.caller, self._wall())
                case events.SDS_REFUSED:
                    self._heard(place, given, event.caller, inf)

    def between(
        self, node: str, stage: str, upstream: str, begin: float, end: float
    ) -> tuple[Given, ...]:
        """What a request may carry that got its credential in this time; the latest first.

        The times are Envoy's, in seconds since 1970. ``UNKNOWN`` stands for what was before
        the first version that is remembered, and for all of an Envoy that never took one.
        """
        with self._lock:
            versions = self._places.get((stage, upstream), ())
            if not any(node in version.taken_at for version in versions):
                return (UNKNOWN,)
            return tuple(dict.fromkeys(_possible(versions, node, begin, end)))

    def _came(self, place: _Place, given: Given) -> _Version:
        versions = self._places.setdefault(place, [])
        if not versions or versions[-1].given != given:
            versions.append(_Version(given, self._wall()))
            self._notes -= sum(len(version.taken_at) for version in versions[:-_KEPT])
            del versions[:-_KEPT]
        return versions[-1]

    def _heard(self, place: _Place, given: Given, node: str, at: float) -> None:
        versions = reversed(self._places.get(place, ()))
        version = next((v for v in versions if v.given == given), None)
        # An Envoy may be quicker than the news of what it takes.
        version = version or self._came(place, given)
        if node not in version.taken_at:
            if self._notes >= _NOTES:
                return
            self._notes += 1
            version.taken_at[node] = at
        elif at == inf:
            version.taken_at[node] = at
        # Else it was told again, on a new stream or in another slot.


def _possible(versions: Sequence[_Version], node: str, begin: float, end: float) -> Iterator[Given]:
    for version in reversed(versions):
        if version.came_at - SKEW <= end:
            yield version.given
        if version.taken_at.get(node, inf) + SETTLE < begin:
            return  # what was before it was out of use by then
    yield UNKNOWN
