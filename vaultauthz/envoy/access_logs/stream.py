"""``envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs``: a stream in, nothing out.

Whoever can open the stream is believed as far as the gateway is believed in a check: the
socket's mode or the client's certificate says who that is. What it costs us is bounded:
entries of a message, bytes of a message, characters of a text, and 401s that are passed on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from vaultauthz._pb.accesslog_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage
from vaultauthz.admin.overview import ConnectedGateway
from vaultauthz.core.redaction import where
from vaultauthz.envoy.access_logs import finished
from vaultauthz.envoy.access_logs.history import CredentialHistory
from vaultauthz.envoy.access_logs.unchecked import Listeners, Reporter, UncheckedRequests
from vaultauthz.envoy.request import name_of
from vaultauthz.leases.clock import boottime

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = f"/{SERVICE}/StreamAccessLogs"
# Envoy's first message has 64 KB, since it lists all of Envoy's extensions; the others are
# as large as its `buffer_size_bytes`.
MOST_BYTES: Final = 1024 * 1024
MOST_ENTRIES: Final = 4096
# Entries in a row; then checks, which wait for the interpreter, have their turn. About 0.3 ms.
_TURN: Final = 32

# Why entries are passed over; the labels of a metric.
TOO_LARGE: Final = "too_large"  # messages, whatever number of entries was in them
TOO_MANY: Final = "too_many"
UNREADABLE: Final = "unreadable"
BY_FILE: Final = "by_file"  # they are to come from a file instead
INTERNAL: Final = "internal"

log = logging.getLogger(__name__)


class AccessLogService:
    """Takes Envoy's access logs in. ``wall`` is the time in seconds since 1970.

    ``only_401s``: what no check was made for is recorded from elsewhere, and only leads to
    another credential here.
    """

    def __init__(
        self,
        history: CredentialHistory,
        listeners: Listeners,
        wall: Callable[[], float] = time.time,
        *,
        only_401s: bool = False,
    ) -> None:
        self.requests = UncheckedRequests(history, listeners)
        self._tell = listeners
        self._wall = wall
        self._only_401s = only_401s
        self._warned_of_file = False
        self._open: dict[object, ConnectedGateway] = {}

    @property
    def connected(self) -> tuple[ConnectedGateway, ...]:
        """The Envoys with a stream, as each names itself."""
        return tuple(self._open.values())

    def stream(self, messages: Iterator[bytes]) -> bytes:
        """Take in a stream of StreamAccessLogsMessages to its end; the empty response to it.

        Nothing in a message ends the stream: Envoy would only open it again.
        """
        here = object()
        self._open[here] = ConnectedGateway("", "access log", since=boottime())
        try:
            return self._taken_in(messages, here)
        finally:
            del self._open[here]

    def _taken_in(self, messages: Iterator[bytes], here: object) -> bytes:
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
                self._open[here] = self._open[here]._replace(name=node)
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
        if not finished.ended(common):
            return
        checked = finished.checked(common)
        if checked is None:
            self._take_unchecked(entry, node, now)
        elif checked.credential_id:
            status = finished.upstream_status(entry)
            self._tell.answered(checked.stage, checked.upstream, status)
            self._tell.tried(checked.stage, checked.upstream, checked.credential_id, status)
            if status == 401:
                self._tell.rejected(checked.upstream, checked.stage, checked.credential_id)

    def _passed_over(self, node: str) -> None:
        """Of this Envoy somebody expects an audit line, which has to come from the file."""
        self._tell.ignored(BY_FILE, 1)
        if not self._warned_of_file:
            self._warned_of_file = True
            log.warning(
                "access logs: Envoy %r reports requests over gRPC, which are not recorded, because "
                "audit.access_log is set; print its configuration anew, or take that key out",
                node[:200],
            )

    def _take_unchecked(self, entry: HTTPAccessLogEntry, node: str, now: float) -> None:
        """SDS: Envoy had the credential, and did not ask."""
        common = entry.common_properties
        key, reporter = finished.tagged(common), Reporter(node)
        if self._only_401s:
            if finished.upstream_status(entry) == 401:
                self.requests.rejected(*key, reporter, finished.span(common, now))
            elif key[1]:
                self._passed_over(node)
            return
        if not self.requests.known(*key):
            return
        span = finished.span(common, now)
        if reason := finished.refusal(entry):
            self.requests.refused(finished.access_of(entry, *key, span[0] if span else now), reason)
            return
        status = finished.upstream_status(entry)
        access = finished.access_of(entry, *key, span[1] if span else now)
        self.requests.answered(access, status)
        if finished.was_sent(common):
            self.requests.sent(access, status, reporter, span)
