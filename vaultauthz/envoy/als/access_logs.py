"""``envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs``: a stream in, nothing out.

Whoever can open the stream is believed as far as the gateway is believed in a check: the
socket's mode or the client's certificate says who that is. What it costs us is bounded:
entries of a message, bytes of a message, characters of a text, and 401s that are passed on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from vaultauthz._pb.accesslog_pb2 import (
    AccessLogCommon,
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
)
from vaultauthz.core.events import Access
from vaultauthz.core.trace import where
from vaultauthz.envoy.als import entry as read
from vaultauthz.envoy.als.rejections import Reject, Rejections
from vaultauthz.envoy.als.versions import UNKNOWN, Given, Versions
from vaultauthz.envoy.node import name_of

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = f"/{SERVICE}/StreamAccessLogs"
# Envoy's first message has 64 KB, since it lists all of Envoy's extensions; the others are
# as large as its `buffer_size_bytes`.
MOST_BYTES: Final = 1024 * 1024
MOST_ENTRIES: Final = 4096
# Entries in a row; then checks, which wait for the interpreter, have their turn. About 0.3 ms.
_TURN: Final = 32
_MOST_WARNINGS: Final = 1000

# Why entries are passed over; the labels of a metric.
TOO_LARGE: Final = "too_large"  # messages, whatever number of entries was in them
TOO_MANY: Final = "too_many"
UNREADABLE: Final = "unreadable"
NOT_OURS: Final = "not_ours"  # no upstream of ours was asked for
UNKNOWN_UPSTREAM: Final = "unknown_upstream"
INTERNAL: Final = "internal"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what; called by the threads of all streams.

    ``record`` may wait for room in the audit log, and so hold the stream back; none of the
    others may.
    """

    record: Callable[[Access], None]  # what no check has recorded
    answered: Callable[[str, str, int], None]  # stage, upstream, its status; 0 for no answer
    rejected: Reject
    ignored: Callable[[str, int], None]  # why, and how many entries
    known: Callable[[str, str], bool]  # whether stage and upstream are in the configuration


class AccessLogs:
    """Takes Envoy's access logs in. ``wall`` is the time in seconds since 1970."""

    def __init__(
        self, versions: Versions, listeners: Listeners, wall: Callable[[], float] = time.time
    ) -> None:
        self._versions = versions
        self._tell = listeners
        self._rejections = Rejections(listeners.rejected)
        self._wall = wall
        self._warned: set[tuple[str, str]] = set()

    def stream(self, messages: Iterator[bytes]) -> bytes:
        """Take in a stream of StreamAccessLogsMessages to its end; the empty response to it.

        Nothing in a message ends the stream: Envoy would only open it again.
        """
        node = ""
        for data in messages:
            if len(data) > MOST_BYTES:
                self._tell.ignored(TOO_LARGE, 1)
                continue
            try:
                message = StreamAccessLogsMessage.FromString(data)
            except DecodeError:
                self._tell.ignored(UNREADABLE, 1)
                continue
            if message.HasField("identifier"):
                node = name_of(message.identifier.node)
            self._take_all(message.http_logs.log_entry, node)
        return b""

    def _take_all(self, entries: Sequence[bytes], node: str) -> None:
        if len(entries) > MOST_ENTRIES:
            self._tell.ignored(TOO_MANY, len(entries) - MOST_ENTRIES)
        now, failures = self._wall(), 0
        for number, data in enumerate(entries[:MOST_ENTRIES], 1):
            try:
                self._take(HTTPAccessLogEntry.FromString(data), node, now)
            except DecodeError:
                self._tell.ignored(UNREADABLE, 1)
            except Exception as exc:  # noqa: BLE001 - one entry must not cost us the stream
                failures += 1
                if failures == 1:
                    log.error("access log entries are lost: %s", where(exc))  # noqa: TRY400
            if number % _TURN == 0:
                time.sleep(0)
        if failures:
            self._tell.ignored(INTERNAL, failures)

    def _take(self, entry: HTTPAccessLogEntry, node: str, now: float) -> None:
        common = entry.common_properties
        if not read.ended(common):
            return
        checked = read.checked(common)
        if checked is None:
            self._take_unchecked(entry, node, now)
        elif checked.credential_id:
            status = read.answer(entry)
            self._tell.answered(checked.stage, checked.upstream, status)
            if status == 401:
                self._rejections.tell(checked.upstream, checked.stage, checked.credential_id)

    def _take_unchecked(self, entry: HTTPAccessLogEntry, node: str, now: float) -> None:
        """SDS: Envoy had the credential, and did not ask."""
        common = entry.common_properties
        stage, upstream = read.tagged(common)
        if not upstream:
            self._tell.ignored(NOT_OURS, 1)
        elif not self._tell.known(stage, upstream):
            self._tell.ignored(UNKNOWN_UPSTREAM, 1)
            self._warn(stage, upstream)
        elif reason := read.refusal(entry):
            refused = read.access(entry, stage, upstream, _at(common, now))
            refused.allowed, refused.reason = False, reason.value
            self._tell.record(refused)
        else:
            status = read.answer(entry)
            self._tell.answered(stage, upstream, status)
            if read.sent(common):
                self._take_use(entry, node, now, (stage, upstream), status)

    def _take_use(
        self, entry: HTTPAccessLogEntry, node: str, now: float, place: tuple[str, str], status: int
    ) -> None:
        stage, upstream = place
        span = read.span(entry.common_properties, now)
        possible: tuple[Given, ...] = (UNKNOWN,)
        if span is not None:
            possible = self._versions.between(node, stage, upstream, *span)
        used = read.access(entry, stage, upstream, span[1] if span else now)
        used.status = status
        if len(possible) == 1:
            used.credential_id, used.lease_id = possible[0]
        if not used.credential_id:
            used.reason = _doubt(possible)
        self._tell.record(used)
        if status == 401 and used.credential_id:
            self._rejections.tell(upstream, stage, used.credential_id)

    def _warn(self, stage: str, upstream: str) -> None:
        if (stage, upstream) in self._warned or len(self._warned) >= _MOST_WARNINGS:
            return
        self._warned.add((stage, upstream))
        log.warning(
            "access logs: Envoy names upstream %r, stage %r, which the configuration does not have",
            upstream[:200],
            stage[:200],
        )


def _at(common: AccessLogCommon, now: float) -> float:
    span = read.span(common, now)
    return span[0] if span else now


def _doubt(possible: Sequence[Given]) -> str:
    """The reason in an audit line that names no credential: what it can have been."""
    names = [given.credential_id for given in possible if given is not UNKNOWN]
    if not names:
        return "credential not known"
    return "credential " + " or ".join(names) + (" or one before" if UNKNOWN in possible else "")
