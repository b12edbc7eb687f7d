"""Why a request was not let through, and what the gateway is told.

One table, so that Envoy and Kong answer alike and the documentation can quote
it. The numbers are the contract: see "Answers to the gateway" in
docs/architecture.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Reason(StrEnum):
    """The machine-readable reason in a denied answer's body."""

    NO_UPSTREAM = "no_upstream"
    CALLER_DENIED = "caller_denied"
    NO_CREDENTIAL = "no_credential"
    BAD_REQUEST = "bad_request"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


class Status(NamedTuple):
    """An answer in both protocols: ``http`` status and ``grpc`` status code."""

    http: int
    grpc: int


# gRPC codes: 3 INVALID_ARGUMENT, 7 PERMISSION_DENIED, 8 RESOURCE_EXHAUSTED,
# 13 INTERNAL, 14 UNAVAILABLE.
ANSWERS: Final[dict[Reason, Status]] = {
    Reason.NO_UPSTREAM: Status(403, 7),
    Reason.CALLER_DENIED: Status(403, 7),
    Reason.NO_CREDENTIAL: Status(503, 14),
    Reason.BAD_REQUEST: Status(400, 3),
    Reason.OVERLOADED: Status(503, 8),
    Reason.INTERNAL: Status(500, 13),
}
