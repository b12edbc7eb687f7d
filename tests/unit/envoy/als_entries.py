"""Entries of Envoy's access log, as Envoy 1.40 fills them in, and whoever hears of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from google.protobuf.struct_pb2 import Struct

from vaultauthz._pb.accesslog_pb2 import (
    AccessLogCommon,
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
    TLSProperties,
)
from vaultauthz.core.events import Access
from vaultauthz.envoy.access_logs.unchecked import Listeners

NODE = "gw-1"
PLACE = ("production", "payments")
OURS = MappingProxyType({"vaultauthz.stage": b"production", "vaultauthz.upstream": b"payments"})
NO_TAGS: Mapping[str, bytes] = MappingProxyType({})
NOW = 1_790_000_000.0
END = 6  # AccessLogType.DownstreamEnd
CHECK = MappingProxyType(
    {
        "upstream": "payments", "stage": "production", "credential_id": "c_1",
        "lease_id": "database/1", "request_id": "r-1",
    }
)  # fmt: skip
Certificate = TLSProperties.CertificateProperties


def entry(
    status: int = 200,
    details: bytes = b"via_upstream",
    *,
    start: float = NOW - 10,
    sent_after: float | None = 0.5,
    tags: Mapping[str, bytes] = OURS,
    path: bytes = b"/v1/charges?key=s3cr3t",
) -> HTTPAccessLogEntry:
    """An entry of SDS mode; ``sent_after`` is in seconds, None for a request that was not sent."""
    made = HTTPAccessLogEntry(common_properties=AccessLogCommon(access_log_type=END))
    common = made.common_properties
    common.start_time.FromNanoseconds(int(start * 1e9))
    if sent_after is not None:
        common.time_to_first_upstream_tx_byte.FromNanoseconds(int(sent_after * 1e9))
        common.upstream_request_attempt_count = 1
    for name, value in tags.items():
        common.custom_tags[name] = value
    made.request.request_method = 1
    made.request.authority, made.request.path = b"pay.example.com", path
    made.request.request_id = b"r-1"
    made.response.response_code.value = status
    made.response.response_code_details = details
    return made


def checked(status: int = 200, answer: Mapping[str, str] = CHECK) -> HTTPAccessLogEntry:
    """An entry of ext_authz mode, with the dynamic metadata of our own answer."""
    made = entry(status, tags={})
    note(made, "envoy.filters.http.ext_authz", dict(answer))
    return made


def note(made: HTTPAccessLogEntry, namespace: str, values: Mapping[str, Any]) -> None:
    """Give the entry a filter's metadata."""
    struct = Struct()
    struct.update(dict(values))
    metadata = made.common_properties.metadata
    metadata.filter_metadata[namespace] = struct.SerializeToString()


def certificate(made: HTTPAccessLogEntry) -> Certificate:
    """The client certificate of the entry's connection, to be filled in."""
    return made.common_properties.tls_properties.peer_certificate_properties


def message(entries: Iterable[HTTPAccessLogEntry | bytes], node: str = NODE) -> bytes:
    """A stream's message; with ``node``, its first."""
    made = StreamAccessLogsMessage()
    if node:
        made.identifier.node.id = node
    for one in entries:
        made.http_logs.log_entry.append(one if isinstance(one, bytes) else one.SerializeToString())
    return made.SerializeToString()


@dataclass
class Heard:
    """What the listeners were told."""

    accesses: list[Access] = field(default_factory=list)
    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    rejections: list[tuple[str, str, str]] = field(default_factory=list)
    trials: list[tuple[str, str, str, int]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def listeners(self) -> Listeners:
        """Listeners that write it down; they know one upstream."""
        return Listeners(
            record=self.accesses.append,
            answered=lambda *answer: self.answers.update([answer]),
            rejected=self._reject,
            ignored=lambda why, count: self.ignored.update({why: count}),
            known=lambda *place: place == PLACE,
            tried=lambda *trial: self.trials.append(trial),
        )

    def _reject(self, upstream: str, stage: str, credential_id: str) -> bool:
        self.rejections.append((upstream, stage, credential_id))
        return True
