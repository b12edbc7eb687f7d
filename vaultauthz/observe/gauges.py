"""What a scrape asks for: how it stands now with credentials, Vault, the audit log, certificates and gateways."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vaultauthz.core.certificate import ADMIN, GRPC, EndingCertificate
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.core.routing import StageUpstream
from vaultauthz.observe.metric_table import (
    ACCESS_LOG_BEHIND,
    ADMIN_REFUSED,
    AUDIT_BEHIND,
    AUDIT_DROPPED,
    AUDIT_WORKING,
    CERTIFICATE_END,
    CERTIFICATE_LEFT,
    CHECKS_UNREAD,
    CLIENTS_REFUSED,
    CONNECTIONS,
    CREDENTIALS_BY_STATE,
    LEASE_FAILED,
    LEASE_SECONDS,
    LEASE_TTL,
    LOGIN_FAILED,
    LOGIN_SECONDS,
    LOGIN_TTL,
    OWN_LEASES,
    READY,
    REFUSED,
    RELOAD_TAKEN,
    RELOAD_TIME,
    RELOADS,
    STATES,
    STREAMS,
    STREAMS_REFUSED,
    TLS_CURRENT,
    TLS_REPLACED,
    TLS_SECONDS,
    MetricInfo,
    MetricType,
)

_Samples = Iterable[tuple[tuple[str, ...], float | None]]  # label values, value; None is none


@dataclass(slots=True)
class Reloads:
    """How reloads went; ``at`` is when the configuration in use was read, in seconds since 1970."""

    at: float
    taken: int = 0
    refused: int = 0
    last_taken: bool = True  # the last one, or the start

    def took(self, at: float) -> None:
        """A reload was carried out."""
        self.at, self.taken, self.last_taken = at, self.taken + 1, True

    def refuse(self) -> None:
        """What was read is no configuration; the one before stays."""
        self.refused, self.last_taken = self.refused + 1, False


@dataclass(frozen=True, slots=True)
class DoorGauges:
    """A gateway's door's part of a scrape; a door that has no such thing has nothing of it."""

    connections: Callable[[], Mapping[str, int]] = dict  # that are open, by door
    streams: Callable[[], int] = lambda: 0
    streams_refused: Callable[[], int] = lambda: 0
    access_log_behind: Callable[[], int] = lambda: 0
    checks_unread: Callable[[], Mapping[str, int]] = dict  # by reason
    clients_refused: Callable[[], Mapping[str, int]] = dict  # by service


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a scrape asks for. Each runs on the thread that scrapes, and must not wait."""

    rows: Callable[[], Iterable[LeaseRow]]  # every login and lease
    known: Callable[[], Iterable[StageUpstream]]  # those of the configuration
    ready: Callable[[], bool]
    reloads: Reloads
    audit_dropped: Callable[[], int]
    audit_behind: Callable[[], int] = lambda: 0
    audit_working: Callable[[], bool] = lambda: True
    # … of whose credentials these are the rows: they are made under the keeper's lock, once a scrape.
    certificates: Callable[[list[LeaseRow]], Iterable[EndingCertificate]] = lambda _: ()
    own_leases: Callable[[], Iterable[tuple[str, str, float]]] = tuple  # stage, upstream, how many
    admin_refused: Callable[[], Mapping[str, int]] = dict  # by reason
    door: DoorGauges = DoorGauges()


class Scraped(Collector):
    """The values that are asked for at each scrape."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        gauges, door = self._gauges, self._gauges.door
        rows = list(gauges.rows())
        yield from _of_rows(rows, list(gauges.known()))
        own = (((stage, upstream), count) for stage, upstream, count in gauges.own_leases())
        yield _family(OWN_LEASES, own)
        yield _one(READY, gauges.ready())
        yield from _of_reloads(gauges.reloads)
        yield _one(AUDIT_DROPPED, gauges.audit_dropped())
        yield _one(AUDIT_BEHIND, gauges.audit_behind())
        yield _one(AUDIT_WORKING, gauges.audit_working())
        yield _counted(ADMIN_REFUSED, gauges.admin_refused())
        yield _counted(CONNECTIONS, door.connections())
        yield _one(STREAMS, door.streams())
        yield _one(STREAMS_REFUSED, door.streams_refused())
        yield _counted(CHECKS_UNREAD, door.checks_unread())
        yield _one(ACCESS_LOG_BEHIND, door.access_log_behind())
        yield _counted(CLIENTS_REFUSED, door.clients_refused())
        yield from _of_certificates(list(gauges.certificates(rows)), time.time())


def _of_rows(rows: list[LeaseRow], known: list[StageUpstream]) -> Iterator[Metric]:
    leases = [row for row in rows if row.upstream]
    shared, logins = (
        [row for row in leases if row.shared],
        [row for row in rows if not row.upstream],
    )
    for of_lease, of_login, value in _OF_ROWS:
        yield _family(of_lease, (((row.stage, row.upstream), value(row)) for row in shared))
        yield _family(of_login, (((row.stage,), value(row)) for row in logins))
    refused = collections.Counter(dict.fromkeys(known, 0))
    refused.update((row.stage, row.upstream) for row in leases if row.refused)
    yield _family(REFUSED, refused.items())
    states = {(stage, state): 0 for stage, _ in known for state in STATES}
    counted = collections.Counter(states)
    counted.update((row.stage, _state(row)) for row in leases)
    yield _family(CREDENTIALS_BY_STATE, counted.items())


def _left(row: LeaseRow) -> float:
    if not row.usable:
        return 0.0
    return inf if row.seconds_left is None else max(0.0, row.seconds_left)


# Of a lease and of a login; None for no series.
_OF_ROWS: Final[tuple[tuple[MetricInfo, MetricInfo, Callable[[LeaseRow], float | None]], ...]] = (
    (LEASE_SECONDS, LOGIN_SECONDS, _left),
    (LEASE_TTL, LOGIN_TTL, lambda row: row.ttl if row.usable else None),
    (LEASE_FAILED, LOGIN_FAILED, lambda row: row.failures),
)


def _state(row: LeaseRow) -> str:
    if not row.usable:
        return "none"
    if row.refused:
        return "refused"
    return "failing" if row.failures else "usable"


def _of_reloads(reloads: Reloads) -> Iterator[Metric]:
    yield _one(RELOAD_TAKEN, reloads.last_taken)
    yield _one(RELOAD_TIME, reloads.at)
    yield _counted(RELOADS, {"taken": reloads.taken, "refused": reloads.refused})


def _of_certificates(certificates: list[EndingCertificate], now: float) -> Iterator[Metric]:
    left = [max(one.seconds_left(now), 0.0) for one in certificates]
    places = [(one.use, one.stage, one.upstream) for one in certificates]
    yield _family(CERTIFICATE_LEFT, zip(places, left, strict=True))
    ends = (one.not_after for one in certificates)
    yield _family(CERTIFICATE_END, zip(places, ends, strict=True))
    listeners = [one for one in certificates if one.use in (GRPC, ADMIN)]
    yield _family(TLS_SECONDS, (((one.use,), max(one.seconds_left(now), 0.0)) for one in listeners))
    yield _family(TLS_CURRENT, (((one.use,), not one.trouble) for one in listeners))
    results = (
        ((one.use, result), count)
        for one in listeners
        for result, count in (("taken", one.taken), ("refused", one.refused))
    )
    yield _family(TLS_REPLACED, results)


def _family(metric: MetricInfo, samples: _Samples) -> Metric:
    make = CounterMetricFamily if metric.type is MetricType.COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value)
    return family


def _one(metric: MetricInfo, value: float) -> Metric:
    return _family(metric, [((), value)])


def _counted(metric: MetricInfo, counts: Mapping[str, float]) -> Metric:
    return _family(metric, (((name,), count) for name, count in counts.items()))
