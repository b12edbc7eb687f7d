"""Checks as they are counted: noted one by one, added up many at a time.

A note is one append, which any thread may make. To add up a batch costs a fraction of what
it costs to count each check by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from vaultauthz.core.decision import Decision
from vaultauthz.observe.described import CHECK_SECONDS, CHECKS

# A check takes tens of microseconds; what takes longer is worth seeing apart.
_BUCKETS: Final = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 5e-3, 25e-3, 0.1)
_TOGETHER: Final = 256

_Labels = tuple[str, str]  # stage, upstream
_Key = tuple[str, str, str]  # … and the reason of a denial


class Tally(Collector):
    """Counts checks; ``labels`` says under which stage and upstream these are shown."""

    def __init__(self, labels: Callable[[str, str], _Labels]) -> None:
        self._labels = labels
        self._noted: deque[tuple[_Key, float]] = deque()
        self._lock = Lock()
        self._checks: Counter[_Key] = Counter()
        self._buckets: Counter[int] = Counter()
        self._seconds = 0.0

    def count(self, decision: Decision, seconds: float) -> None:
        """Count a check that took ``seconds``, by its final answer."""
        self._noted.append(((decision.stage, decision.upstream, decision.reason), seconds))
        if len(self._noted) >= _TOGETHER:
            self.add_up()

    def add_up(self) -> None:
        """Add up what is noted, by the names of now."""
        with self._lock:
            # Only here are notes taken away, so as many are there as are counted now.
            noted = [self._noted.popleft() for _ in range(len(self._noted))]
            for (stage, upstream, reason), number in Counter(key for key, _ in noted).items():
                self._checks[*self._labels(stage, upstream), str.__str__(reason)] += number
            taken = [seconds for _, seconds in noted]
            self._buckets.update([bisect_left(_BUCKETS, seconds) for seconds in taken])
            self._seconds += sum(taken)

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        self.add_up()
        checks = CounterMetricFamily(*CHECKS[:2], labels=CHECKS.labels)
        with self._lock:
            for (stage, upstream, reason), number in self._checks.items():
                answer = "denied" if reason else "allowed"
                checks.add_metric((stage, upstream, answer, reason), number)
            seconds = HistogramMetricFamily(
                *CHECK_SECONDS[:2], buckets=list(self._cumulative()), sum_value=self._seconds
            )
        yield checks
        yield seconds

    def _cumulative(self) -> Iterator[tuple[str, float]]:
        so_far = 0
        for number, bound in enumerate((*map(str, _BUCKETS), "+Inf")):
            so_far += self._buckets[number]
            yield bound, so_far
