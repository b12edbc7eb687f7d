"""Lines of Envoy's access log as a file, as Envoy 1.40 writes what is printed for it."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any, Final

from tests.unit.envoy.als_entries import NOW
from vaultauthz._pb.accesslog_pb2 import HTTPAccessLogEntry

LINE: Final = MappingProxyType(
    {
        "attempts": 1,
        "details": "via_upstream",
        "host": "pay.example.com",
        "method": "GET",
        "node": "edge/gw-1",
        "path": "/v1/charges",
        "request_id": "r-1",
        "route_stage": "production",
        "route_upstream": "payments",
        "sent_us": 500_000,
        "stage": "production",
        "status": 200,
        "time": f"{NOW - 10:.6f}",
        "upstream": "payments",
    }
)


def line(**changes: Any) -> dict[str, Any]:
    """A line's values with these changes; None for a key that Envoy leaves out."""
    return {key: value for key, value in (LINE | changes).items() if value is not None}


def written(**changes: Any) -> bytes:
    """The same as it stands in the file, without its end."""
    return json.dumps(line(**changes), separators=(",", ":")).encode()


def line_of(entry: HTTPAccessLogEntry) -> dict[str, Any]:
    """What Envoy writes about the request of which it would send this entry."""
    common, request, response = entry.common_properties, entry.request, entry.response
    begin = common.start_time.seconds * 10**6 + common.start_time.nanos // 1000
    sent = None
    if common.HasField("time_to_first_upstream_tx_byte"):
        taken = common.time_to_first_upstream_tx_byte
        sent = taken.seconds * 10**6 + taken.nanos // 1000
    tags = {name: text.decode() for name, text in common.custom_tags.items()}
    return line(
        time=f"{begin // 10**6}.{begin % 10**6:06d}",
        sent_us=sent,
        attempts=common.upstream_request_attempt_count,
        status=response.response_code.value,
        details=response.response_code_details.decode() or None,
        path=request.path.partition(b"?")[0].decode(),
        stage=tags.get("vaultauthz.stage"),
        upstream=tags.get("vaultauthz.upstream"),
        route_stage=tags.get("vaultauthz.route.stage"),
        route_upstream=tags.get("vaultauthz.route.upstream"),
    )
