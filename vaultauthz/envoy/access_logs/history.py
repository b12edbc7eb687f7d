"""Which credential each Envoy had at a ids time, from what came and what Envoy took.

Envoy does not tell which version of a secret it put on a request. What is known: it cannot
have used one before that came from Vault, and it used no older one once it had acknowledged
this one, give or take the moment that its workers need to hear of it and what its clock
differs from ours. So the answer to "which" is one credential, or near a change the few that
it can have been; never a guess.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Final, NamedTuple

from vaultauthz.core import events
from vaultauthz.core.events import Event
from vaultauthz.core.routing import StageUpstream

# Seconds that Envoy's clock may be ahead of or behind ours, and that its workers may need to
# take over what its main thread has acknowledged.
SKEW: Final = 1.0
SETTLE: Final = 1.0
_KEPT: Final = 16  # versions of one secret: a request may last for hours
_NOTES: Final = 500_000  # of an Envoy that took a version; beyond, none are made
_MOST_SETTLED: Final = 1000  # Envoys of one secret whose answer is kept


class CredentialIds(NamedTuple):
    """A credential, by its id; "" for one that is not known."""

    credential_id: str
    lease_id: str


UNKNOWN: Final = CredentialIds("", "")


@dataclass(slots=True)
class _Version:
    ids: CredentialIds
    came_at: float
    # By node: when it acknowledged this one; infinity where it refused a part of it, and so
    # may go on with the one before.
    taken_at: dict[str, float] = field(default_factory=dict)


class _Settled(NamedTuple):
    """From then on it was this one, until something is heard of another."""

    since: float
    ids: tuple[CredentialIds]


_NONE: Final[Mapping[tuple[str, bool], _Settled]] = MappingProxyType({})


class CredentialHistory:
    """Hears what happens to credentials, and is asked by the access logs; safe for threads.

    ``wall`` is the time in seconds since 1970. A node's name must be one Envoy's alone.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._versions: dict[StageUpstream, list[_Version]] = {}
        self._settled: dict[StageUpstream, dict[tuple[str, bool], _Settled]] = {}
        self._notes = 0

    def record_event(self, event: Event) -> None:
        """Note a credential that came, or that an Envoy took or refused; a Listener."""
        key, ids = (
            (event.stage, event.upstream),
            CredentialIds(event.credential_id, event.lease_id),
        )
        with self._lock:
            match event.name:
                case events.ISSUED | events.ROTATED if not event.caller:  # else not for Envoys
                    self._came(key, ids)
                case events.SDS_DELIVERED:
                    self._heard(key, ids, event.caller, self._wall())
                case events.SDS_REFUSED:
                    self._heard(key, ids, event.caller, inf)
            self._settled.pop(key, None)

    def between(
        self, node: str, stage: str, upstream: str, begin: float, end: float, *, sure: bool = True
    ) -> tuple[CredentialIds, ...]:
        """What a request may carry that got its credential in this time; the latest first.

        The times are Envoy's, in seconds since 1970. ``UNKNOWN`` stands for what was before
        the first version that is remembered, and for all of an Envoy that never took one.
        Where the node is not ``sure``, as in a file, such an Envoy may besides be any that
        took one, under another name.
        """
        key, asked = (stage, upstream), (node, sure)
        settled = self._settled.get(key, _NONE).get(asked)
        # Without the lock: a request that is over did not carry what comes just now.
        if settled and settled.since < begin <= end:
            return settled.ids
        with self._lock:
            versions: Sequence[_Version] = self._versions.get(key, ())
            if any(node in version.taken_at for version in versions):
                self._settle(key, asked, _since(versions[-1], node))
                return tuple(dict.fromkeys(_possible(versions, (node,), begin, end)))
            anybody = set[str]() if sure else {name for v in versions for name in v.taken_at}
            # Or it is itself, goes on with what it had before we began, and will be back.
            return tuple(dict.fromkeys((*_possible(versions, anybody, begin, end), UNKNOWN)))

    def _settle(self, key: StageUpstream, asked: tuple[str, bool], since: float) -> None:
        """Note from when on it was the latest version, whatever is asked of the time after."""
        if since == inf:
            return
        noted = self._settled.setdefault(key, {})
        if len(noted) >= _MOST_SETTLED:
            noted.clear()
        noted[asked] = _Settled(since, (self._versions[key][-1].ids,))

    def _came(self, key: StageUpstream, ids: CredentialIds) -> _Version:
        versions = self._versions.setdefault(key, [])
        if not versions or versions[-1].ids != ids:
            versions.append(_Version(ids, self._wall()))
            self._notes -= sum(len(version.taken_at) for version in versions[:-_KEPT])
            del versions[:-_KEPT]
        return versions[-1]

    def _heard(self, key: StageUpstream, ids: CredentialIds, node: str, at: float) -> None:
        versions = reversed(self._versions.get(key, ()))
        version = next((v for v in versions if v.ids == ids), None)
        # An Envoy may be quicker than the news of what it takes.
        version = version or self._came(key, ids)
        if node not in version.taken_at:
            if self._notes >= _NOTES:
                return
            self._notes += 1
            version.taken_at[node] = at
        elif at == inf:
            version.taken_at[node] = at
        # Else it was told again, on a new stream or in another slot.


def _since(latest: _Version, node: str) -> float:
    """When it had put away what was before ``latest``; infinity when it has not."""
    return max(_settled_at(latest, node), latest.came_at - SKEW)


def _settled_at(version: _Version, node: str) -> float:
    """From when on it used nothing older, by its own clock, however that differs from ours."""
    return version.taken_at.get(node, inf) + SETTLE + SKEW


def _possible(
    versions: Sequence[_Version], nodes: Collection[str], begin: float, end: float
) -> Iterator[CredentialIds]:
    """What may have been put on, whichever of these Envoys it was."""
    left = set(nodes)
    if not left:
        return
    for version in reversed(versions):
        if version.came_at - SKEW <= end:
            yield version.ids
        # Of the others, what was before it was out of use by then.
        left = {node for node in left if _settled_at(version, node) >= begin}
        if not left:
            return
    yield UNKNOWN
