"""Envoy's messages to ours and back: each rule of the mapping, without a socket."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz._pb.ext_authz_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    HeaderValue,
    HeaderValueOption,
)
from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import ANSWERS, Allowed, Decision, Denied, Reason
from vaultauthz.core.injection import Mutation
from vaultauthz.core.request import REQUEST_ID_LIMIT, Request
from vaultauthz.envoy.ext_authz import Check
from vaultauthz.envoy.request import JWT_NAMESPACE, PRINCIPAL_LIMIT, UnreadableError, read

SECRET = "hunter2-the-password"
CREDENTIAL = Credential(
    Mutation(headers=(("authorization", f"Bearer {SECRET}"),)), "cred-1", "lease/1", 9e9
)
ALLOWED = Allowed("payments", "production", CREDENTIAL)


def envoy_asks(**fields: Any) -> AttributeContext.HttpRequest:
    """An HTTP request as Envoy describes it."""
    usual = {"method": b"GET", "path": b"/v1/x?y=1", "host": b"pay.example.com", "id": "77"}
    return AttributeContext.HttpRequest(**{**usual, **fields})


def data(http: AttributeContext.HttpRequest | None = None, **attributes: Any) -> bytes:
    """The bytes of a CheckRequest."""
    request = AttributeContext.Request(http=http or envoy_asks())
    return CheckRequest(
        attributes=AttributeContext(request=request, **attributes)
    ).SerializeToString()


def seen(bytes_: bytes) -> Request:
    """The Request that a check is made from."""
    requests: list[Request] = []

    def check(request: Request) -> Decision:
        requests.append(request)
        return Denied(Reason.NO_UPSTREAM)

    Check(check).answer(bytes_)
    return requests[0]


def at_once(check: Check, bytes_: bytes) -> bytes:
    """What it answers without having to wait."""
    answer = check.answer(bytes_)
    assert isinstance(answer, bytes)
    return answer


def answered(decision: Decision, bytes_: bytes = b"") -> CheckResponse:
    """The answer that Envoy gets for a decision."""
    return CheckResponse.FromString(at_once(Check(lambda _: decision), bytes_ or data()))


def mutated(mutation: Mutation, **http: Any) -> CheckResponse:
    """The answer that carries a mutation."""
    return answered(credited(mutation), data(envoy_asks(**http)))


def credited(mutation: Mutation) -> Allowed:
    """A request that is let through with it."""
    return Allowed("u", "s", Credential(mutation, "c", "l", 9e9))


def set_headers(response: CheckResponse) -> dict[str, str]:
    """The headers that Envoy would set on the proxied request."""
    return {o.header.key: o.header.value.decode() for o in response.ok_response.headers}


def noted(response: CheckResponse) -> dict[str, str]:
    """The dynamic metadata."""
    return {name: v.string_value for name, v in response.dynamic_metadata.fields.items()}


@pytest.mark.parametrize(
    ("left", "wait"),
    [(None, 0.4), (-1.0, 0.05), (0.0, 0.05), (0.0625, 0.05), (1.0, 0.8), (12.5, 10.0), (1e9, 10.0)],
)
def test_how_long_a_check_may_wait_for_vault(left: float | None, wait: float) -> None:
    """Most of Envoy's patience, so that our answer is there first; never nothing, and never for long."""
    waits: list[float] = []

    def check(request: Request) -> Decision:
        waits.append(request.wait)
        return Denied(Reason.NO_UPSTREAM)

    Check(check).answer(data(), left)
    assert waits == [pytest.approx(wait)]


class TestRequest:
    def test_the_plain_fields(self) -> None:
        """Method, host, path with its query, and who asks: Envoy."""
        request = seen(data())
        assert (request.gateway, request.method, request.host, request.path) == (
            "envoy", "GET", "pay.example.com", "/v1/x?y=1",
        )  # fmt: skip

    def test_upstream_and_stage_come_from_the_route(self) -> None:
        """Context extensions name the upstream; headers of the same names do not."""
        http = envoy_asks(headers={"upstream": b"evil", "stage": b"evil"})
        assert seen(data(http)).upstream == ""
        request = seen(data(http, context_extensions={"upstream": "u", "stage": "s"}))
        assert (request.upstream, request.stage) == ("u", "s")

    def test_the_principal_is_the_peers(self) -> None:
        """The caller is the one whose certificate Envoy checked."""
        peer = AttributeContext.Peer(principal="spiffe://corp/a")
        assert seen(data(source=peer)).principal == "spiffe://corp/a"

    def test_no_identity_comes_from_headers(self) -> None:
        """Headers that look like an identity give none."""
        names = ("x-forwarded-client-cert", "x-consumer-username", "authorization", "principal")
        request = seen(data(envoy_asks(headers=dict.fromkeys(names, b"evil"))))
        assert request.caller == ""
        assert request.claims == ()

    def test_claims_of_every_verified_token(self) -> None:
        """Each struct that jwt_authn left is one token's claims, in plain Python."""
        attributes = AttributeContext()
        claims: dict[str, Any] = {
            "sub": "alice",
            "aud": ["a", "b"],
            "exp": 12,
            "ok": True,
            "n": None,
            "o": {"p": 1},
        }
        attributes.metadata_context.filter_metadata[JWT_NAMESPACE].update(
            {"corp": claims, "two": {}}
        )
        request = seen(data(metadata_context=attributes.metadata_context))
        assert sorted(request.claims, key=len) == [{}, claims]
        assert request.caller == "alice"

    def test_other_namespaces_are_no_claims(self) -> None:
        """Metadata that another filter wrote is not taken for a token."""
        attributes = AttributeContext()
        attributes.metadata_context.filter_metadata["other"].update({"corp": {"sub": "evil"}})
        attributes.metadata_context.filter_metadata[JWT_NAMESPACE].update({"flat": "text"})
        assert seen(data(metadata_context=attributes.metadata_context)).claims == ()

    def test_the_request_id_is_the_headers_else_envoys(self) -> None:
        """x-request-id when there is one, otherwise the id of Envoy's stream; never endless."""
        assert seen(data()).request_id == "77"
        assert seen(data(envoy_asks(headers={"x-request-id": b"abc"}))).request_id == "abc"
        long = seen(data(envoy_asks(headers={"x-request-id": b"z" * 1000})))
        assert long.request_id == "z" * REQUEST_ID_LIMIT

    def test_header_map_is_read_too(self) -> None:
        """Under encode_raw_headers: any letter case, raw values, several cookie entries."""
        http = envoy_asks()
        http.header_map.headers.extend(
            [
                HeaderValue(key="Cookie", raw_value=b"a=1"),
                HeaderValue(key="X-Request-Id", raw_value=b"abc"),
                HeaderValue(key="cookie", value=b"b=2"),
            ]
        )
        request = seen(data(http))
        assert (request.cookie, request.request_id) == ("a=1; b=2", "abc")

    def test_header_map_without_what_is_read(self) -> None:
        """Others come first, in between and alone."""
        http = envoy_asks()
        http.header_map.headers.append(HeaderValue(key="accept", raw_value=b"x"))
        assert (seen(data(http)).cookie, seen(data(http)).request_id) == ("", "77")
        http.header_map.headers.append(HeaderValue(key="cookie", raw_value=b"a=1"))
        http.header_map.headers.append(HeaderValue(key="x-b", raw_value=b"x"))
        http.header_map.headers.append(HeaderValue(key="x-request-id", raw_value=b"abc"))
        assert (seen(data(http)).cookie, seen(data(http)).request_id) == ("a=1", "abc")

    @pytest.mark.parametrize(
        ("bytes_", "why"),
        [
            (b"\xff", "not a CheckRequest"),
            (b"", "not an HTTP request"),
            (
                data(source=AttributeContext.Peer(principal="x" * (PRINCIPAL_LIMIT + 1))),
                "a principal too long to be one",
            ),
        ],
    )
    def test_what_is_no_request(self, bytes_: bytes, why: str) -> None:
        """The log has the reason."""
        with pytest.raises(UnreadableError) as refused:
            read(bytes_)
        assert str(refused.value) == why

    def test_headers_are_found_in_every_spelling(self) -> None:
        """Underscores for hyphens, any letter case; from either form, as often as they come."""
        named = {"x-http_method": b"PUT", "x_http-method": b"DELETE", "x-httpmethod": b"x"}
        request = seen(data(envoy_asks(headers=named)))
        found = {("x-http_method", "PUT"), ("x_http-method", "DELETE")}
        assert set(request.sent(("x-http-method",)) or ()) == found
        http = envoy_asks()
        for value in (b"PUT", b"\xff"):
            http.header_map.headers.append(HeaderValue(key="X_HTTP-Method", raw_value=value))
        twice = (("x_http-method", "PUT"), ("x_http-method", "\udcff"))
        assert seen(data(http)).sent(("x-http-method",)) == twice

    def test_a_principal_without_end_is_refused(self) -> None:
        """It is compared with each rule, and remembered."""
        for length, wanted in ((PRINCIPAL_LIMIT, 0), (PRINCIPAL_LIMIT + 1, 3)):
            peer = AttributeContext.Peer(principal="x" * length)
            answer = Check(lambda _: Allowed("", "", None)).answer(data(source=peer))
            assert isinstance(answer, bytes)
            assert CheckResponse.FromString(answer).status.code == wanted

    @given(odd=st.binary(min_size=1))
    def test_bytes_that_are_no_text_still_make_a_request(self, odd: bytes) -> None:
        """Whatever bytes a client sends, the request is checked, not refused as unreadable."""
        http = envoy_asks(
            method=odd, path=odd, host=odd, headers={"cookie": odd, "x-request-id": odd}
        )
        assert seen(data(http)).path == odd.decode("utf-8", "replace")


class TestAllowed:
    def test_headers_overwrite_and_say_so_twice(self) -> None:
        """Both the deprecated field and the new one ask for an overwrite, explicitly."""
        response = answered(ALLOWED)
        (option,) = response.ok_response.headers
        assert response.status.code == 0
        assert (option.header.key, option.header.value) == (
            "authorization",
            f"Bearer {SECRET}".encode(),
        )
        assert option.HasField("append")
        assert option.append.value is False
        assert option.append_action == HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD

    def test_what_is_set_is_never_removed(self) -> None:
        """A name in both lists, which Envoy would remove after setting, stays out of the second."""
        mutation = Mutation(
            headers=(("x-api-key", "k"),),
            cookies=(("c", "1"),),
            remove=("x-api-key", "cookie", "x-debug"),
        )
        assert list(mutated(mutation).ok_response.headers_to_remove) == ["x-debug"]

    def test_query_parameters(self) -> None:
        """They are set as they are, already encoded: Envoy writes them into the path verbatim."""
        parameters = mutated(
            Mutation(query=(("a+b", "x%2Fy"),))
        ).ok_response.query_parameters_to_set
        assert [(p.key, p.value) for p in parameters] == [("a+b", "x%2Fy")]

    def test_the_clients_other_spellings_of_a_query_name_are_removed(self) -> None:
        """`%6bey` is `key` to the upstream, so it goes; `key` itself is overwritten by Envoy."""
        response = mutated(
            Mutation(query=(("key", "ours"), ("a+b", "ours"))),
            path=b"/p?%6bey=evil&key=evil&z=1&a%20b=evil&a+b=evil&ke%79&%6bey=again",
        )
        assert list(response.ok_response.query_parameters_to_remove) == ["%6bey", "a%20b", "ke%79"]

    def test_a_query_begins_at_the_first_question_mark(self) -> None:
        """What comes after a second one is the value of a parameter, or a part of it."""
        response = mutated(Mutation(query=(("key", "ours"),)), path=b"/p?%6bey=evil?x&a=1?ke%79=1")
        assert list(response.ok_response.query_parameters_to_remove) == ["%6bey"]

    def test_cookies_are_merged(self) -> None:
        """Ours replaces the client's copy, the client's others stay, no matter whose request."""
        mutation = Mutation(cookies=(("session", "ours"),))
        response = mutated(mutation, headers={"cookie": b"a=1; session=evil; b=2"})
        assert set_headers(response) == {"cookie": "a=1; b=2; session=ours"}
        assert set_headers(mutated(mutation)) == {"cookie": "session=ours"}

    def test_metadata_for_the_access_log(self) -> None:
        """It says which credential this request got."""
        assert noted(answered(ALLOWED)) == {
            "upstream": "payments",
            "stage": "production",
            "credential_id": "cred-1",
            "lease_id": "lease/1",
            "request_id": "77",
        }

    def test_passed_without_a_credential(self) -> None:
        """`unmatched: pass` is allowed, sets and removes nothing."""
        response = answered(Allowed("", "", None))
        assert response.HasField("ok_response")
        assert response.HasField("status")
        assert response.status.code == 0
        assert not response.ok_response.headers

    def test_a_replaced_credential_is_seen_at_once(self) -> None:
        """What is kept for one credential is never sent for the next."""
        second = Credential(Mutation(headers=(("authorization", "new"),)), "cred-1", "lease/1", 9e9)
        decisions = [ALLOWED, ALLOWED, Allowed("payments", "production", second), ALLOWED]
        check = Check(lambda _: decisions.pop(0))
        values = [
            set_headers(CheckResponse.FromString(at_once(check, data())))["authorization"]
            for _ in range(4)
        ]
        assert values == [f"Bearer {SECRET}", f"Bearer {SECRET}", "new", f"Bearer {SECRET}"]

    def test_upstreams_and_stages_are_kept_apart(self) -> None:
        """The same request under another stage gets that stage's credential."""

        def credential(stage: str) -> Credential:
            return Credential(Mutation(headers=(("x", stage),)), stage, stage, 9e9)

        stages = {name: Allowed("u", name, credential(name)) for name in ("production", "staging")}
        check = Check(lambda request: stages[request.stage])
        for name in [*stages, *stages]:
            asked = data(context_extensions={"stage": name})
            assert set_headers(CheckResponse.FromString(at_once(check, asked))) == {"x": name}


class TestDropped:
    def test_what_this_request_alone_tells(self) -> None:
        """Headers to drop that the credential does not name stand beside those that it does."""
        mutation = Mutation(headers=(("x-a", "1"),), remove=("x_a",))
        allowed = Allowed("u", "s", Credential(mutation, "c", "l", 9e9), dropped=("x_b-c",))
        assert list(answered(allowed).ok_response.headers_to_remove) == ["x_a", "x_b-c"]

    @pytest.mark.parametrize("name", ["%6bey", "key[]", "a;key"])
    def test_parameters_that_may_be_ours(self, name: str) -> None:
        """Envoy is told the name as it was sent."""
        response = mutated(Mutation(query=(("key", "1"),)), path=f"/?{name}=x&keys=2".encode())
        assert list(response.ok_response.query_parameters_to_remove) == [name]


class TestDenied:
    @pytest.mark.parametrize("reason", Reason)
    def test_each_reason(self, reason: Reason) -> None:
        """HTTP status, gRPC code and body are those of the one table; nothing else goes out."""
        response = answered(Denied(reason, "payments", "production"))
        denied = response.denied_response
        assert (denied.status.code, response.status.code) == ANSWERS[reason]
        assert json.loads(denied.body) == {"error": reason.value, "request_id": "77"}
        assert {o.header.key: o.header.value for o in denied.headers} == {
            "content-type": b"application/json"
        }
        assert response.status.message == ""
        assert noted(response) == {
            "upstream": "payments", "stage": "production", "reason": reason.value, "request_id": "77",
        }  # fmt: skip

    def test_retry_after(self) -> None:
        """A denial that passes says when to come again, in whole seconds."""
        denied = answered(Denied(Reason.NO_CREDENTIAL, retry_after=7)).denied_response
        assert {o.header.key: o.header.value for o in denied.headers}["retry-after"] == b"7"

    @given(request_id=st.text(max_size=50))
    def test_the_body_is_json_whatever_the_request_id(self, request_id: str) -> None:
        """A client's request id cannot break out of the body."""
        sent = request_id.encode("utf-8", "replace")
        http = envoy_asks(headers={"x-request-id": sent})
        body = json.loads(answered(Denied(Reason.NO_UPSTREAM), data(http)).denied_response.body)
        assert body == {"error": "no_upstream", "request_id": sent.decode() or "77"}


def never(_: Request) -> Decision:
    """A check that must not be made."""
    raise AssertionError("the check was made")


def recorder_fails(_: Request, __: Denied) -> None:
    """One that cannot be told."""
    raise ValueError(SECRET)


def raising(text: str) -> Callable[[Request], Decision]:
    """A check that fails with this text."""

    def check(_: Request) -> Decision:
        raise ValueError(text)

    return check


BROKEN = Mutation(headers=(("authorization", f"{SECRET}\ud800"),))


class TestErrors:
    @pytest.mark.parametrize("bytes_", [b"\xff", b"\x0a\xff", data()[:-1], b"x" * (1 << 20)])
    def test_bytes_that_do_not_parse(self, bytes_: bytes) -> None:
        """They are the gateway's bad request, and no check is made."""
        response = CheckResponse.FromString(at_once(Check(never), bytes_))
        assert response.denied_response.status.code == 400
        assert json.loads(response.denied_response.body)["error"] == "bad_request"

    def test_an_empty_message_is_no_request(self) -> None:
        """Bytes that parse by luck, such as none, are never let through by `unmatched: pass`."""
        response = CheckResponse.FromString(at_once(Check(lambda _: Allowed("", "", None)), b""))
        assert response.denied_response.status.code == 400

    @given(bytes_=st.binary(max_size=300))
    def test_random_bytes_get_an_answer(self, bytes_: bytes) -> None:
        """Nothing raises, and nothing random is allowed without being an HTTP request."""
        response = CheckResponse.FromString(at_once(Check(lambda _: ALLOWED), bytes_))
        allowed = response.HasField("ok_response")
        assert allowed == bool(_parsed(bytes_).attributes.request.http.method)

    @pytest.mark.parametrize(
        ("check", "bytes_", "reason"),
        [
            (raising(SECRET), data(), Reason.INTERNAL),
            (never, b"\xff", Reason.BAD_REQUEST),
            (lambda _: credited(BROKEN), data(), Reason.INTERNAL),
        ],
        ids=["a fault of ours", "unreadable", "an answer that cannot be encoded"],
    )
    def test_what_no_check_denied_is_told(
        self, check: Callable[[Request], Decision], bytes_: bytes, reason: Reason
    ) -> None:
        """So that it is counted and recorded like any other; whatever becomes of that, it is denied."""
        told: list[tuple[str, Denied]] = []
        door = Check(check, lambda request, denied: told.append((request.request_id, denied)))
        at_once(door, bytes_)
        assert [denied.reason for _, denied in told] == [reason]
        assert told[0][0] == ("" if bytes_ == b"\xff" else "77")
        failing = CheckResponse.FromString(at_once(Check(check, recorder_fails), bytes_))
        assert failing.HasField("denied_response")

    def test_one_too_many_is_told(self) -> None:
        """As it is read for its answer's id."""
        told: list[tuple[str, Reason]] = []
        door = Check(
            never, lambda request, denied: told.append((request.request_id, denied.reason))
        )
        for bytes_ in (data(), b"\xff"):
            assert CheckResponse.FromString(door.refuse(bytes_)).HasField("denied_response")
        assert told == [("77", Reason.OVERLOADED), ("", Reason.BAD_REQUEST)]

    def test_an_exception_is_an_internal_denial(self, caplog: pytest.LogCaptureFixture) -> None:
        """The client learns nothing; the log says what type and where, not the text."""
        response = CheckResponse.FromString(at_once(Check(raising(SECRET)), data()))
        assert response.denied_response.status.code == 500
        assert json.loads(response.denied_response.body) == {
            "error": "internal",
            "request_id": "77",
        }
        assert "ValueError" in caplog.text
        assert "test_ext_authz.py" in caplog.text
        assert SECRET not in caplog.text
        assert SECRET.encode() not in response.SerializeToString()

    def test_a_credential_that_cannot_be_encoded(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error while the answer is built is a denial too, and shows no secret."""
        response = mutated(BROKEN)
        assert response.denied_response.status.code == 500
        assert SECRET not in caplog.text

    def test_refused(self) -> None:
        """A check that there is no room for is denied as overloaded, without being made."""
        response = CheckResponse.FromString(Check(never).refuse(data()))
        assert response.denied_response.status.code == 503
        assert json.loads(response.denied_response.body) == {
            "error": "overloaded",
            "request_id": "77",
        }
        unreadable = CheckResponse.FromString(Check(never).refuse(b"\xff"))
        assert unreadable.denied_response.status.code == 400

    @pytest.mark.parametrize("reason", Reason)
    def test_no_secret_in_denials_or_logs(
        self, reason: Reason, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After a credential was given out, neither the next denial nor any log line holds it."""
        caplog.set_level(logging.DEBUG)
        decisions: list[Decision] = [ALLOWED, Denied(reason, "payments", "production")]
        check = Check(lambda _: decisions.pop(0))
        check.answer(data())
        assert SECRET.encode() not in at_once(check, data())
        assert SECRET not in caplog.text


def _parsed(bytes_: bytes) -> CheckRequest:
    request = CheckRequest()
    try:
        request.ParseFromString(bytes_)
    except DecodeError:
        return CheckRequest()
    return request
