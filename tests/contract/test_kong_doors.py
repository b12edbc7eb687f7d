"""One suite of requests through every door: Envoy's, and both of Kong's, with the same expectations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_plus

import pytest

from tests.contract.kong import Kong
from tests.contract.kong_bed import OURS, STOCK, UPSTREAMS, config, routes, server_of
from tests.contract.running import Running, fake, settings
from vaultauthz._pb.ext_authz_pb2 import AttributeContext, CheckRequest, CheckResponse
from vaultauthz.envoy.ext_authz import Check

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sent:
    """A client's request to the route of ``upstream``."""

    upstream: str
    path: str = ""  # below the route's own
    method: str = "GET"
    headers: Pairs = ()


@dataclass(frozen=True)
class Outcome:
    """What the upstream got, or what the client was answered with."""

    status: int
    error: str = ""
    retry_after: str | None = None
    headers: dict[str, list[str]] = field(default_factory=dict)
    query: str = ""


class Door(Protocol):
    """A way into vaultauthz."""

    def send(self, sent: Sent) -> Outcome:
        """Send a request through it."""


class KongDoor:
    """The stand-in's Kong with either plugin server."""

    def __init__(self, kong: Kong) -> None:
        self.kong = kong

    def send(self, sent: Sent) -> Outcome:
        path = f"/{sent.upstream}{sent.path}"
        answer = self.kong.request(sent.method, path, headers=sent.headers)
        if answer.received is None:
            error = answer.json()["error"]
            assert answer.header("content-type") == "application/json"
            return Outcome(answer.status, error, answer.header("retry-after"))
        headers: dict[str, list[str]] = {}
        for name, value in answer.received.headers:
            headers.setdefault(name.lower(), []).append(value)
        return Outcome(200, headers=headers, query=answer.received.query)


class EnvoyDoor:
    """ext_authz, its answer carried out as Envoy does it."""

    def __init__(self, running: Running) -> None:
        self._check = Check(running.engine.start_check)

    def send(self, sent: Sent) -> Outcome:
        response = CheckResponse.FromString(self._answer(sent))
        if not response.HasField("ok_response"):
            denied = response.denied_response
            told = {o.header.key: o.header.value.decode() for o in denied.headers}
            error = json.loads(denied.body)["error"]
            return Outcome(denied.status.code, error, told.get("retry-after"))
        ok = response.ok_response
        headers: dict[str, list[str]] = {}
        for name, value in sent.headers:
            headers.setdefault(name.lower(), []).append(value)
        headers |= {o.header.key: [o.header.value.decode()] for o in ok.headers}
        for name in ok.headers_to_remove:
            headers.pop(name, None)
        gone = {*ok.query_parameters_to_remove, *(p.key for p in ok.query_parameters_to_set)}
        pairs = [p for p in sent.path.partition("?")[2].split("&") if p]
        kept = [pair for pair in pairs if pair.partition("=")[0] not in gone]
        query = "&".join([*kept, *(f"{p.key}={p.value}" for p in ok.query_parameters_to_set)])
        return Outcome(200, headers=headers, query=query)

    def _answer(self, sent: Sent) -> bytes:
        http = AttributeContext.HttpRequest(
            method=sent.method.encode(),
            path=f"/{sent.upstream}{sent.path}".encode(),
            host=b"api.test",
            headers={name.lower(): value.encode() for name, value in sent.headers},
            id="1",
        )
        attributes = AttributeContext(request=AttributeContext.Request(http=http))
        attributes.context_extensions["upstream"] = sent.upstream
        answer = self._check.answer(CheckRequest(attributes=attributes).SerializeToString())
        return answer if isinstance(answer, bytes) else answer.wait()


@pytest.fixture(scope="module", params=["envoy", OURS, STOCK])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Each door in turn, over the same upstreams in the same Vault."""
    folder = tmp_path_factory.mktemp("k")
    with fake() as vault:
        if request.param == "envoy":
            with Running(settings(vault, **UPSTREAMS)) as running:
                running.wait_ready()
                yield EnvoyDoor(running)
            return
        server = server_of(request.param, folder, config(vault, folder))
        with Kong(server, routes([*UPSTREAMS, "missing"], request.param)) as kong:
            yield KongDoor(kong)


MINE = "Bearer mine"
GIVEN: list[tuple[str, Sent, dict[str, list[str] | None]]] = [
    ("a bearer token", Sent("bearer"), {"authorization": ["Bearer one-1"]}),
    (
        "in place of the client's",
        Sent("bearer", headers=(("Authorization", MINE),)),
        {"authorization": ["Bearer one-1"]},
    ),
    ("a header", Sent("geo", headers=(("x-API-key", "mine"),)), {"x-api-key": ["one-1"]}),
    (
        "no copy in the other spelling",
        Sent("geo", headers=(("X_Api_Key", "mine"),)),
        {"x-api-key": ["one-1"], "x_api_key": None},
    ),
    (
        "no copy in any other spelling",
        Sent("geo", headers=(("X_Api-Key", "mine"), ("X-Api_Key", "mine"))),
        {"x-api-key": ["one-1"], "x_api-key": None, "x-api_key": None},
    ),
    (
        "nor of a long name",
        Sent(
            "long", headers=(("X_A-Long_Api-Key", "mine"), ("X-A_Long-Api-Key", "1"), ("X-A", "1"))
        ),
        {
            "x-a-long-api-key": ["one-1"],
            "x_a-long_api-key": None,
            "x-a_long-api-key": None,
            "x-a": ["1"],
        },
    ),
    (
        "a stripped header in another spelling",
        Sent("strict", headers=(("X_Debug-Key", "mine"), ("X-Debug_Key", "mine"))),
        {"x_debug-key": None, "x-debug_key": None},
    ),
    (
        "a method that may, said again",
        Sent("reads", headers=(("X-HTTP-Method-Override", "get"),)),
        {"authorization": ["Bearer one-1"]},
    ),
    ("a percent sign", Sent("open", "/files/100%25"), {"authorization": ["Bearer one-1"]}),
    (
        "a stripped header",
        Sent("strict", headers=(("X-Debug-Key", "mine"), ("X-Kept", "1"))),
        {"x-debug-key": None, "x-kept": ["1"]},
    ),
    ("a cookie", Sent("cookie"), {"cookie": ["sid=two-1"]}),
    (
        "a cookie beside the client's",
        Sent("cookie", headers=(("Cookie", "a=1; sid=mine; b=2"),)),
        {"cookie": ["a=1; b=2; sid=two-1"]},
    ),
    ("a method that may", Sent("reads"), {"authorization": ["Bearer one-1"]}),
    ("a path that may", Sent("v1", "/v1/x"), {"authorization": ["Bearer one-1"]}),
]


@pytest.mark.parametrize(("sent", "wanted"), [row[1:] for row in GIVEN], ids=[r[0] for r in GIVEN])
def test_what_the_upstream_gets(
    door: Door, sent: Sent, wanted: dict[str, list[str] | None]
) -> None:
    """The credential is there once, the client's copies are not, and nothing else is touched."""
    outcome = door.send(sent)
    assert outcome.status == 200
    assert {name: outcome.headers.get(name) for name in wanted} == wanted


QUERIES = [
    ("", [("key", "two-1")]),
    ("?a=1", [("a", "1"), ("key", "two-1")]),
    ("?key=mine&a=1&key=again", [("a", "1"), ("key", "two-1")]),
    ("?%6bey=mine&k%65y", [("key", "two-1")]),
    ("?key[]=mine&a=1;key=mine", [("key", "two-1")]),
    ("?keys=1&ke=2", [("keys", "1"), ("ke", "2"), ("key", "two-1")]),
]


@pytest.mark.parametrize(("query", "wanted"), QUERIES)
def test_the_query(door: Door, query: str, wanted: list[tuple[str, str]]) -> None:
    """Our argument replaces every copy, however it is spelt, and leaves the others in order."""
    pairs = [p.partition("=") for p in door.send(Sent("query", query)).query.split("&")]
    assert [(unquote_plus(name), value) for name, _, value in pairs] == wanted


DENIED = [
    ("an upstream that there is not", Sent("missing"), 403, "no_upstream"),
    ("a method that may not", Sent("reads", method="POST"), 403, "caller_denied"),
    ("a path that may not", Sent("v1", "/v2"), 403, "caller_denied"),
    (
        "a header that names another method",
        Sent("reads", headers=(("X_HTTP-Method", "DELETE"),)),
        400,
        "bad_request",
    ),
    ("a query that names another method", Sent("reads", "?a=1&_method=PUT"), 400, "bad_request"),
    ("a denied path", Sent("open", "/Admin"), 403, "caller_denied"),
    ("a denied path, encoded twice", Sent("open", "/%2561dmin"), 400, "bad_request"),
    ("a path denied below, encoded twice", Sent("open", "/admin%252Fx"), 400, "bad_request"),
    ("nobody where a consumer is wanted", Sent("shop"), 403, "caller_denied"),
    ("nobody where a group is wanted", Sent("staff"), 403, "caller_denied"),
    ("a path that can be read in two ways", Sent("v1", "/v1/../x"), 400, "bad_request"),
    ("no credential", Sent("empty"), 503, "no_credential"),
]


@pytest.mark.parametrize(
    ("sent", "status", "error"), [row[1:] for row in DENIED], ids=[r[0] for r in DENIED]
)
def test_what_the_client_is_answered(door: Door, sent: Sent, status: int, error: str) -> None:
    """By the one table, as JSON, and with Retry-After where it helps."""
    outcome = door.send(sent)
    assert (outcome.status, outcome.error) == (status, error)
    assert (outcome.retry_after is not None) == (error == "no_credential")


def test_a_header_that_a_client_makes_up(door: Door) -> None:
    """Nothing that looks like Kong's or Envoy's word on the caller counts."""
    made_up = ("X-Consumer-Username", "X-Consumer-Groups", "X-Authenticated-Groups", "Vaultauthz")
    headers = tuple((name, value) for name in made_up for value in ("shop", "staff"))
    assert door.send(Sent("shop", headers=headers)).error == "caller_denied"
    assert door.send(Sent("staff", headers=headers)).error == "caller_denied"
