"""The plugin's own rules: what is read of a request, what becomes of a query, what Kong tells afterwards."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.kong_inside import Nobody, allowed
from vaultauthz.core.callers import Callers, Pattern, Rule
from vaultauthz.core.decision import ANSWERS, Denied, Reason
from vaultauthz.core.injection import Mutation
from vaultauthz.core.request import Request
from vaultauthz.core.signing import SigningError
from vaultauthz.kong import calls, questions, registration
from vaultauthz.kong.enforcement import EncodedCalls, denial, merge_query
from vaultauthz.kong.gate import Instance, Instances, PluginConfigError, instance_of
from vaultauthz.kong.log_phase import LogPhase, outcome
from vaultauthz.kong.stock import marked

LINES = [
    ("GET /a?b=c HTTP/1.1", ("GET", "/a?b=c")),
    ("GET http://h/a/b?x HTTP/1.1", ("GET", "/a/b?x")),
    ("GET http://h HTTP/1.1", ("GET", "/")),
    ("GET https://h?x=1 HTTP/1.1", ("GET", "/?x=1")),
    ("OPTIONS * HTTP/1.1", ("OPTIONS", "/*")),
    ("GET /old", ("GET", "/old")),
    ("GET //h/a HTTP/2.0", ("GET", "//h/a")),
    ("", ("", "/")),
]


def told(call: calls.PdkCall, answer: str) -> questions.Results:
    """Kong's answers, one of them this."""
    known = {calls.REQUEST_ID: "1", calls.REQUEST_LINE: "GET /a HTTP/1.1"}
    return known | {calls.HOST: "h", calls.CONSUMER: ""} | {call: answer}


@pytest.mark.parametrize(("line", "wanted"), LINES)
def test_the_request_line(line: str, wanted: tuple[str, str]) -> None:
    """Method and target, also in the form that names the host."""
    request = Request("kong")
    questions.fill(request, told(calls.REQUEST_LINE, line))
    assert (request.method, request.path) == wanted


def test_rules_go_by_the_path_that_kong_tells() -> None:
    """Where the path decides it is asked for by itself."""
    request = Request("kong")
    questions.fill(request, told(calls.PATH, "/b"))
    assert request.path == "/b"


def rules(allow: str, deny: str = "") -> Callers:
    """Rules about consumers by pattern."""
    denied = (Rule(consumer=Pattern.parse(deny)),) if deny else ()
    return Callers((Rule(consumer=Pattern.parse(allow)),), denied)


@pytest.mark.parametrize(
    ("known", "callers", "wanted"),
    [
        ({calls.CREDENTIAL: True}, rules("*"), "shop"),
        ({calls.CREDENTIAL: False}, rules("*"), ""),
        ({}, rules("shop"), "shop"),
        ({calls.CREDENTIAL: False}, rules("*", deny="sh*"), "shop"),
        ({calls.CREDENTIAL: False}, rules("*", deny="other*"), ""),
    ],
)
def test_a_consumer_without_a_credential(
    known: questions.Results, callers: Callers, wanted: str
) -> None:
    """Is nobody where a pattern allows, and stays who it is where one denies."""
    request = Request("kong", consumer="shop")
    questions.disown(request, known, callers)
    assert request.consumer == wanted


def signed(**more: Any) -> questions.Results:
    """The answers for an upstream that signs."""
    known: questions.Results = {
        calls.REQUEST_ID: "1",
        calls.REQUEST_LINE: f"{more.get('method', 'POST')} /client HTTP/1.1",
        calls.HOST: "h",
        calls.CONSUMER: "shop",
        calls.HEADERS: more.get("headers", ()),
        calls.UPSTREAM_PATH: "/upstream",
        calls.RAW_QUERY: "a=1",
    }
    return known | ({calls.BODY: more["body"]} if "body" in more else {})


BODIES = [
    ({"body": b"abc", "headers": (("content-length", "3"),)}, b"abc"),
    ({"body": b"abc"}, b"abc"),
    ({"body": b"ab", "headers": (("content-length", "3"),)}, None),
    ({"body": None, "headers": (("content-length", "3"),)}, None),
    ({"body": None, "headers": (("content-length", "0"),)}, b""),
    ({"body": b"", "headers": (("content-length", "0"),)}, b""),
    ({"method": "GET"}, b""),
    ({"method": "GET", "headers": (("transfer-encoding", "chunked"),)}, None),
    ({"headers": (("transfer-encoding", "chunked"),), "body": b"abc"}, b"abc"),
    ({}, None),
]


@pytest.mark.parametrize(("told", "wanted"), BODIES)
def test_the_body_that_is_signed(told: dict[str, Any], wanted: bytes | None) -> None:
    """All of it, or None: never a part."""
    request = Request("kong")
    questions.fill(request, signed(**told))
    assert request.message is not None
    assert request.message().body == wanted
    assert request.message().target == "/upstream?a=1"
    assert (request.host, request.path, request.caller) == ("h", "/client", "shop")


def test_headers_that_are_asked_for() -> None:
    """By any spelling of a name, and of nothing where Kong may have told but a part."""
    request = Request("kong")
    told = (("X_HTTP-Method", "DELETE"), ("x-http-method", "PUT"), ("x-other", "1"))
    questions.fill(request, signed(headers=told))
    assert request.sent(("x-http-method",)) == (
        ("x_http-method", "DELETE"),
        ("x-http-method", "PUT"),
    )
    questions.fill(request, signed(headers=(("a", "b"),) * calls.MOST_HEADERS))
    assert request.sent(("x-http-method",)) is None


def test_more_headers_than_kong_tells() -> None:
    """Cannot be signed, as some are not known."""
    request = Request("kong")
    questions.fill(request, signed(headers=(("a", "b"),) * calls.MOST_HEADERS))
    assert request.message is not None
    with pytest.raises(SigningError):
        request.message()


PAIR = st.tuples(st.text("ak%6bey+=", max_size=6), st.text("ab%=+", max_size=4))
QUERY = st.lists(PAIR, max_size=6).map(lambda pairs: "&".join(f"{n}={v}" for n, v in pairs))


@given(QUERY)
def test_our_argument_is_there_once(sent: str) -> None:
    """However the client spelt its own; the others stay as they were, in order."""
    merged = merge_query(sent, [("key", "ours")])
    found = parse_qsl(merged, keep_blank_values=True)
    assert [value for name, value in found if name == "key"] == ["ours"]
    names = {"key"}
    others = [p for p in sent.split("&") if p and unquote_plus(p.partition("=")[0]) not in names]
    assert merged.split("&")[:-1] == others


ENCODED = [
    ("key", "%6bey=x&a=%6bey", "a=%6bey&key=ours"),
    ("key", "k%65y&%6B%65%79=1&Key=1", "Key=1&key=ours"),
    ("a+b", "a%20b=x&a+b=y&a_b=z&ab=1", "ab=1&a+b=ours"),
    ("a%26b", "a%26b=x&a&b=1", "a&b=1&a%26b=ours"),
    ("k%C3%A9", "ké=1&k%c3%a9=2&k%C3=3", "k%C3=3&k%C3%A9=ours"),
]


@pytest.mark.parametrize(("name", "sent", "merged"), ENCODED)
def test_encoded_names_of_arguments(name: str, sent: str, merged: str) -> None:
    """The client's and ours are compared by what they stand for, and ours goes out as it is."""
    assert merge_query(sent, [(name, "ours")]) == merged


@pytest.mark.parametrize("reason", Reason)
def test_denials(reason: Reason) -> None:
    """The one table's status, and a body without a word of Vault's."""
    (call,) = denial(Denied(reason, "pay", "prod", 7), 'i"d').calls
    status, body, headers = call.args
    assert status == ANSWERS[reason].http
    assert json.loads(body) == {"error": reason.value, "request_id": 'i"d'}
    assert headers == {"Content-Type": "application/json", "Retry-After": "7"}


def test_a_credential_is_encoded_once() -> None:
    """And anew for the next one."""
    answers, one, two = EncodedCalls(), allowed("pay"), allowed("pay")
    assert one.credential is not None
    assert two.credential is not None
    first = answers.of(one, one.credential)
    assert answers.of(one, one.credential) is first
    assert answers.of(two, two.credential) is not first


def test_what_is_hidden_from_kongs_logs() -> None:
    """Each place where Kong would log a credential; a dot in a name hides its whole table."""
    mutation = Mutation(
        headers=(("authorization", "1"), ("x-api-key", "2"), ("x.y", "3")),
        query=(("a+b", "4"),),
        cookies=(("sid", "5"),),
    )
    one = allowed("pay", headers=mutation.headers, query=mutation.query, cookies=mutation.cookies)
    assert one.credential is not None
    made = EncodedCalls().of(one, one.credential).constant.calls
    hidden = [call.args[0] for call in made if call.name == "kong.log.set_serialize_value"]
    assert hidden == [
        "request.headers.x-api-key",
        "request.headers",
        "request.headers.cookie",
        "request.querystring.a b",
        "upstream_uri",
    ]


def test_the_mark_is_set_last() -> None:
    """With the credential if that is last, else by itself: what is marked is complete."""
    instance = Instance("pay", "prod")
    headers = calls.set_headers([("authorization", "1")])
    mark = {registration.MARK: "pay/prod"}
    (only,) = marked((headers,), instance)
    assert only.args == ({**mark, "authorization": "1"},)
    query = calls.set_raw_query("a")
    assert [call.args for call in marked((headers, query), instance)][-1] == (mark,)
    assert [call.args for call in marked((), instance)] == [(mark,)]


class TestConfig:
    @pytest.mark.parametrize(
        ("data", "wanted"),
        [
            (b'{"upstream": "pay", "stage": "prod", "__key__": "k", "route_id": "r"}', "pay/prod"),
            (b"{}", "/"),
            (b'{"upstream": null}', "/"),
        ],
    )
    def test_kongs_own_keys_are_passed_over(self, data: bytes, wanted: str) -> None:
        """Ours are upstream and stage, both optional."""
        instance = instance_of(data)
        assert registration.mark_of(instance.upstream, instance.stage) == wanted

    @pytest.mark.parametrize(
        "data", [b"", b"{", b"[]", b'{"upstream": 1}', b"\xff", b'{"stage": []}']
    )
    def test_what_is_none(self, data: bytes) -> None:
        """Is refused without being quoted."""
        with pytest.raises(PluginConfigError):
            instance_of(data)


def test_numbers_of_instances() -> None:
    """31 bits, never 0, and those of two processes have nothing in common."""
    one, two = Instances(), Instances()
    mine = {one.add(Instance("pay", "")) for _ in range(100)}
    theirs = {two.add(Instance("pay", "")) for _ in range(100)}
    assert len(mine | theirs) == 200
    assert all(0 < number < 2**31 for number in mine | theirs)


def test_numbers_go_round() -> None:
    """After the last comes the first that is free."""
    instances = Instances()
    instances._next = 2**31 - 2
    assert [instances.add(Instance("pay", "")) for _ in range(3)] == [2**31 - 1, 1, 2]
    instances._next = 2**31 - 2
    assert instances.add(Instance("pay", "")) == 3


OUTCOMES = [
    ('{"request": {"id": "1"}, "upstream_status": "401"}', ("1", 401)),
    ('{"request": {"id": "1"}, "upstream_status": "502, 200"}', ("1", 200)),
    ('{"request": {"id": "1"}, "upstream_status": ""}', ("1", 0)),
    ('{"request": {"id": "1"}, "upstream_status": "-"}', ("1", 0)),
    ('{"request": {"id": "1", "headers": {"upstream_status": "401"}}}', ("1", 0)),
    ('{"request": 5}', ("", 0)),
    ("[]", ("", 0)),
]


@pytest.mark.parametrize(("serialized", "wanted"), OUTCOMES)
def test_what_kong_tells(serialized: str, wanted: tuple[str, int]) -> None:
    """The upstream's last status, and nothing that a client wrote."""
    assert outcome(serialized) == wanted


def test_a_401_is_that_requests_credentials() -> None:
    """Told once, to the one that it got; of others' requests nothing is told."""
    hears = Nobody()
    given_to = LogPhase(hears.answered, hears.rejected, hears.tried)
    given_to.note("1", allowed("pay"))
    for serialized in ('{"request": {"id": "1"}, "upstream_status": "401"}',) * 2:
        given_to._read(serialized)
    assert hears.heard == [("prod", "pay", 401)]
    assert hears.rejections == [("pay", "prod", "c-pay")]
    assert hears.trials == [("prod", "pay", "c-pay", 401)]


def test_an_odd_line_ends_nothing() -> None:
    """The next one is read."""
    hears = Nobody()
    given_to = LogPhase(hears.answered, hears.rejected, hears.tried)
    given_to.note("1", allowed("pay"))
    given_to.finished("{")
    given_to.finished('{"request": {"id": "1"}, "upstream_status": "200"}')
    given_to.finished("")
    given_to._over.put(None)
    given_to._run()
    assert hears.heard == [("prod", "pay", 200)]


def test_requests_that_never_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest first; what is told of one that was forgotten is nobody's."""
    monkeypatch.setattr("vaultauthz.kong.log_phase._MOST", 3)
    hears = Nobody()
    given_to = LogPhase(hears.answered, hears.rejected, hears.tried)
    for number in range(5):
        given_to.note(str(number), allowed("pay"))
        assert len(given_to._uses) == min(number + 1, 3)
    for number in range(5):
        told = {"request": {"id": str(number)}, "upstream_status": str(200 + number)}
        given_to._read(json.dumps(told))
    assert hears.heard == [("prod", "pay", 202), ("prod", "pay", 203), ("prod", "pay", 204)]
    assert not given_to._uses
