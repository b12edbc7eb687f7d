"""What is read of one entry of Envoy's access log, and what is not believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.envoy.als_entries import NOW, Certificate, certificate, checked, entry, note
from vaultauthz._pb.accesslog_pb2 import AccessLogCommon, HTTPAccessLogEntry
from vaultauthz.core.decision import Reason
from vaultauthz.envoy.access_logs import finished as read

JWT = "envoy.filters.http.jwt_authn"
San = Certificate.SubjectAltName


def access(made: HTTPAccessLogEntry) -> dict[str, object]:
    """The entry as an access, as a mapping."""
    found = read.access_of(made, "production", "payments", NOW)
    return {name: getattr(found, name) for name in found.__slots__}


def test_the_path_is_without_its_query() -> None:
    """The query, where an injected credential may be, is nowhere in the access."""
    found = access(entry())
    assert found["path"] == "/v1/charges"
    assert "s3cr3t" not in repr(found)
    assert (found["method"], found["host"], found["request_id"]) == (
        "GET",
        "pay.example.com",
        "r-1",
    )


@pytest.mark.parametrize(
    ("sans", "subject", "expected"),
    [
        ([San(dns=b"a.corp"), San(uri=b"spiffe://corp/a")], b"CN=a", "spiffe://corp/a"),
        ([San(dns=b"a.corp")], b"CN=a", "a.corp"),
        ([], b"CN=a", "CN=a"),
        ([San(uri=b"spiffe://\xff")], b"", "spiffe://�"),
        ([], b"", ""),
    ],
)
def test_the_caller_is_the_certificates(sans: list[San], subject: bytes, expected: str) -> None:
    """URI, else DNS name, else subject, as Envoy names the principal of a check."""
    made = entry()
    certificate(made).subject_alt_name.extend(sans)
    certificate(made).subject = subject
    assert access(made)["caller"] == expected


def test_the_caller_is_a_tokens() -> None:
    """Without a certificate it is the `sub` of a token that Envoy has verified, if it is text."""
    made = entry()
    note(made, JWT, {"plain": "text", "odd": {"sub": 7}, "token": {"sub": "alice"}})
    assert access(made)["caller"] == "alice"
    certificate(made).subject = b"CN=a"
    assert access(made)["caller"] == "CN=a"


def test_a_check_is_recognised() -> None:
    """Ours was a check that gave or denied a credential; another's metadata is not ours."""
    assert read.checked(checked().common_properties) == ("production", "payments", "c_1")
    denied = checked(answer={"reason": "caller_denied", "stage": "s", "upstream": "u"})
    assert read.checked(denied.common_properties) == ("s", "u", "")
    passed = checked(answer={"stage": "", "upstream": "", "request_id": "r"})
    assert read.checked(passed.common_properties) is None
    assert read.checked(entry().common_properties) is None


def test_the_clusters_tags_win_over_the_routes() -> None:
    """The route's tags serve where no cluster was chosen, and the two are never mixed."""
    route = {"vaultauthz.route.stage": b"staging", "vaultauthz.route.upstream": b"other"}
    cluster = {"vaultauthz.stage": b"production", "vaultauthz.upstream": b"payments"}
    assert read.tagged(entry(tags=route | cluster).common_properties) == ("production", "payments")
    assert read.tagged(entry(tags=route).common_properties) == ("staging", "other")
    half = {"vaultauthz.upstream": b"payments"} | route
    assert read.tagged(entry(tags=half).common_properties) == ("", "payments")
    assert read.tagged(entry(tags={}).common_properties) == ("", "")


@pytest.mark.parametrize(
    ("details", "sent_after", "expected"),
    [
        (b"via_upstream", 0.1, 401),
        (b"via_upstream", None, 0),
        (b"via_upstream_not", 0.1, 0),
        (b"jwt_authn_access_denied{Jwt_is_missing}", None, 0),
        (b"direct_response", None, 0),
        (b"", 0.1, 0),
    ],
)
def test_only_the_upstreams_own_answer_counts(
    details: bytes, sent_after: float | None, expected: int
) -> None:
    """A status is the upstream's only if Envoy says so and the request was sent."""
    assert read.upstream_status(entry(401, details, sent_after=sent_after)) == expected


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (b"failed_to_inject_credential", Reason.NO_CREDENTIAL),
        (b"rbac_access_denied_matched_policy[none]", Reason.CALLER_DENIED),
        (b"jwt_authn_access_denied{Jwt_is_missing}", Reason.CALLER_DENIED),
        (b"via_upstream", None),
        (b"no_healthy_upstream", None),
    ],
)
def test_envoys_own_refusals(details: bytes, expected: Reason | None) -> None:
    """What Envoy refused for want of a credential, or because of the caller, has our reason for it."""
    assert read.refusal(entry(details=details)) == expected


def test_only_the_end_is_told_of() -> None:
    """Reports of a request that has begun, or goes on, are passed over."""
    kinds = [kind for kind in range(15) if read.ended(AccessLogCommon(access_log_type=kind))]
    assert kinds == [0, 6]


def test_the_time_spans_every_attempt() -> None:
    """From the start to the last attempt's first byte; to now when it is not known when that was."""
    assert read.span(entry(start=NOW - 10, sent_after=0.5).common_properties, NOW) == pytest.approx(
        (NOW - 10, NOW - 9.5)
    )
    retried = entry(start=NOW - 10, sent_after=None)
    retried.common_properties.upstream_request_attempt_count = 2
    assert read.was_sent(retried.common_properties)
    assert read.span(retried.common_properties, NOW) == pytest.approx((NOW - 10, NOW))
    assert not read.was_sent(entry(sent_after=None).common_properties)


@given(
    start=st.integers(-(2**63), 2**63 - 1),
    nanos=st.integers(-(2**31), 2**31 - 1),
    taken=st.none() | st.integers(-(2**63), 2**63 - 1),
)
def test_absurd_times_make_no_span(start: int, nanos: int, taken: int | None) -> None:
    """Whatever the clock said, a span lies within the last month and ends by now; or there is none."""
    made = entry(sent_after=None)
    common = made.common_properties
    common.start_time.seconds, common.start_time.nanos = start, nanos
    if taken is not None:
        common.time_to_first_upstream_tx_byte.seconds = taken
    span = read.span(common, NOW)
    assert span is None or NOW - 31 * 86400 < span[0] <= span[1] <= NOW


@given(text=st.binary(max_size=3000), number=st.integers(-(2**31), 2**31 - 1))
def test_any_bytes_are_read(text: bytes, number: int) -> None:
    """Text that is not UTF-8 or too long, and methods nobody knows, are cut and replaced."""
    made = entry(path=text)
    made.request.authority = made.request.request_id = text
    made.request.request_method = number
    read_back = HTTPAccessLogEntry.FromString(made.SerializeToString())
    found = access(read_back)
    assert len(str(found["path"])) <= 1100
    assert len(str(found["request_id"])) <= 128
    assert "?" not in str(found["path"])
