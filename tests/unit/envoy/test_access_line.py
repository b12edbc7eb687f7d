"""A line of Envoy's access log: what it tells, and that nothing in it can do harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.envoy.access_lines import LINE, line, line_of, written
from tests.unit.envoy.als_entries import NOW, OURS, Heard, entry, message
from vaultauthz.core.decision import Reason
from vaultauthz.core.events import Access
from vaultauthz.envoy.access_logs.finished import (
    FinishedRequest,
    UnreadableLineError,
    parse_lines,
    read_line,
)
from vaultauthz.envoy.access_logs.history import CredentialHistory
from vaultauthz.envoy.access_logs.stream import AccessLogService
from vaultauthz.envoy.access_logs.unchecked import Reporter, UncheckedRequests

SENT = NOW - 9.5


def told(**changes: Any) -> FinishedRequest:
    """What a line of ours tells."""
    found = read_line(line(**changes), NOW)
    assert found
    return found


def test_a_request_that_was_sent() -> None:
    """Who, what, where, when, and what the upstream answered."""
    access = Access(
        "production", "payments", SENT, True, "", "", "", "envoy", "r-1", "GET",
        "pay.example.com", "/v1/charges",
    )  # fmt: skip
    assert told() == FinishedRequest(access, "edge/gw-1", None, 200, True, (NOW - 10, SENT))


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ("failed_to_inject_credential", Reason.NO_CREDENTIAL),
        ("rbac_access_denied_matched_policy[none]", Reason.CALLER_DENIED),
        ("jwt_authn_access_denied{Jwt_is_expired}", Reason.CALLER_DENIED),
        ("direct_response", None),
        (None, None),
    ],
)
def test_what_envoy_answered_itself(details: str | None, reason: Reason | None) -> None:
    """It has no status of the upstream's; a refusal is of the time when the request came."""
    found = told(details=details, sent_us=None, status=403)
    assert (found.refused, found.status, found.sent) == (reason, 0, False)
    assert not reason or found.access.at == NOW - 10


def test_a_second_attempt_may_have_been_sent() -> None:
    """Then the credential went out, at some time until now."""
    found = told(sent_us=None, attempts=2, details="upstream_reset")
    assert (found.sent, found.status, found.span) == (True, 0, (NOW - 10, NOW))


def test_the_clusters_names_win() -> None:
    """The route's stand in where there is no cluster; without either it is nobody's."""
    other = {"route_stage": "staging", "route_upstream": "other"}
    assert told(**other).access.upstream == "payments"
    by_route = told(upstream=None, stage=None, **other).access
    assert (by_route.stage, by_route.upstream) == ("staging", "other")
    nobody = told(**dict.fromkeys((*other, "upstream", "stage"))).access
    assert (nobody.stage, nobody.upstream) == ("", "")


def test_the_caller() -> None:
    """The certificate's name, else the subject of a token; a claim may be of any type."""
    assert told(caller="spiffe://a", sub="alice").access.caller == "spiffe://a"
    assert told(caller="", sub="alice").access.caller == "alice"
    assert told(sub=17).access.caller == told(sub={"a": 1}).access.caller == ""


def test_a_checked_request_is_passed_over() -> None:
    """Its check wrote the audit line."""
    assert read_line(line(checked="c_1"), NOW) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"time": None}, {"time": "noon"}, {"time": {}}, {"sent_us": "1"}, {"sent_us": []},
        {"status": "200"}, {"status": -1}, {"status": 10**9}, {"status": 2e308}, {"attempts": "2", "sent_us": None},
        {"path": 1}, {"host": ["a"]}, {"upstream": {}}, {"stage": 5}, {"details": 7}, {"node": 1.5}, {"caller": 3},
    ],
)  # fmt: skip
def test_other_types_are_unreadable(changes: dict[str, Any]) -> None:
    """Nothing but texts and small numbers goes on into the audit log."""
    with pytest.raises(UnreadableLineError):
        read_line(line(**changes), NOW)


@pytest.mark.parametrize(
    "time", ["nan", "inf", "-inf", "1e300", "0", f"{NOW + 3600}", f"{NOW - 90 * 86400}"]
)
def test_a_time_that_makes_no_sense(time: str) -> None:
    """The line is kept, at the time when it was read, and nothing is said of its credential."""
    found = told(time=time)
    assert (found.span, found.access.at) == (None, NOW)


def test_long_texts_are_cut() -> None:
    """No line brings megabytes into the queue."""
    found = told(path="/" + "x" * 9000, request_id="r" * 9000, caller="c" * 9000)
    lengths = [len(t) for t in (found.access.path, found.access.request_id, found.access.caller)]
    assert lengths == [1100, 128, 1100]


def test_an_absent_value_may_be_null() -> None:
    """As Envoy writes it without `omit_empty_values`."""
    nulls: dict[str, Any] = dict.fromkeys(("caller", "sub", "checked", "route_stage", "host"))
    assert told(host=None) == read_line({**LINE, **nulls}, NOW)


def test_a_bad_line_costs_only_itself() -> None:
    """Those around it are read, whatever it is."""
    junk = (b"", b"}", b"\xff\xfe", b'{"a":1},{"b":2}', b"[" * 100_000, b"1" * 5000, b"null")
    for bad in junk:
        values = parse_lines([written(), bad, written(path="/2")])
        assert (values[0], values[2]["path"], len(values)) == (line(), "/2", 3)
        with pytest.raises(UnreadableLineError):
            read_line(values[1], NOW)


def test_a_line_behind_a_torn_one_is_read() -> None:
    """An Envoy that found the disk full left a part of a line; the next one stands behind it."""
    whole = written(path="/b{")
    for length in range(len(whole)):
        assert parse_lines([whole[:length] + whole]) == [line(path="/b{")]


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(values=any_json | st.dictionaries(st.sampled_from(sorted(LINE)), any_json, max_size=14))
def test_no_json_does_harm(values: Any) -> None:
    """It is read or it is unreadable; what is read is texts, and can be written."""
    try:
        found = read_line(values, NOW)
    except UnreadableLineError:
        return
    if found:
        access = found.access
        for text in (access.stage, access.upstream, access.caller, access.path, access.host):
            assert isinstance(text, str)
            assert len(text) <= 1100
        assert 0 <= found.status <= 999


@given(lines=st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_do_harm(lines: list[bytes]) -> None:
    """There is one value for each line."""
    assert len(parse_lines(lines)) == len(lines)


@given(text=st.text(max_size=300), ascii_only=st.booleans())
def test_a_clients_text_comes_through(text: str, ascii_only: bool) -> None:
    """However it is escaped, it is what the client sent, and changes nothing else."""
    data = json.dumps(line(path=text), ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    (values,) = parse_lines([data])
    assert values == line(path=text)
    assert told(path=text).access.path == text[:1100]


# --- the same by gRPC ---


def by_grpc(**values: Any) -> Heard:
    """What becomes of a request that Envoy tells of over gRPC."""
    heard = Heard()
    logs = AccessLogService(CredentialHistory(), heard.listeners(), lambda: NOW)
    logs.stream(iter([message([entry(**values)])]))
    return heard


def by_file(**values: Any) -> Heard:
    """What becomes of it when it stands in the file."""
    heard = Heard()
    uses = UncheckedRequests(CredentialHistory(), heard.listeners())
    found = read_line(line_of(entry(**values)), NOW)
    assert found
    access = found.access
    if not uses.known(access.stage, access.upstream):
        pass
    elif found.refused:
        uses.refused(access, found.refused)
    else:
        uses.answered(access, found.status)
        if found.sent:
            uses.sent(access, found.status, Reporter(found.node), found.span)
    return heard


@given(
    status=st.sampled_from((200, 401, 403, 503)),
    details=st.sampled_from(
        (b"via_upstream", b"failed_to_inject_credential", b"rbac_access_denied", b"direct", b"")
    ),
    start=st.integers(-100, 100).map(lambda seconds: NOW + seconds),
    sent_after=st.none() | st.integers(0, 60).map(float),
    tags=st.sampled_from(
        (OURS, {}, {"vaultauthz.upstream": b"x"}, {f"vaultauthz.route.{k[11:]}": v for k, v in OURS.items()})
    ),
)  # fmt: skip
def test_both_ways_tell_the_same(**values: Any) -> None:
    """A request has the same audit line, counts and reports by gRPC and by the file."""
    assert by_file(**values) == by_grpc(**values)
