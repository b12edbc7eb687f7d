"""What Envoy tells of a request that is to be signed, and how it is told the signature."""

from __future__ import annotations

from typing import Any

import pytest

from vaultauthz._pb.ext_authz_pb2 import CheckRequest, CheckResponse
from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import Allowed
from vaultauthz.core.injection import Mutation
from vaultauthz.core.request import Message, Request
from vaultauthz.envoy.request import PARTIAL_BODY, read
from vaultauthz.envoy.response import Answers


def message(headers: dict[str, bytes], *, raw: bool, **more: Any) -> Message:
    """What a check with these headers tells of its request."""
    request = CheckRequest()
    http = request.attributes.request.http
    http.method = b"POST"
    for name, value in headers.items():
        if raw:
            http.header_map.headers.add(key=name, raw_value=value)
        else:
            http.headers[name] = value
    for name, value in more.items():
        setattr(http, name, value)
    known = read(request.SerializeToString()).message
    assert known
    return known()


@pytest.fixture(params=[True, False], ids=["raw", "joined"])
def raw(request: pytest.FixtureRequest) -> bool:
    """In which of its two ways Envoy sends headers."""
    return bool(request.param)


def test_headers(raw: bool) -> None:
    """Each header but pseudo headers, bytes and all."""
    found = message({":path": b"/", "x-a": b"caf\xe9", "content-type": b"a/b"}, raw=raw)
    assert sorted(found.headers) == [("content-type", "a/b"), ("x-a", "caf\udce9")]


def test_raw_headers_keep_their_number_and_order() -> None:
    """A header that is sent twice is there twice."""
    request = CheckRequest()
    request.attributes.request.http.method = b"GET"
    for value in (b"2", b"1"):
        request.attributes.request.http.header_map.headers.add(key="X-A", raw_value=value)
    known = read(request.SerializeToString()).message
    assert known
    assert known().headers == (("x-a", "2"), ("x-a", "1"))


@pytest.mark.parametrize(
    ("headers", "more", "body"),
    [
        ({}, {}, None),
        ({}, {"method": b"GET"}, b""),
        ({"content-length": b"3"}, {"method": b"GET"}, None),
        ({"content-length": b"0"}, {}, b""),
        ({"content-length": b"3"}, {}, None),
        ({PARTIAL_BODY: b"false", "content-length": b"3"}, {"raw_body": b"abc"}, b"abc"),
        ({PARTIAL_BODY: b"false", "transfer-encoding": b"chunked"}, {"raw_body": b"abc"}, b"abc"),
        ({PARTIAL_BODY: b"false"}, {"raw_body": b"a\xff"}, b"a\xff"),
        ({PARTIAL_BODY: b"false"}, {}, b""),
        ({PARTIAL_BODY: b"true"}, {"raw_body": b"abc"}, None),
        ({PARTIAL_BODY: b"false", "content-length": b"4"}, {"raw_body": b"abc"}, None),
        ({PARTIAL_BODY: b"false", "content-length": b"x"}, {"raw_body": b"abc"}, None),
        ({PARTIAL_BODY: b"false"}, {"body": b"abc"}, None),
        ({PARTIAL_BODY: b"odd"}, {}, None),
        ({PARTIAL_BODY: b"odd", "content-length": b"3"}, {"raw_body": b"abc"}, None),
    ],
)
def test_body(
    raw: bool, headers: dict[str, bytes], more: dict[str, bytes], body: bytes | None
) -> None:
    """A body is known if all its bytes came, and that there is none if nothing speaks of one."""
    found = message(headers, raw=raw, **more)
    assert found.body == body
    assert PARTIAL_BODY not in dict(found.headers)


def test_the_answer() -> None:
    """The signature's headers replace the client's, beside those of the credential."""
    credential = Credential(Mutation(headers=(("x-token", "t"),)), "c", "l", 9e9)
    answers = Answers()
    for signature in ("one", "two"):
        allowed = Allowed("u", "s", credential, (("authorization", signature), ("x-date", "d")))
        response = CheckResponse.FromString(answers.encode(Request("envoy"), allowed))
        options = response.ok_response.headers
        assert [(o.header.key, o.header.value.decode()) for o in options] == [
            ("x-token", "t"),
            ("authorization", signature),
            ("x-date", "d"),
        ]
        assert {(o.append.value, o.append_action) for o in options} == {(False, 2)}
        assert not response.ok_response.headers_to_remove
