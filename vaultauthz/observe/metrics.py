"""Counters and gauges for Prometheus, in its text format 0.0.4.

They live in a registry of our own, so that a program that embeds us keeps its
default registry to itself. Label values are names from the configuration and
words of ours, never text that a client sends: the number of series is bounded.

Checks are noted one by one, and added up many at a time. A note is one append, which any thread
may make. To add up a batch costs a fraction of what it costs to count each check by itself.
"""

from __future__ import annotations

import collections
import platform
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from vaultauthz.core import events
from vaultauthz.core.decision import Decision
from vaultauthz.core.events import Event, Exchange
from vaultauthz.core.grant import FAILURE_WORDS
from vaultauthz.core.routing import StageUpstream
from vaultauthz.observe.gauges import Gauges, Scraped
from vaultauthz.observe.metric_table import (
    ACCESS_IGNORED,
    ANSWERS,
    BUILD,
    CALL_BUCKETS,
    CHECK_BUCKETS,
    CHECK_SECONDS,
    CHECKS,
    LEASE_EVENTS,
    REJECTIONS,
    VAULT_CALL_SECONDS,
    VAULT_CALLS,
    VAULT_FAILURES,
    MetricInfo,
)

_FAILED: Final = (events.FAILED, events.NOT_REVOKED, events.TOKEN_NOT_REVOKED)
_KINDS: Final = {hundreds: f"{hundreds}xx" for hundreds in range(1, 6)}
_TOGETHER: Final = 256

_Key = tuple[str, str, str]  # … and the reason of a denial


class Metrics:
    """Counts from any thread. ``known`` are the (stage, upstream) pairs of the configuration."""

    def __init__(self, known: Iterable[StageUpstream], version: str) -> None:
        self._registry = CollectorRegistry()
        self._lease_events = _counter(LEASE_EVENTS, self._registry)
        self._failures = _counter(VAULT_FAILURES, self._registry)
        self._calls = _counter(VAULT_CALLS, self._registry)
        self._call_seconds = Histogram(
            *VAULT_CALL_SECONDS[:3], buckets=CALL_BUCKETS, registry=self._registry
        )
        self._answers = _counter(ANSWERS, self._registry)
        # To find one by its labels costs more than all else that a request's end does here.
        self._answer_children: dict[tuple[str, str, str], Counter] = {}
        self._rejections = _counter(REJECTIONS, self._registry)
        self._ignored = _counter(ACCESS_IGNORED, self._registry)
        build = Info(*BUILD[:2], registry=self._registry)
        build.info({"version": version, "python": platform.python_version()})
        ProcessCollector(registry=self._registry)
        self._tally = CheckCounts(self._labels)
        self.count = self._tally.count  # of each check, so without a call between
        self._registry.register(self._tally)
        self.configured(known)

    def configured(self, known: Iterable[StageUpstream]) -> None:
        """Take over the pairs of a new configuration; the counts go on."""
        self._tally.add_up()  # by the names of before
        self._known = frozenset(known)
        self._answer_children.clear()
        self._stages = frozenset(stage for stage, _ in self._known)

    def watch(self, gauges: Gauges) -> None:
        """Show these values at each scrape from now on; once for each Metrics."""
        self._registry.register(Scraped(gauges))

    def record_event(self, event: Event) -> None:
        """Count an event of the keeper; a Listener."""
        stage, upstream = self._labels(event.stage, event.upstream)
        self._lease_events.labels(stage, upstream, event.name).inc()
        if event.name in _FAILED:
            word = event.failure if event.failure in FAILURE_WORDS else "other"
            self._failures.labels(stage, word).inc()

    def record_call(self, call: Exchange) -> None:
        """Count and time a call to Vault; a CallListener."""
        stage, _ = self._labels(call.stage, "")
        self._calls.labels(stage, call.operation.value, _class(call.status)).inc()
        self._call_seconds.labels(stage, call.operation.value).observe(call.seconds)

    def count_answer(self, stage: str, upstream: str, status: int) -> None:
        """Count an upstream's answer; ``status`` 0 for none."""
        kind = _KINDS.get(status // 100, "other") if status else "none"  # of each request: no call
        child = self._answer_children.get((stage, upstream, kind))
        if child is None:
            child = self._answers.labels(*self._labels(stage, upstream), kind)
            if (stage, upstream) in self._known:
                self._answer_children[stage, upstream, kind] = child
        child.inc()

    def count_rejection(self, stage: str, upstream: str) -> None:
        """Count a 401 that was passed on to the keeper."""
        self._rejections.labels(*self._labels(stage, upstream)).inc()

    def count_ignored(self, reason: str, entries: int) -> None:
        """Count entries of an access log that were passed over; ``reason`` is a word of ours."""
        self._ignored.labels(reason).inc(entries)

    def text(self) -> str:
        """Everything in the text format 0.0.4."""
        return generate_latest(_WithoutCreated(self._registry)).decode()

    def _labels(self, stage: str, upstream: str) -> StageUpstream:
        if (stage, upstream) in self._known:
            return stage, upstream
        return (stage if stage in self._stages else ""), ""


def _class(status: int) -> str:
    """Of an HTTP status, 0 for no answer."""
    return _KINDS.get(status // 100, "other") if status else "none"


def _counter(metric: MetricInfo, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


class _WithoutCreated(Collector):
    """Drops the ``_created`` series, which double the number of counters.

    The library can be told not to make them, but only for the whole process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


class CheckCounts(Collector):
    """Counts checks; ``labels`` says under which stage and upstream these are certificate."""

    def __init__(self, labels: Callable[[str, str], StageUpstream]) -> None:
        self._labels = labels
        self._noted: deque[tuple[_Key, float]] = deque()
        self._lock = Lock()
        self._checks: collections.Counter[_Key] = collections.Counter()
        self._buckets: collections.Counter[int] = collections.Counter()
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
            for (stage, upstream, reason), number in collections.Counter(
                key for key, _ in noted
            ).items():
                self._checks[*self._labels(stage, upstream), str.__str__(reason)] += number
            taken = [seconds for _, seconds in noted]
            self._buckets.update([bisect_left(CHECK_BUCKETS, seconds) for seconds in taken])
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
        for number, bound in enumerate((*map(str, CHECK_BUCKETS), "+Inf")):
            so_far += self._buckets[number]
            yield bound, so_far
