"""The access logs' story: which entry leads to what."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.envoy.als_entries import (
    NODE,
    NOW,
    PLACE,
    Heard,
    checked,
    entry,
    message,
    note,
)
from vaultauthz._pb.accesslog_pb2 import HTTPAccessLogEntry
from vaultauthz.core import events
from vaultauthz.core.events import Access, Event
from vaultauthz.envoy.access_logs.history import CredentialHistory
from vaultauthz.envoy.access_logs.stream import MOST_BYTES, MOST_ENTRIES, AccessLogService

SECRET = "s3cr3t"


class Logs:
    """Access logs at ``NOW``, of an Envoy that has had c_1 for a long time, and then c_2."""

    def __init__(self, *, only_401s: bool = False) -> None:
        self.heard = Heard()
        self.clock = NOW - 2000
        versions = CredentialHistory(lambda: self.clock)
        for version in ("c_1", "c_2"):
            for name, caller in ((events.ROTATED, ""), (events.SDS_DELIVERED, NODE)):
                versions.record_event(Event(name, *PLACE, "database/1", version, caller=caller))
            self.clock += 1000
        self.logs = AccessLogService(
            versions, self.heard.listeners(), lambda: NOW, only_401s=only_401s
        )

    def take(self, *entries: HTTPAccessLogEntry | bytes) -> Heard:
        """What is heard of a stream with these entries."""
        assert self.logs.stream(iter([message(entries)])) == b""
        return self.heard


@pytest.fixture
def logs() -> Logs:
    """Access logs and what is heard of them."""
    return Logs()


def test_a_checked_request_is_not_written_again(logs: Logs) -> None:
    """In ext_authz mode an entry adds the upstream's answer, and no audit line."""
    heard = logs.take(checked(200), checked(500), checked(401))
    assert heard.accesses == []
    assert sum(heard.answers.values()) == 3
    assert heard.rejections == [("payments", "production", "c_1")]


def test_a_denied_check_is_nothing(logs: Logs) -> None:
    """What we denied ourselves is neither an answer nor an access, whatever its tags."""
    denied = checked(
        401, {"reason": "caller_denied", "stage": "production", "upstream": "payments"}
    )
    denied.common_properties.custom_tags["vaultauthz.upstream"] = b"payments"
    heard = logs.take(denied)
    assert heard == Heard()


@pytest.mark.parametrize("details", [b"jwt_authn_access_denied{x}", b"direct_response", b""])
def test_a_401_of_envoys_own_leads_to_nothing(logs: Logs, details: bytes) -> None:
    """Only the upstream can say that our credential is no good."""
    mine = checked(401)
    mine.response.response_code_details = details
    assert logs.take(mine, entry(401, details)).rejections == []


def test_a_use_is_recorded(logs: Logs) -> None:
    """In SDS mode an entry is the audit line: who, what, when, which credential, what answer."""
    heard = logs.take(entry(204))
    assert heard.accesses == [
        Access(
            "production",
            "payments",
            at=NOW - 9.5,
            lease_id="database/1",
            credential_id="c_2",
            gateway="envoy",
            request_id="r-1",
            method="GET",
            host="pay.example.com",
            path="/v1/charges",
            status=204,
        )
    ]
    assert heard.answers == {("production", "payments", 204): 1}


def test_near_a_change_no_credential_is_named(logs: Logs) -> None:
    """Then the line says which it can have been, and a 401 leads to nothing."""
    heard = logs.take(entry(401, start=NOW - 1000.5))
    (found,) = heard.accesses
    assert (found.credential_id, found.lease_id) == ("", "")
    assert found.reason == "credential c_2 or c_1"
    assert heard.rejections == []


def test_an_unknown_node_has_an_unknown_credential(logs: Logs) -> None:
    """Its accesses are recorded all the same."""
    logs.logs.stream(iter([message([entry(401)], node=""), message([entry()], node="gw-9")]))
    assert [one.reason for one in logs.heard.accesses] == ["credential not known"] * 2
    assert logs.heard.rejections == []


def test_who_is_connected(logs: Logs) -> None:
    """While the stream lasts, by the name that its first message tells."""
    seen: list[list[tuple[str, str]]] = []

    def messages() -> Iterator[bytes]:
        for node in ("", "gw-1"):
            yield message([], node=node)
            seen.append([(one.name, one.how) for one in logs.logs.connected])

    logs.logs.stream(messages())
    assert seen == [[("", "access log")], [("gw-1", "access log")]]
    assert logs.logs.connected == ()


def test_the_node_is_named_once(logs: Logs) -> None:
    """Envoy names itself in a stream's first message only."""
    logs.logs.stream(iter([message([]), message([entry()], node="")]))
    assert logs.heard.accesses[0].credential_id == "c_2"


def test_the_401_of_what_it_had_is_told(logs: Logs) -> None:
    """It is told with the credential that the request carried, be it the present one or not."""
    heard = logs.take(entry(401), entry(401, start=NOW - 1500), entry(403), entry(401, b"x"))
    assert heard.rejections == [
        ("payments", "production", "c_2"),
        ("payments", "production", "c_1"),
    ]


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        (b"failed_to_inject_credential", "no_credential"),
        (b"rbac_access_denied_matched_policy[none]", "caller_denied"),
    ],
)
def test_what_envoy_refused_is_a_denial(logs: Logs, details: bytes, reason: str) -> None:
    """It is recorded as denied, with no credential and no answer of an upstream."""
    heard = logs.take(entry(401, details, sent_after=None))
    (found,) = heard.accesses
    assert (found.allowed, found.reason, found.credential_id, found.status) == (
        False,
        reason,
        "",
        0,
    )
    assert not heard.answers
    assert heard.rejections == []


def test_what_was_not_sent_is_no_use(logs: Logs) -> None:
    """A request that found no upstream has used no credential; it only counts as unanswered."""
    heard = logs.take(entry(503, b"no_healthy_upstream", sent_after=None))
    assert heard.accesses == []
    assert heard.answers == {("production", "payments", 0): 1}


def test_what_was_tried_again_may_have_been_sent(logs: Logs) -> None:
    """After a second attempt it is recorded, though the last one did not get out."""
    retried = entry(503, b"upstream_reset_before_response_started{x}", sent_after=None)
    retried.common_properties.upstream_request_attempt_count = 2
    (found,) = logs.take(retried).accesses
    assert (found.credential_id, found.status) == ("c_2", 0)


def test_absurd_times_name_no_credential(logs: Logs) -> None:
    """A clock that is far off gives a line of the present, without a credential."""
    for start in (0.0, NOW + 3600, NOW - 86400 * 365):
        (found,) = logs.take(entry(401, start=start)).accesses
        assert (found.at, found.reason) == (NOW, "credential not known")
        logs.heard.accesses.clear()
    assert logs.heard.rejections == []


def test_what_is_not_ours_is_counted(logs: Logs, caplog: pytest.LogCaptureFixture) -> None:
    """Entries without our tags, or with a name of no upstream, are counted; the latter is logged once."""
    unknown = {"vaultauthz.stage": b"production", "vaultauthz.upstream": b"gone\xff"}
    heard = logs.take(entry(tags={}), entry(tags=unknown), entry(tags=unknown))
    assert heard.ignored == {"not_ours": 1, "unknown_upstream": 2}
    assert heard.accesses == []
    assert len(caplog.records) == 1


def test_a_name_from_the_client_is_not_believed(logs: Logs) -> None:
    """Nothing that a request says of itself makes it ours."""
    made = entry(tags={}, path=b"/?vaultauthz.upstream=payments")
    made.request.authority = b"payments"
    note(made, "envoy.lua", {"upstream": "payments", "stage": "production"})
    assert logs.take(made).ignored == {"not_ours": 1}


def test_one_bad_entry_costs_only_itself(logs: Logs) -> None:
    """Bytes that do not parse, or metadata of another filter that is not UTF-8, spoil no other entry."""
    odd = entry()
    odd.common_properties.metadata.filter_metadata["envoy.lua"] = b"\x0a\x03\x0a\x01\xff"
    heard = logs.take(b"\xff\xff\xff", odd, entry())
    assert heard.ignored == {"unreadable": 1}
    assert len(heard.accesses) == 2


def test_bad_messages_do_not_end_the_stream(logs: Logs) -> None:
    """A message that is too large or does not parse is counted, and the next one is read."""
    large = message([b"\0" * MOST_BYTES])
    logs.logs.stream(iter([b"\xff\xff", large, message([entry()])]))
    assert logs.heard.ignored == {"unreadable": 1, "too_large": 1}
    assert len(logs.heard.accesses) == 1


def test_the_entries_of_a_message_are_bounded(logs: Logs) -> None:
    """What is beyond the limit is counted and not even decoded."""
    heard = logs.take(*[b"" for _ in range(MOST_ENTRIES + 7)])
    assert heard.ignored == {"too_many": 7, "not_ours": MOST_ENTRIES}


def test_a_file_beside_it_tells_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    """Of what no check was made for only a 401 is taken in then; the rest is counted, and said once.

    It comes from an Envoy that was not told of the file, and would have no audit line unnoticed.
    """
    logs = Logs(only_401s=True)
    elsewhere = {"vaultauthz.upstream": b"other", "vaultauthz.stage": b"production"}
    heard = logs.take(
        entry(), entry(401), entry(403, b"rbac_access_denied"), entry(401, b"jwt_authn_access_denied"),
        entry(401, tags={}), entry(401, tags=elsewhere), entry(401, start=NOW - 1005, sent_after=10.0),
    )  # fmt: skip
    told = Heard(rejections=[("payments", "production", "c_2")])
    told.ignored["by_file"] = 3
    assert heard == told
    assert caplog.text.count("print its configuration anew") == 1
    assert logs.take(checked(200)).answers == {("production", "payments", 200): 1}


def test_a_bug_of_ours_does_not_end_the_stream(
    logs: Logs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once for a message, without the text, and counted."""

    def fail(*_: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(logs.logs.requests._history, "between", fail)
    heard = logs.take(entry(), entry())
    assert heard.ignored == {"internal": 2}
    assert len(caplog.records) == 1
    assert SECRET not in caplog.text


@given(data=st.lists(st.binary(max_size=200), max_size=5))
def test_no_bytes_end_the_stream(data: list[bytes]) -> None:
    """Whatever is sent, as a message or as an entry, the stream goes on to its end."""
    logs = Logs()
    assert logs.logs.stream(iter([*data, message(data), message([entry()])])) == b""
    assert logs.heard.accesses
