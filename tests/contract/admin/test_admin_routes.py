"""What there is to see and to ask for."""

from __future__ import annotations

import http.client
import math

import pytest

from tests.contract.admin.conftest import (
    MARKED,
    FakeView,
    Reply,
    ask,
    port,
)
from tests.patience import PATIENCE
from vaultauthz.admin import Admin, LeaseRow, Readiness, WaitingUpstream
from vaultauthz.core.certificate import EndingCertificate


def test_alive_and_ready(admin: Admin) -> None:
    """A server that runs is alive, and ready when the application says so."""
    assert (ask(admin, "/healthz").status, ask(admin, "/healthz").json) == (200, {"alive": True})
    told = {"ready": True, "started": True}
    assert (ask(admin, "/readyz").status, ask(admin, "/readyz").json) == (200, told)


def test_not_ready_says_why(admin: Admin, view: FakeView) -> None:
    """Until every credential is there, the answer is 503 and names what is missing."""
    view.readiness = Readiness(
        started=False,
        ready=False,
        waiting=(WaitingUpstream("staging", "payments", "Vault is sealed"),),
    )
    reply = ask(admin, "/readyz")
    lacks = {"stage": "staging", "upstream": "payments", "reason": "Vault is sealed"}
    waiting = [lacks | {"optional": False}]
    told = {"ready": False, "started": False, "waiting": waiting}
    assert (reply.status, reply.json) == (503, told)


def test_started_is_another_question(admin: Admin, view: FakeView) -> None:
    """A probe that must not fail for an upstream's loss asks that; another question is none."""
    view.readiness = Readiness(started=True, ready=False)
    told = {"ready": False, "started": True}
    assert (ask(admin, "/readyz").status, ask(admin, "/readyz").json) == (503, told)
    reply = ask(admin, "/readyz?started")
    assert (reply.status, reply.json) == (200, told)
    view.readiness = Readiness(started=False, ready=False)
    assert ask(admin, "/readyz?started").status == 503
    reply = ask(admin, "/readyz?stated")
    assert (reply.status, reply.json["error"]) == (400, "bad_query")


def test_not_ready_while_nothing_is_recorded(admin: Admin, view: FakeView) -> None:
    """Checks are refused then, whatever credentials there are."""
    view.readiness = Readiness(started=False, ready=False, recorded=False)
    reply = ask(admin, "/readyz")
    assert (reply.status, reply.json) == (
        503,
        {"ready": False, "started": False, "audit": "cannot be written"},
    )


def test_what_is_told_besides(admin: Admin, view: FakeView) -> None:
    """A certificate that has ended, a stop that is near: whether or not it is ready."""
    view.readiness = Readiness(
        started=True, ready=True, besides=(("grpc_tls", "the certificate has ended"),)
    )
    reply = ask(admin, "/readyz")
    told = {"ready": True, "started": True, "grpc_tls": "the certificate has ended"}
    assert (reply.status, reply.json) == (200, told)


def test_certificates(admin: Admin, view: FakeView) -> None:
    """A JSON list, too; an end that there is not is null."""
    view.ending = [EndingCertificate("grpc", file="/tls.crt", trouble="being written", refused=2)]
    (one,) = ask(admin, "/certificates").json
    assert one == {
        "name": "listen.grpc_tls",
        "use": "grpc",
        "not_after": None,
        "stage": "",
        "upstream": "",
        "file": "/tls.crt",
        "trouble": "being written",
        "taken": 0,
        "refused": 2,
        "not_before": None,
        "seconds_left": None,
    }


def test_leases(admin: Admin, view: FakeView) -> None:
    """Leases are a JSON list; a time that never comes is null."""
    view.rows.append(LeaseRow("staging", "geo", "failed", "", "", math.inf, None, 2, "no field x"))
    reply = ask(admin, "/leases")
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.json == [
        {
            "stage": "production",
            "upstream": "pay ments",
            "state": "active",
            "lease_id": "database/1",
            "credential_id": "c_1",
            "seconds_left": 90.0,
            "renew_in": 60,
            "failures": 0,
            "last_error": "",
            "optional": False,
            "caller": "",
            "shared": True,
            "usable": True,
            "wanted": False,
            "revoking": 0,
            "revoke_error": "",
            "refused": 0,
            "refused_for": None,
            "ttl": None,
            "not_after": None,
            "held_for": None,
            "policies": [],
        },
        {
            "stage": "staging",
            "upstream": "geo",
            "state": "failed",
            "lease_id": "",
            "credential_id": "",
            "seconds_left": None,
            "renew_in": None,
            "failures": 2,
            "last_error": "no field x",
            "optional": False,
            "caller": "",
            "shared": True,
            "usable": True,
            "wanted": False,
            "revoking": 0,
            "revoke_error": "",
            "refused": 0,
            "refused_for": None,
            "ttl": None,
            "not_after": None,
            "held_for": None,
            "policies": [],
        },
    ]


def test_metrics(admin: Admin) -> None:
    """The metrics go out as text 0.0.4, with a query string or without."""
    for target in ("/metrics", "/metrics?name[]=up"):
        reply = ask(admin, target)
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert reply.body == b"# TYPE up gauge\nup 1\n"


def test_security_headers(admin: Admin) -> None:
    """Every answer, errors too, forbids framing, sniffing and caching, and names no software."""
    for target in ("/", "/page.js", "/page.css", "/overview", "/leases", "/nothing"):
        headers = ask(admin, target).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers
        assert "Access-Control-Allow-Origin" not in headers


def test_head(admin: Admin) -> None:
    """HEAD has the headers of GET and no body."""
    for target in ("/", "/page.js", "/healthz", "/leases", "/overview", "/metrics", "/nothing"):
        head, get = ask(admin, target, "HEAD"), ask(admin, target)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["Content-Length"] == str(len(get.body))


def test_several_requests_on_one_connection(admin: Admin) -> None:
    """A connection stays open between requests, and after a skipped body."""
    connection = http.client.HTTPConnection("127.0.0.1", port(admin), timeout=PATIENCE)
    for body in (None, b"x" * 100, None):
        connection.request("GET", "/healthz", body=body)
        assert Reply(connection.getresponse()).status == 200
    connection.close()


@pytest.mark.parametrize(
    "target", ["/nothing", "/leases/", "/upstreams/x/y", "/upstreams/a/b/rotate"]
)
def test_unknown_path(admin: Admin, target: str) -> None:
    """A path that is not there is 404 in JSON, whatever the method."""
    for method in ("GET", "POST", "BREW"):
        reply = ask(admin, target, method)
        assert (reply.status, reply.json) == (404, {"error": "not_found"})


@pytest.mark.parametrize(
    ("target", "method", "allow"),
    [
        ("/", "POST", "GET, HEAD"),
        ("/leases", "DELETE", "GET, HEAD"),
        ("/overview", "POST", "GET, HEAD"),
        ("/page.js", "PUT", "GET, HEAD"),
        ("/metrics", "OPTIONS", "GET, HEAD"),
        ("/healthz", "BREW", "GET, HEAD"),
        ("/upstreams/x/rotate", "GET", "POST"),
        ("/upstreams/x/revoke", "OPTIONS", "POST"),
    ],
)
def test_wrong_method(admin: Admin, target: str, method: str, allow: str) -> None:
    """A known path with another method is 405 and says which it takes."""
    reply = ask(admin, target, method, MARKED)
    assert (reply.status, reply.headers["Allow"]) == (405, allow)


def test_failing_view_is_500(
    admin: Admin, view: FakeView, caplog: pytest.LogCaptureFixture
) -> None:
    """An error inside is 500 without its text, in the log too, and the server goes on."""
    view.error = RuntimeError("password hunter2")
    reply = ask(admin, "/leases")
    assert (reply.status, reply.json) == (500, {"error": "internal"})
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text
    assert ask(admin, "/healthz").status == 200


@pytest.mark.parametrize("what", ["rotate", "revoke"])
def test_ask_for_every_stage(admin: Admin, view: FakeView, what: str) -> None:
    """Without a stage all stages of the upstream are asked; the answer names them."""
    reply = ask(admin, f"/upstreams/pay%20ments/{what}", "POST", MARKED)
    stages = ["production", "staging"]
    assert reply.status == 202
    assert reply.json == {"asked": what, "upstream": "pay ments", "stages": stages}
    assert view.asked == [(what, "pay ments", None)]


def test_ask_for_one_stage(admin: Admin, view: FakeView) -> None:
    """With a stage only that one is asked."""
    reply = ask(admin, "/upstreams/pay%20ments/rotate?stage=staging", "POST", MARKED)
    assert (reply.status, reply.json["stages"]) == (202, ["staging"])
    assert view.asked == [("rotate", "pay ments", "staging")]


@pytest.mark.parametrize("target", ["/upstreams/x/rotate", "/upstreams/pay%20ments/rotate?stage=x"])
def test_ask_for_what_is_not_there(admin: Admin, view: FakeView, target: str) -> None:
    """An unknown upstream or stage is 404, and nothing is done."""
    reply = ask(admin, target, "POST", MARKED)
    assert (reply.status, reply.json) == (404, {"error": "unknown_upstream"})
    assert not view.asked


@pytest.mark.parametrize("query", ["stage=a&stage=b", "x=1", "stage=a&x=1", "a", "&&&", "stage"])
def test_query_that_makes_no_sense(admin: Admin, view: FakeView, query: str) -> None:
    """A mistyped parameter must not widen what is asked to all stages."""
    reply = ask(admin, f"/upstreams/pay%20ments/rotate?{query}", "POST", MARKED)
    assert (reply.status, view.asked) == (400, [])
