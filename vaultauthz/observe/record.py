"""One line of the audit log: which keys it has, and what is kept out of it.

Every line has every key, in one order; what does not apply is "". So a table
made from the log needs no schema, and a line's shape tells nothing apart from
its values.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from typing import Final

from vaultauthz.core.decision import Allowed, Decision
from vaultauthz.core.events import Access, Event
from vaultauthz.core.request import Request
from vaultauthz.core.routing import path_of

REQUEST_ALLOWED: Final = "request.allowed"
REQUEST_DENIED: Final = "request.denied"

# Between `seq` and `prev`: what an entry brings, in its order.
_FIELDS: Final = (
    "event",
    "stage",
    "upstream",
    "lease_id",
    "credential_id",
    "caller",
    "gateway",
    "request_id",
    "method",
    "host",
    "path",
    "decision",
    "status",
    "reason",
    "vault_request_id",
)
KEYS: Final = ("time", "seq", *_FIELDS, "prev")

# Characters of one value. A longer one is cut here and ends with CUT, so that a
# client cannot fill the disk, or the queue's memory, with a path of a megabyte.
MAX_TEXT: Final = 1024
CUT: Final = "…"
_KEPT: Final = MAX_TEXT + 1  # one more than is shown: its presence says that there was more

# A plain tuple: making a NamedTuple or dataclass costs the request path 0.3 µs more.
# Seconds since the epoch, then the values of _FIELDS.
Entry = tuple[
    float, str, str, str, str, str, str, str, str, str, str, str, str, str, str, str
]  # fmt: skip
_PATH: Final = _FIELDS.index("path")

_TEMPLATE: Final = "{" + ",".join(f'"{key}":%s' for key in KEYS) + "}"


def of_check(when: float, request: Request, decision: Decision) -> Entry:
    """The entry for a check; runs on the request path, so it only picks and cuts.

    It keeps no reference to the request: its cookie and claims are let go.
    """
    credential = None
    event, answer = REQUEST_DENIED, "denied"
    if isinstance(decision, Allowed):
        event, answer, credential = REQUEST_ALLOWED, "allowed", decision.credential
    return (
        when,
        event,
        decision.stage,
        decision.upstream,
        credential.lease_id if credential else "",
        credential.credential_id if credential else "",
        request.caller[:_KEPT],
        request.gateway,
        request.request_id[:_KEPT],
        request.method[:_KEPT],
        _host(request.host)[:_KEPT],
        request.path[:_KEPT],
        answer,
        "",
        decision.reason,
        "",
    )


def of_access(access: Access) -> Entry:
    """The entry for a request that no check was made for; its time is the request's."""
    return (
        access.at,
        REQUEST_ALLOWED if access.allowed else REQUEST_DENIED,
        access.stage,
        access.upstream,
        access.lease_id,
        access.credential_id,
        access.caller[:_KEPT],
        access.gateway,
        access.request_id[:_KEPT],
        access.method[:_KEPT],
        _host(access.host)[:_KEPT],
        access.path[:_KEPT],
        "allowed" if access.allowed else "denied",
        str(access.status) if access.status else "",
        access.reason,
        "",
    )


def _host(text: str) -> str:
    return text.rpartition("@")[2] if "@" in text else text  # user:password@host


def of_event(when: float, event: Event) -> Entry:
    """The entry for something that happened to a login or a lease."""
    return (
        when,
        event.name,
        event.stage,
        event.upstream,
        event.lease_id,
        event.credential_id,
        event.caller[:_KEPT],
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        event.reason,
        event.vault_request_id,
    )


def line(entry: Entry, seq: int, prev: str) -> bytes:
    """The line for ``entry`` without its newline: ASCII, control characters escaped.

    The path goes in without its query string, which may hold a secret.
    """
    texts = list(entry[1:])
    texts[_PATH] = path_of(texts[_PATH])
    values = [quote(t) if len(t) <= MAX_TEXT else quote(t[:MAX_TEXT] + CUT) for t in texts]
    return (_TEMPLATE % (f'"{timestamp(entry[0])}"', seq, *values, f'"{prev}"')).encode("ascii")


def timestamp(when: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, with microseconds."""
    micros = round(when * 1e6)
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=4)  # most lines are of the second that the line before them was of
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).isoformat()[:19]


def place_of(line: bytes) -> tuple[int, str] | None:
    """``(seq, prev)`` of a line, or None when it is no whole record."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    seq, prev = record.get("seq"), record.get("prev")
    if type(seq) is int and isinstance(prev, str):
        return seq, prev
    return None
