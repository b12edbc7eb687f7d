"""What will happen when: a pure function of the seed, so that a run that failed can be run again."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from tests.chaos.bounds import EXT_AUTHZ, KINDS, Kind

WARM_UP: Final = 8.0  # seconds at the start without a fault
SETTLE: Final = 20.0  # and at the end
LULL_EVERY: Final = 9  # faults; then there is time to recover, and some more
LULL: Final = 30.0
GAP: Final = (0.0, 7.0)
# Mild: for half a minute on a slow machine.
MILD_WARM_UP, MILD_SETTLE, MILD_GAP, MILD_LASTS = 3.0, 6.0, (0.3, 1.5), 3.0
# Restarts of ours end here, so that its memory can be watched from then on.
RESTARTS_UNTIL: Final = 0.6
RESTARTS: Final = frozenset({"ours.kill", "ours.stop", "ours.clock"})
_SLACK: Final = 2.5  # seconds that a part may take to be there again before the next fault holds it


@dataclass(frozen=True)
class Place:
    """An upstream in a stage, and its lifetimes in seconds; ``kv`` has a refresh instead of a TTL."""

    upstream: str
    stage: str
    ttl: float
    most: float  # max_ttl, or max_stale
    kv: bool = False
    per_caller: bool = False
    optional: bool = False

    @property
    def name(self) -> str:
        """Also its role in Vault, or its KV path, and the first part of its host."""
        return f"{self.upstream}-{self.stage}"


STAGES: Final = ("blue", "green")
_PLACES: Final = (
    Place("orders", "blue", 6, 20),
    Place("orders", "green", 8, 30),
    Place("ledger", "blue", 12, 40),
    Place("reports", "green", 20, 60, optional=True),
    Place("desk", "blue", 10, 30, per_caller=True),
    Place("geo", "blue", 1, 20, kv=True),
    Place("geo", "green", 1, 20, kv=True),
    Place("maps", "green", 2, 30, kv=True),
)


def places(mode: str) -> tuple[Place, ...]:
    """What is behind the gateway; SDS has no leases of one caller's own."""
    return tuple(place for place in _PLACES if mode == EXT_AUTHZ or not place.per_caller)


@dataclass(frozen=True)
class Step:
    """One fault: from ``at`` for ``seconds``, both in seconds of the run."""

    number: int
    at: float
    seconds: float
    kind: str
    place: str = ""  # where it is about one
    detail: float = 0.0  # in [0, 1): what else is to be chosen

    @property
    def of(self) -> Kind:
        """What is known of its kind."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind:<13} {self.seconds:4.1f} s  {self.place}".rstrip()


def plan(
    seed: int, seconds: float, mode: str, *, mild: bool = False, lacks: Collection[str] = ()
) -> tuple[Step, ...]:
    """The faults of a run. ``lacks``: what the machine has not (see ``Kind.needs``)."""
    chance = random.Random(f"{seed}/{mode}")
    names = [name for name, kind in KINDS.items() if _fits(kind, lacks, mild=mild)]
    steps: list[Step] = []
    free: dict[str, float] = {}
    at, end, lull = WARM_UP, seconds - SETTLE, LULL_EVERY
    if mild:
        at, end = MILD_WARM_UP, seconds - MILD_SETTLE
    while True:
        at += chance.uniform(*(MILD_GAP if mild else GAP))
        if not mild and len(steps) == lull:
            at, lull = max([at, *free.values()]) + LULL, lull + LULL_EVERY
        kind = chance.choices(names, [KINDS[name].weight for name in names])[0]
        where, detail, lasts = (
            chance.random(),
            chance.random(),
            chance.uniform(*KINDS[kind].seconds),
        )
        lasts = min(lasts, MILD_LASTS) if mild else lasts
        begin = max([at, *(free.get(held, 0.0) for held in KINDS[kind].holds)])
        if begin + lasts > end:
            return tuple(sorted(steps, key=lambda step: step.at))
        if kind in RESTARTS and begin > RESTARTS_UNTIL * seconds and not mild:
            continue
        free |= dict.fromkeys(KINDS[kind].holds, begin + lasts + _SLACK)
        steps.append(Step(len(steps) + 1, begin, lasts, kind, _place(kind, mode, where), detail))


def _fits(kind: Kind, lacks: Collection[str], *, mild: bool) -> bool:
    return (kind.mild or not mild) and kind.needs not in lacks


def _leased(place: Place) -> bool:
    return not place.kv


def _shared(place: Place) -> bool:
    return not place.per_caller


_ABOUT: Final[dict[str, Callable[[Place], bool]]] = {
    "kv.put": lambda place: place.kv,
    "kv.delete": lambda place: place.kv,
    "bao.role": _leased,
    "bao.lease": _leased,
    "bao.prefix": _leased,
    "pg.drop": lambda place: _leased(place) and _shared(place),
    "bao.token": lambda _place: True,
    "ours.rotate": _shared,
    "ours.revoke": _shared,
    "ours.reload": lambda place: place.upstream in ("orders", "ledger", "maps"),
}


def _place(kind: str, mode: str, where: float) -> str:
    """The place that a fault is about, "" where it is about none."""
    if kind not in _ABOUT:
        return ""
    fit = [place.name for place in places(mode) if _ABOUT[kind](place)]
    return fit[int(where * len(fit))]
