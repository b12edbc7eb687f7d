"""What is made of the measured numbers; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Rounds = Mapping[str, Sequence[Mapping[str, float]]]  # variant → one record for each round


@dataclass(frozen=True)
class Ratio:
    """The median of a ratio that was taken within each round, and how far the rounds lie apart."""

    median: float
    least: float
    most: float


def rotated(names: Sequence[str], round_number: int) -> list[str]:
    """The order of one round: what came first comes last in the next.

    So none of them always runs after the same neighbour, or first on a cool machine.
    """
    at = round_number % len(names) if names else 0
    return [*names[at:], *names[:at]]


def ratio(rounds: Rounds, one: str, other: str, key: str) -> Ratio | None:
    """``one`` against ``other`` by ``key``; None if either was not measured."""
    if not rounds.get(one) or not rounds.get(other):
        return None
    pairs = zip(rounds[one], rounds[other], strict=True)
    found = [ours[key] / theirs[key] for ours, theirs in pairs]
    return Ratio(statistics.median(found), min(found), max(found))


def median(rounds: Rounds, name: str, key: str) -> float:
    """The median of one figure over the rounds."""
    return statistics.median(record[key] for record in rounds[name])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` (0 to 1) of them do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def growth(samples: Sequence[tuple[int, int]]) -> float:
    """Bytes of memory for each check: the least squares slope through (checks, bytes).

    A slope, because a single page that the allocator takes late is no leak.
    """
    line = statistics.linear_regression(
        [checks for checks, _ in samples], [size for _, size in samples]
    )
    return line.slope
