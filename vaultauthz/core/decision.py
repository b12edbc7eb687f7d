"""What a check comes to; why a request was not let through, and what the gateway is then told.

One table of the answers, so that Envoy and Kong answer alike and the documentation can quote
it. The numbers are the contract: see "Answers to the gateway" in docs/architecture.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple

from vaultauthz.core.credential import Credential


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


@dataclass(slots=True)
class Allowed:
    """Let it through with the credential's mutation applied.

    ``credential`` is None for a request that no upstream claims under
    ``unmatched: pass``: nothing is set. ``signed`` are headers for this one request,
    to set beside those of the credential's mutation, ``dropped`` are names of headers to
    drop beside those that it removes.
    """

    upstream: str
    stage: str
    credential: Credential | None
    signed: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dropped: tuple[str, ...] = ()
    allowed: ClassVar[bool] = True
    reason: ClassVar[str] = ""


@dataclass(slots=True)
class Denied:
    """Do not let it through. ``retry_after`` is in whole seconds, 0 for none."""

    reason: Reason
    upstream: str = ""
    stage: str = ""
    retry_after: int = 0
    allowed: ClassVar[bool] = False


Decision = Allowed | Denied


def denial_body(denied: Denied, request_id: str) -> str:
    """What the client is answered, as JSON; nothing of Vault's is in it."""
    return json.dumps({"error": denied.reason.value, "request_id": request_id})
