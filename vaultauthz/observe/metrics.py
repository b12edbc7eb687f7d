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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Info,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from vaultauthz.core import events
from vaultauthz.core.decision import Decision
from vaultauthz.core.events import Event
from vaultauthz.core.routing import StageUpstream
from vaultauthz.observe.metric_table import (
    ACCESS_IGNORED,
    ACCESS_LOG_BEHIND,
    ANSWERS,
    AUDIT_BEHIND,
    AUDIT_DROPPED,
    AUDIT_WORKING,
    BUILD,
    CHECK_BUCKETS,
    CHECK_SECONDS,
    CHECKS,
    CHECKS_UNREAD,
    CLIENTS_REFUSED,
    LEASE_EVENTS,
    LEASE_SECONDS,
    LOGIN_SECONDS,
    MOST_REASONS,
    OWN_LEASES,
    READY,
    REFUSED,
    REJECTIONS,
    STREAMS,
    STREAMS_REFUSED,
    TLS_CURRENT,
    TLS_REPLACED,
    TLS_SECONDS,
    VAULT_FAILURES,
    MetricInfo,
)

_FAILED: Final = (events.FAILED, events.NOT_REVOKED, events.TOKEN_NOT_REVOKED)
_KINDS: Final = {hundreds: f"{hundreds}xx" for hundreds in range(1, 6)}
_TOGETHER: Final = 256

_Key = tuple[str, str, str]  # … and the reason of a denial


@dataclass(frozen=True, slots=True)
class ListenerCertificate:
    """What a listener shows who it is with; ``seconds_left`` may be infinite."""

    listener: str
    seconds_left: float
    current: bool
    taken: int
    refused: int


@dataclass(frozen=True, slots=True)
class DoorGauges:
    """A gateway's door's part of a scrape; a door that has no such thing has nothing of it."""

    streams: Callable[[], int] = lambda: 0
    streams_refused: Callable[[], int] = lambda: 0
    access_log_behind: Callable[[], int] = lambda: 0
    checks_unread: Callable[[], Mapping[str, int]] = dict  # by reason
    clients_refused: Callable[[], Mapping[str, int]] = dict  # by service


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a scrape asks for. Each runs on the thread that scrapes, and must not wait."""

    leases: Callable[[], Iterable[tuple[str, str, float]]]  # stage, upstream, seconds
    logins: Callable[[], Iterable[tuple[str, float]]]  # stage, seconds
    ready: Callable[[], bool]
    refused: Callable[[], Iterable[tuple[str, str, bool]]]  # stage, upstream, for each credential
    audit_dropped: Callable[[], int]
    audit_behind: Callable[[], int] = lambda: 0
    audit_working: Callable[[], bool] = lambda: True
    certificates: Callable[[], Iterable[ListenerCertificate]] = tuple
    own_leases: Callable[[], Iterable[tuple[str, str, float]]] = tuple  # stage, upstream, how many
    door: DoorGauges = DoorGauges()


class Metrics:
    """Counts from any thread. ``known`` are the (stage, upstream) pairs of the configuration."""

    def __init__(self, known: Iterable[StageUpstream], version: str) -> None:
        self._registry = CollectorRegistry()
        self._lease_events = _counter(LEASE_EVENTS, self._registry)
        self._failures = _counter(VAULT_FAILURES, self._registry)
        self._answers = _counter(ANSWERS, self._registry)
        # To find one by its labels costs more than all else that a request's end does here.
        self._answer_children: dict[tuple[str, str, str], Counter] = {}
        self._rejections = _counter(REJECTIONS, self._registry)
        self._ignored = _counter(ACCESS_IGNORED, self._registry)
        build = Info(*BUILD[:2], registry=self._registry)
        build.info({"version": version, "python": platform.python_version()})
        ProcessCollector(registry=self._registry)
        self._reasons: set[str] = set()
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
        self._registry.register(_Scraped(gauges))

    def record_event(self, event: Event) -> None:
        """Count an event of the keeper; a Listener."""
        stage, upstream = self._labels(event.stage, event.upstream)
        self._lease_events.labels(stage, upstream, event.name).inc()
        if event.name in _FAILED:
            self._failures.labels(stage, self._reason(event.reason)).inc()

    def count_answer(self, stage: str, upstream: str, status: int) -> None:
        """Count an upstream's answer; ``status`` 0 for none."""
        kind = _KINDS.get(status // 100, "other") if status else "none"
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

    def _reason(self, reason: str) -> str:
        if reason not in self._reasons and len(self._reasons) >= MOST_REASONS:
            return "other"
        self._reasons.add(reason)
        return reason


def _counter(metric: MetricInfo, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


class _Scraped(Collector):
    """The values that are asked for at each scrape."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        leases = GaugeMetricFamily(*LEASE_SECONDS[:2], labels=LEASE_SECONDS.labels)
        for stage, upstream, left in self._gauges.leases():
            leases.add_metric((stage, upstream), max(left, 0.0))
        logins = GaugeMetricFamily(*LOGIN_SECONDS[:2], labels=LOGIN_SECONDS.labels)
        for stage, left in self._gauges.logins():
            logins.add_metric((stage,), max(left, 0.0))
        own = GaugeMetricFamily(*OWN_LEASES[:2], labels=OWN_LEASES.labels)
        for stage, upstream, count in self._gauges.own_leases():
            own.add_metric((stage, upstream), count)
        refused = GaugeMetricFamily(*REFUSED[:2], labels=REFUSED.labels)
        for place, number in self._refused().items():
            refused.add_metric(place, number)
        yield leases
        yield refused
        yield own
        yield logins
        yield GaugeMetricFamily(*READY[:2], value=int(self._gauges.ready()))
        yield CounterMetricFamily(*AUDIT_DROPPED[:2], value=self._gauges.audit_dropped())
        yield GaugeMetricFamily(*AUDIT_BEHIND[:2], value=self._gauges.audit_behind())
        yield GaugeMetricFamily(*AUDIT_WORKING[:2], value=int(self._gauges.audit_working()))
        yield GaugeMetricFamily(*STREAMS[:2], value=self._gauges.door.streams())
        yield CounterMetricFamily(*STREAMS_REFUSED[:2], value=self._gauges.door.streams_refused())
        unread = CounterMetricFamily(*CHECKS_UNREAD[:2], labels=CHECKS_UNREAD.labels)
        for reason, count in self._gauges.door.checks_unread().items():
            unread.add_metric((reason,), count)
        yield unread
        yield GaugeMetricFamily(*ACCESS_LOG_BEHIND[:2], value=self._gauges.door.access_log_behind())
        clients = CounterMetricFamily(*CLIENTS_REFUSED[:2], labels=CLIENTS_REFUSED.labels)
        for service, count in self._gauges.door.clients_refused().items():
            clients.add_metric((service,), count)
        yield clients
        yield from self._certificates()

    def _refused(self) -> collections.Counter[StageUpstream]:
        """How many there are, also of those with none."""
        found: collections.Counter[StageUpstream] = collections.Counter()
        for stage, upstream, refused in self._gauges.refused():
            found[stage, upstream] += refused
        return found

    def _certificates(self) -> Iterator[Metric]:
        seconds = GaugeMetricFamily(*TLS_SECONDS[:2], labels=TLS_SECONDS.labels)
        current = GaugeMetricFamily(*TLS_CURRENT[:2], labels=TLS_CURRENT.labels)
        replaced = CounterMetricFamily(*TLS_REPLACED[:2], labels=TLS_REPLACED.labels)
        for certificate in self._gauges.certificates():
            seconds.add_metric((certificate.listener,), max(certificate.seconds_left, 0.0))
            current.add_metric((certificate.listener,), int(certificate.current))
            replaced.add_metric((certificate.listener, "taken"), certificate.taken)
            replaced.add_metric((certificate.listener, "refused"), certificate.refused)
        yield seconds
        yield current
        yield replaced


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
