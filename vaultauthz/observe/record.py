"""One line of the audit log: which keys it has, and what is kept out of it.

Every line has every key, in one order; what does not apply is "". So a table
made from the log needs no schema, and a line's shape tells nothing apart from
its values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from typing import Final, Protocol

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

# Seconds since the epoch, and all of the line that stands between `seq` and `prev`. It is
# made where the entry is: that costs no more than to pick the values for later, and it
# keeps no reference to a request, whose cookie and claims are let go.
Entry = tuple[float, str]


def of_check(when: float, request: Request, decision: Decision) -> Entry:
    """The entry for a check; runs on the request path."""
    if isinstance(decision, Allowed):
        credential = decision.credential
        ids = (credential.lease_id, credential.credential_id) if credential else ("", "")
        return when, (
            _opening(REQUEST_ALLOWED, decision.stage, decision.upstream, *ids)
            + _middle(request)
            + _ALLOWED
        )
    return when, (
        _opening(REQUEST_DENIED, decision.stage, decision.upstream, "", "")
        + _middle(request)
        + _end("denied", "", decision.reason, "")
    )


def of_access(access: Access) -> Entry:
    """The entry for a request that no check was made for; its time is the request's."""
    event, answer = (REQUEST_ALLOWED, "allowed") if access.allowed else (REQUEST_DENIED, "denied")
    return access.at, (
        _opening(event, access.stage, access.upstream, access.lease_id, access.credential_id)
        + _middle(access)
        + _end(answer, str(access.status) if access.status else "", access.reason, "")
    )


def of_event(when: float, event: Event) -> Entry:
    """The entry for something that happened to a login or a lease."""
    opening = _opening(event.name, event.stage, event.upstream, event.lease_id, event.credential_id)
    caller = _OF_EVENT % _shown(event.caller)
    return when, opening + caller + _end("", "", event.reason, event.vault_request_id)


def received(when: object, text: object) -> Entry:
    """An entry that another process of ours has made. Raises ValueError: it is none."""
    if type(when) is float and isinstance(text, str) and text.isascii():
        found = json.loads(f'{{{text}"":""}}', object_pairs_hook=list)
        names, values = zip(*found, strict=True)
        if names == (*_FIELDS, "") and all(isinstance(value, str) for value in values):
            return when, text
    raise ValueError("no entry of an audit log")


class _DescribedRequest(Protocol):
    """What a check and an access have in common."""

    @property
    def caller(self) -> str: ...
    @property
    def gateway(self) -> str: ...
    @property
    def request_id(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def path(self) -> str: ...


def _parts(names: Sequence[str]) -> str:
    return "".join(f'"{name}":%s,' for name in names)


_CALLER: Final = _FIELDS.index("caller")
_DECISION: Final = _FIELDS.index("decision")
_OPENING: Final = _parts(_FIELDS[:_CALLER])
_OF_EVENT: Final = _parts(_FIELDS[_CALLER:_DECISION]).replace("%s", '""').replace('""', "%s", 1)
_END: Final = _parts(_FIELDS[_DECISION:])


@lru_cache(maxsize=4096)  # an upstream and its credential; each has many requests
def _opening(event: str, stage: str, upstream: str, lease_id: str, credential_id: str) -> str:
    return _OPENING % tuple(map(_shown, (event, stage, upstream, lease_id, credential_id)))


def _middle(request: _DescribedRequest) -> str:
    """Who, what and where. The path is without its query string, which may hold a secret."""
    caller, request_id, method = request.caller, request.request_id, request.method
    path, host = request.path, request.host
    if "?" in path or "#" in path:
        path = path_of(path)
    if "@" in host:
        host = host.rpartition("@")[2]  # user:password@host
    # All of them are short, as a rule: one comparison instead of five.
    long = len(caller) + len(request_id) + len(method) + len(host) + len(path) > MAX_TEXT
    put = _shown if long else quote
    return (
        f'"caller":{put(caller)},"gateway":{put(request.gateway)},"request_id":{put(request_id)},'
        f'"method":{put(method)},"host":{put(host)},"path":{put(path)},'
    )


@lru_cache(maxsize=256)  # a word or two of ours; events of Vault's own request have one each
def _end(answer: str, status: str, reason: str, vault_request_id: str) -> str:
    return _END % tuple(map(_shown, (answer, status, reason, vault_request_id)))


def _shown(text: str) -> str:
    return quote(text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + CUT)


_ALLOWED: Final = _end("allowed", "", "", "")


def line(entry: Entry, seq: int, prev: str) -> bytes:
    """The line for ``entry`` without its newline: ASCII, control characters escaped.

    Its time is as RFC 3339 has it, in UTC, with microseconds.
    """
    when, text = entry
    micros = round(when * 1e6)
    second, part = _second(micros // 1_000_000), micros % 1_000_000
    return f'{{"time":"{second}.{part:06d}Z","seq":{seq},{text}"prev":"{prev}"}}'.encode("ascii")


@lru_cache(maxsize=4)  # most lines are of the second that the line before them was of
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).isoformat()[:19]


def position_of(line: bytes) -> tuple[int, str] | None:
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
