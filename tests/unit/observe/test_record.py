"""What a line of the audit log holds, and what it does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.observe.conftest import SECRET
from vaultauthz.core.decision import Allowed, Decision, Denied, Reason
from vaultauthz.core.events import ISSUED, Access, Event
from vaultauthz.core.request import Request
from vaultauthz.observe.record import (
    KEYS,
    MAX_TEXT,
    line,
    of_access,
    of_check,
    of_event,
    position_of,
)

WHEN = 1_790_000_000.123456
# As docs promise it; a test of its own list, so that a change is noticed.
ORDER = [
    "time",
    "seq",
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
    "prev",
]


def shown(request: Request, decision: Decision) -> dict[str, Any]:
    """The line for a check, parsed."""
    record = json.loads(line(of_check(WHEN, request, decision), 7, "aa"))
    assert isinstance(record, dict)
    return record


def test_allowed_check(request_: Request, allowed: Allowed) -> None:
    """An allowed check names who, what, where and with which credential."""
    assert shown(request_, allowed) == {
        "time": "2026-09-21T14:13:20.123456Z",
        "seq": 7,
        "event": "request.allowed",
        "stage": "production",
        "upstream": "payments",
        "lease_id": "database/creds/pay/abc",
        "credential_id": "c_1",
        "caller": "spiffe://corp/checkout/a",
        "gateway": "envoy",
        "request_id": "r-1",
        "method": "GET",
        "host": "pay.example.com",
        "path": "/v1/charges",
        "decision": "allowed",
        "status": "",
        "reason": "",
        "vault_request_id": "",
        "prev": "aa",
    }


def test_denied_check(request_: Request) -> None:
    """A denied check has its reason, and no credential."""
    record = shown(request_, Denied(Reason.CALLER_DENIED, "payments", "production"))
    assert record["event"] == "request.denied"
    assert (record["decision"], record["reason"]) == ("denied", "caller_denied")
    assert (record["lease_id"], record["credential_id"]) == ("", "")


def test_allowed_without_upstream(request_: Request) -> None:
    """A request that nobody claims and that passes is allowed without a credential."""
    record = shown(request_, Allowed("", "", None))
    assert (record["decision"], record["credential_id"]) == ("allowed", "")


def test_event() -> None:
    """An event of a lease has the same keys, with what applies filled in."""
    event = Event(ISSUED, "production", "payments", "database/1", "c_1", "v-1", "why")
    text = line(of_event(WHEN, event), 1, "")
    record = json.loads(text)
    assert list(record) == list(KEYS) == ORDER
    filled = {key: value for key, value in record.items() if value != ""}
    assert filled == {
        "time": "2026-09-21T14:13:20.123456Z",
        "seq": 1,
        "event": "lease.issued",
        "stage": "production",
        "upstream": "payments",
        "lease_id": "database/1",
        "credential_id": "c_1",
        "reason": "why",
        "vault_request_id": "v-1",
    }


def test_access() -> None:
    """A request that the gateway told of has the same keys, its own time, and the upstream's status."""
    access = Access(
        "production", "payments", WHEN, lease_id="database/1", credential_id="c_1", caller="a",
        gateway="envoy", request_id="r-1", method="GET", host="user:pw@pay", path="/v1?key=x", status=204,
    )  # fmt: skip
    record = json.loads(line(of_access(access), 1, ""))
    assert list(record) == ORDER
    assert (record["time"], record["event"]) == ("2026-09-21T14:13:20.123456Z", "request.allowed")
    assert (record["decision"], record["status"], record["reason"]) == ("allowed", "204", "")
    assert (record["host"], record["path"], record["credential_id"]) == ("pay", "/v1", "c_1")
    access.allowed, access.reason, access.status = False, "no_credential", 0
    record = json.loads(line(of_access(access), 1, ""))
    assert (record["event"], record["decision"]) == ("request.denied", "denied")
    assert (record["status"], record["reason"]) == ("", "no_credential")


def test_no_secret(request_: Request, allowed: Allowed) -> None:
    """Neither the query string, the cookie nor the credential is in the line."""
    assert SECRET.encode() not in line(of_check(WHEN, request_, allowed), 1, "")


def test_entry_lets_the_request_go(request_: Request, allowed: Allowed) -> None:
    """What waits in the queue holds no request, whose claims and cookie may be large."""
    assert all(isinstance(value, float | str) for value in of_check(WHEN, request_, allowed))


@pytest.mark.parametrize("target", ["/a#f?x", "/a?x#f", "/a?", "/a#"])
def test_query_and_fragment_are_dropped(target: str) -> None:
    """The path ends where query or fragment begins, whichever is first."""
    assert shown(Request("envoy", path=target), Denied(Reason.NO_UPSTREAM))["path"] == "/a"


def test_user_and_password_in_the_host_are_dropped() -> None:
    """An authority's user information is not logged, however long it is."""
    for user in ("u:p", "u" * 5000):
        request = Request("envoy", host=f"{user}@h.example:8443")
        assert shown(request, Denied(Reason.NO_UPSTREAM))["host"] == "h.example:8443"


@pytest.mark.parametrize("name", ["path", "host", "method", "request_id", "principal"])
def test_long_values_are_cut(name: str) -> None:
    """A client's text of a megabyte becomes 1024 characters and a mark."""
    request = Request("envoy")
    setattr(request, name, "/" + "a" * 1_000_000)
    record = shown(request, Denied(Reason.NO_UPSTREAM))
    value = record["caller" if name == "principal" else name]
    assert value == "/" + "a" * (MAX_TEXT - 1) + "…"


def test_value_of_just_the_limit_is_whole() -> None:
    """A value as long as the limit has no mark."""
    request = Request("envoy", path="/" + "a" * (MAX_TEXT - 1) + "?q")
    assert shown(request, Denied(Reason.NO_UPSTREAM))["path"] == request.path[:-2]


@given(st.text(), st.text(), st.text())
def test_any_text_is_one_line_of_ascii(path: str, host: str, request_id: str) -> None:
    """Whatever a client sends, the record is one line, printable, and reads back."""
    request = Request("envoy", host=host, path=path, request_id=request_id)
    text = line(of_check(WHEN, request, Denied(Reason.NO_UPSTREAM)), 1, "")
    assert all(0x20 <= byte < 0x7F for byte in text)
    assert json.loads(text)["request_id"] == request_id
    assert position_of(text) == (1, "")


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"1", b'{"seq":1}', b'{"seq":true,"prev":""}', b"\x00\xff", b"[" * 100_000],
)
def test_what_is_no_record(text: bytes) -> None:
    """Anything without number and hash is no record, and does not raise."""
    assert position_of(text) is None


@given(st.integers(0, 4_102_444_800_000_000))
def test_time_is_rfc_3339_in_utc(micros: int) -> None:
    """To the microsecond, always six of them, so that text sorts as time does."""
    when = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
    shown = json.loads(line((when.timestamp(), ""), 1, ""))["time"]
    assert shown == when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
