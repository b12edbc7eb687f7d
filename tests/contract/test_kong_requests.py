"""What a request through Kong gets from our plugin server, and what Kong is asked for it."""

from __future__ import annotations

import hmac
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.faults import wait_until
from tests.contract.kong import Consumer, Kong, Route, Verdict
from tests.contract.kong_bed import (
    OURS,
    STOCK,
    UPSTREAMS,
    audit,
    audited,
    config,
    inject,
    kong_of,
    routes,
    server_of,
)
from tests.contract.running import fake
from vaultauthz.demo.client import get_unix

# The request's id and its first line, and the rest of who asks for what.
ASKED = (
    "kong.nginx.get_var",
    "kong.nginx.get_var",
    "kong.request.get_host",
    "kong.client.get_consumer",
)
SET = "kong.service.request.set_headers"
CLEAR, HIDE = "kong.service.request.clear_header", "kong.log.set_serialize_value"
SHOP = Consumer("shop")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the audit log and the sockets are."""
    return tmp_path_factory.mktemp("k")


@pytest.fixture(scope="module")
def kong(folder: Path) -> Iterator[Kong]:
    """One Kong with our server, for the tests that leave it as it was."""
    with kong_of(OURS, folder) as (running, _):
        yield running


@pytest.fixture(scope="module", params=[OURS, STOCK])
def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kong]:
    """A Kong with each of the servers in turn."""
    with kong_of(request.param, tmp_path_factory.mktemp("k")) as (running, _):
        yield running


class TestCalls:
    """The PDK calls of the access phase, which a request waits for."""

    def test_a_token_takes_five(self, kong: Kong) -> None:
        """Four questions, which go out together, and one that sets the header."""
        assert kong.request("GET", "/bearer").pdk_calls == (*ASKED, SET)

    def test_a_key_is_hidden_from_kongs_logs(self, kong: Kong) -> None:
        """Another header than Authorization takes four more: its other spellings go, and its value from the logs."""
        answer = kong.request("GET", "/geo")
        assert answer.pdk_calls == (*ASKED, CLEAR, CLEAR, CLEAR, HIDE, SET)
        answer.log.wait()
        assert answer.log.serialized["request"]["headers"]["x-api-key"] == "REDACTED"

    def test_a_credential_is_asked_for_where_a_pattern_wants_a_consumer(self, kong: Kong) -> None:
        """By its full name no more calls; by a pattern one, since `anonymous` is a consumer as well."""
        answer = kong.request("GET", "/shop", consumer=SHOP)
        assert answer.pdk_calls == (*ASKED, SET)
        answer = kong.request("GET", "/anyone", consumer=SHOP)
        assert answer.pdk_calls == (*ASKED, "kong.client.get_credential", SET)

    def test_a_denial_takes_one_besides_the_questions(self, kong: Kong) -> None:
        """The answer to the client."""
        answer = kong.request("GET", "/shop")
        assert answer.pdk_calls == (*ASKED, "kong.response.exit")

    def test_the_log_phase_takes_one(self, kong: Kong) -> None:
        """`kong.log.serialize`, after the answer went out."""
        trace = kong.request("GET", "/bearer").log.wait()
        assert (trace.pdk_calls, trace.error) == (("kong.log.serialize",), None)


class TestCallers:
    """Who may, as Kong has authenticated them."""

    def test_the_named_consumer(self, either: Kong) -> None:
        """Whoever Kong's authentication plugin found, by its username."""
        answer = either.request("GET", "/shop", consumer=SHOP)
        assert answer.upstream.header("authorization") == "Bearer one-1"
        assert either.request("GET", "/shop", consumer="shops").json()["error"] == "caller_denied"

    def test_a_custom_id_is_no_name(self, either: Kong) -> None:
        """What one consumer has as `custom_id` may be another's username."""
        other = Consumer(custom_id="shop")
        assert either.request("GET", "/shop", consumer=other).status == 403

    def test_a_group(self, either: Kong) -> None:
        """The groups that an authentication plugin put into Kong's context."""
        answer = either.request("GET", "/staff", consumer=Consumer("x", groups=("a", "staff")))
        assert answer.upstream.header("authorization") == "Bearer one-1"
        assert either.request("GET", "/staff", consumer=Consumer("x", groups=("a",))).status == 403

    def test_any_consumer_that_was_authenticated(self, either: Kong) -> None:
        """A pattern wants a credential of theirs, too."""
        assert either.request("GET", "/anyone", consumer=SHOP).verdict is Verdict.PROXIED
        assert either.request("GET", "/anyone").status == 403


class TestOwnLeases:
    def test_each_caller_has_one(self, either: Kong) -> None:
        """The first request of a caller waits for Vault; the next ones get the same, others another."""
        who = [Consumer(name) for name in ("a", "b", "a")]
        sent = [either.request("GET", "/own", consumer=one) for one in who]
        given = [answer.upstream.header("authorization") for answer in sent]
        assert given[0] == given[2] != given[1]

    def test_nobody_has_none(self, either: Kong) -> None:
        """Without a caller there is no lease of a caller's."""
        assert either.request("GET", "/own").json()["error"] == "caller_denied"


class TestAudit:
    def test_a_line_says_who_got_what(self, kong: Kong, folder: Path) -> None:
        """Written before the credential goes out, with the id that Kong logs, and without the query."""
        answer = kong.request("POST", "/shop/1?secret=2", consumer=SHOP)
        request_id = answer.upstream.header("X-Kong-Request-Id") or ""
        line = audited(folder, "request.allowed", request_id=request_id)
        assert {key: line[key] for key in ("gateway", "caller", "upstream", "method", "path")} == {
            "gateway": "kong",
            "caller": "shop",
            "upstream": "shop",
            "method": "POST",
            "path": "/shop/1",
        }

    def test_a_denial_has_the_same_id_everywhere(self, kong: Kong, folder: Path) -> None:
        """In the client's answer and in the audit log."""
        told = kong.request("GET", "/shop").json()
        assert audited(folder, "request.denied", request_id=told["request_id"])["path"] == "/shop"

    def test_the_upstreams_answers_are_counted(self, kong: Kong, folder: Path) -> None:
        """By the log phase, as Envoy's access log has them."""
        kong.routes["strict"].service.status = 418
        kong.request("GET", "/strict").log.wait()
        counted = (
            'vaultauthz_upstream_answers_total{stage="production",status="4xx",upstream="strict"}'
        )
        assert wait_until(lambda: counted in metrics(folder / "admin.sock"))

    def test_kongs_connections_are_counted(self, kong: Kong, folder: Path) -> None:
        """Those that it has open to the plugin's socket: in the metrics, and on the page."""
        kong.request("GET", "/pay")
        shown = metrics(folder / "admin.sock")
        (count,) = re.findall(
            r'^vaultauthz_gateway_connections\{door="kong"\} (\S+)$', shown, re.MULTILINE
        )
        assert float(count) >= 1
        reply = get_unix(folder / "admin.sock", "/overview")
        (gateway,) = reply.body["gateways"]
        assert (gateway["name"], gateway["connections"] >= 1) == ("Kong", True)

    def test_an_upstreams_401(self, kong: Kong, folder: Path) -> None:
        """It refused what it was given: that is told, and a replacement asked for."""
        kong.routes["pay"].service.status = 401
        kong.request("GET", "/pay").log.wait()
        given = audited(folder, "lease.issued", upstream="pay")["credential_id"]
        audited(folder, "credential.rejected", upstream="pay", credential_id=given)
        refused = 'vaultauthz_credentials_refused{stage="production",upstream="pay"}'
        assert wait_until(lambda: f"{refused} 1.0\n" in metrics(folder / "admin.sock"))
        kong.routes["pay"].service.status = 200
        kong.request("GET", "/pay").log.wait()
        assert wait_until(lambda: f"{refused} 0.0\n" in metrics(folder / "admin.sock"))


def metrics(path: Path) -> str:
    """What /metrics says."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with client.makefile("rb") as answer:
            return answer.read().decode()


class TestBytes:
    @pytest.mark.parametrize("value", [b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\x80" * 300])
    def test_a_header_that_is_not_utf8(self, kong: Kong, value: bytes) -> None:
        """It goes through as it is, with the credential beside it; so it does in the cookie that we write."""
        answer = kong.request("GET", "/bearer", headers=[("X-Odd", value)])
        assert answer.upstream.header_bytes("X-Odd") == value
        assert answer.upstream.header("authorization") == "Bearer one-1"
        answer.log.wait()
        answer = kong.request("GET", "/cookie", headers=[("Cookie", b"a=" + value)])
        assert answer.upstream.header_bytes("Cookie") == b"a=" + value + b"; sid=two-1"

    @pytest.mark.parametrize("path", [b"/v1/v1", b"/v1/v1/\xff", b"/v1/v1/%ff?x=\xff"])
    def test_a_path_that_is_not_utf8(self, kong: Kong, path: bytes) -> None:
        """It is decided on as it was sent."""
        assert kong.request("GET", b"/v1" + path[3:]).status in (200, 400)
        assert kong.request("GET", b"/query?\xff=\xfe").upstream.query.startswith("\udcff=")

    def test_the_stock_server_with_the_guard(self, tmp_path: Path) -> None:
        """Kong's own server fails on such a header: only after the answer, or the guard says 503."""
        with kong_of(STOCK, tmp_path) as (kong, _):
            odd = [("Cookie", b"\xff")]
            answer = kong.request("GET", "/cookie", headers=odd)
            assert (answer.verdict, answer.status) == (Verdict.GUARDED, 503)
            answer = kong.request("GET", "/bearer", headers=odd)
            assert answer.upstream.header("authorization") == "Bearer one-1"
            assert answer.upstream.header("Vaultauthz") is None


def test_our_routes_find_the_upstream(tmp_path: Path) -> None:
    """Where the plugin's configuration names none: by host and path, and its rules are asked for after."""
    own = [{"host": "api.test", "path_prefix": "/v1/", "upstream": "shop", "stage": "production"}]
    with fake() as vault:
        path = config(vault, tmp_path, {"shop": UPSTREAMS["shop"]}, routes=own)
        with Kong(server_of(OURS, tmp_path, path), [Route("all", "/", {})]) as kong:
            answer = kong.request("GET", "/v1/x", consumer=SHOP)
            assert answer.upstream.header("authorization") == "Bearer one-1"
            assert kong.request("GET", "/v1/x").json()["error"] == "caller_denied"
            assert kong.request("GET", "/v2").json()["error"] == "no_upstream"
            assert kong.request("GET", "/v1/x", host="b.test").json()["error"] == "no_upstream"


def test_a_signature(tmp_path: Path) -> None:
    """Each request is signed, over the path, the query and the body that its upstream receives."""
    form = {
        "key": "{key}",
        "sign": ["{method}", "{target}", "{header.x-date}", "{body}"],
        "headers": {"X-Signature": "{signature}"},
    }
    with kong_of(OURS, tmp_path, upstreams={"signed": inject("one", {"hmac": form})}) as (kong, _):
        for body in (b"", b"a", b"b" * 8000):
            headers = [("Content-Length", str(len(body))), ("X-Date", "today")]
            answer = kong.request("POST", "/signed/%41?x=1", headers=headers, body=body)
            text = b"POST\n/signed/%41?x=1\ntoday\n" + body
            wanted = hmac.digest(b"one-1", text, "sha256").hex()
            assert answer.upstream.header("x-signature") == wanted
        in_a_file = b"x" * 10_000
        headers = [("Content-Length", str(len(in_a_file)))]
        answer = kong.request("POST", "/signed", headers=headers, body=in_a_file)
        assert (answer.status, answer.json()["error"]) == (400, "bad_request")


def test_a_signature_behind_strip_path(tmp_path: Path) -> None:
    """What is signed is the upstream's path; rules and the audit log go by the client's."""
    form = {"key": "{key}", "sign": ["{target}"], "headers": {"X-Signature": "{signature}"}}
    callers = [{"path_prefix": "/signed/v1"}]
    upstreams = {"signed": inject("one", {"hmac": form}, callers=callers)}
    with fake() as vault:
        server = server_of(OURS, tmp_path, config(vault, tmp_path, upstreams))
        route = Route("signed", "/signed", {"upstream": "signed"}, strip_path=True)
        with Kong(server, [route]) as kong:
            answer = kong.request("GET", "/signed/v1/a?x=1", host="pay.test", consumer=SHOP)
            assert (answer.upstream.path, answer.upstream.query) == ("/v1/a", "x=1")
            wanted = hmac.digest(b"one-1", b"/v1/a?x=1", "sha256").hex()
            assert answer.upstream.header("x-signature") == wanted
            assert kong.request("GET", "/signed/v2").json()["error"] == "caller_denied"
        line = audited(tmp_path, "request.allowed")
        told = [line[key] for key in ("caller", "host", "path")]
        assert told == ["shop", "pay.test", "/signed/v1/a"]


FORMS = {
    "any": "bearer",
    "a consumer": "shop",
    "a pattern": "anyone",
    "a group": "staff",
    "a method": "reads",
    "a path": "v1",
    "each caller": "own",
    "a key in the query": "query",
}


@pytest.mark.parametrize("name", FORMS.values(), ids=FORMS)
def test_the_line_says_who_asked_for_what(either: Kong, name: str) -> None:
    """Whatever the rule goes by, and of a denial as well: the consumer, the host and the client's path."""
    folder = either.server.socket.parent
    folder = folder if (folder / "audit.jsonl").exists() else folder.parent
    who = Consumer("shop", groups=("staff",))
    for method, host, path in (("GET", "pay.test", f"/{name}/v1"), ("POST", "x.test", f"/{name}")):
        answer = either.request(method, f"{path}?key=mine", host=host, consumer=who)
        event = "request.allowed" if answer.status == 200 else "request.denied"
        line = audited(folder, event, host=host, upstream=name, path=path)
        assert (line["caller"], line["method"]) == ("shop", method)
        assert "mine" not in json.dumps(line)


def test_a_report_by_caller(folder: Path, kong: Kong) -> None:
    """`vaultauthz audit report --by caller` names Kong's consumers under `callers: any`."""
    kong.request("GET", "/bearer", consumer=Consumer("reporter"))
    assert audited(folder, "request.allowed", caller="reporter")
    report = [sys.executable, "-m", "vaultauthz", "audit", "report", "--by", "caller", "--json"]
    told = subprocess.run(
        [*report, str(folder / "audit.jsonl")],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(told.stdout)["callers"]
    assert [(row["upstream"], row["allowed"]) for row in rows if row["caller"] == "reporter"] == [
        ("bearer", 1)
    ]


def test_a_reload_takes_effect(tmp_path: Path) -> None:
    """Who may is decided by the new file, without a request lost, and its questions are asked."""
    with fake() as vault:
        path = config(vault, tmp_path, {"bearer": UPSTREAMS["bearer"]})
        with Kong(server_of(OURS, tmp_path, path), routes(["bearer"])) as kong:
            assert kong.request("GET", "/bearer").status == 200
            config(vault, tmp_path, {"bearer": UPSTREAMS["shop"]})
            assert wait_until(lambda: kong.request("GET", "/bearer").status == 403)
            assert kong.request("GET", "/bearer", consumer=SHOP).status == 200
            assert not audit(tmp_path, "request.denied", reason="internal")
