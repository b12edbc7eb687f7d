"""What every door answers alike, as a class to subclass: one suite of requests, with the same expectations.

A door's tests subclass ``DoorCases`` and say how the door is opened: over a configuration file, in a
process of its own as a user would start it, and how a request is sent through it.
"""

from __future__ import annotations

import contextlib
import hmac
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import unquote_plus

import pytest

from tests.contract import kong_bed
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import held, latency, wait_until
from tests.contract.kong_bed import audit, audited, inject
from tests.contract.running import database, fake
from vaultauthz.core.readings import BODILESS
from vaultauthz.core.request import REQUEST_ID_LIMIT

Pairs = tuple[tuple[str, str], ...]
SECRET = "quoted-by-an-error"
SIGNED = {
    "key": "{key}",
    "sign": ["{method}", "{target}", "{body}"],
    "headers": {"X-Signature": "{signature}"},
}
UPSTREAMS = kong_bed.UPSTREAMS | {
    "each": database("each", per="request"),
    "few": database("few", per="caller", max_callers=1),
    "signed": inject("one", {"hmac": SIGNED}),
}
# What makes a bug of ours out of each check, in whatever process has it on its path.
BUG = f"""
from vaultauthz.broker import Broker

def decide(*_):
    raise RuntimeError("-".join({SECRET.split("-")!r}))  # not in the line that a traceback shows

Broker._decide = decide
"""


@dataclass(frozen=True)
class Sent:
    """A client's request to the route of ``upstream``; ``caller`` is whom the gateway has authenticated."""

    upstream: str
    path: str = ""  # below the route's own
    method: str = "GET"
    headers: Pairs = ()
    caller: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the upstream got, or what the client was answered with."""

    status: int
    error: str = ""
    retry_after: str | None = None
    headers: dict[str, list[str]] = field(default_factory=dict)
    query: str = ""
    request_id: str = ""


class Way(Protocol):
    """A way into vaultauthz."""

    def send(self, sent: Sent) -> Outcome:
        """Send a request through it."""


@dataclass
class Opened:
    """A door that is open: the way in, the Vault behind it and the folder with its files."""

    way: Way
    vault: FakeVault
    folder: Path

    def send(self, sent: Sent) -> Outcome:
        """Send a request through it."""
        return self.way.send(sent)


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

QUERIES = [
    ("", [("key", "two-1")]),
    ("?a=1", [("a", "1"), ("key", "two-1")]),
    ("?key=mine&a=1&key=again", [("a", "1"), ("key", "two-1")]),
    ("?%6bey=mine&k%65y", [("key", "two-1")]),
    ("?key[]=mine&a=1;key=mine", [("key", "two-1")]),
    ("?keys=1&ke=2", [("keys", "1"), ("ke", "2"), ("key", "two-1")]),
]

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


class DoorCases:
    """Subclass it, and say how the door is opened."""

    gateway: ClassVar[str]  # as the audit log calls it

    @classmethod
    def configured(
        cls, vault: FakeVault, folder: Path, upstreams: Mapping[str, Any] | None = None
    ) -> Path:
        """The configuration file; written anew it is a reload."""
        return kong_bed.config(vault, folder, UPSTREAMS if upstreams is None else upstreams)

    @classmethod
    def opened(
        cls, folder: Path, path: Path, names: list[str], environment: Mapping[str, str]
    ) -> AbstractContextManager[Way]:
        """The door, with a route for each name; what there is to lease is there."""
        raise NotImplementedError

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        folder: Path,
        upstreams: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Opened]:
        """A door over a fake Vault."""
        with fake() as vault:
            for name in ("each", "few"):
                vault.set_creds(f"database/creds/{name}")
            path = cls.configured(vault, folder, upstreams)
            names = [*(UPSTREAMS if upstreams is None else upstreams), "missing"]
            with cls.opened(folder, path, names, environment or {}) as way:
                yield Opened(way, vault, folder)

    @pytest.fixture(scope="class")
    @classmethod
    def door(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
        """One for the tests that leave it as it was."""
        with cls.open(tmp_path_factory.mktemp("k")) as opened:
            yield opened

    @pytest.mark.parametrize(
        ("sent", "wanted"), [row[1:] for row in GIVEN], ids=[r[0] for r in GIVEN]
    )
    def test_what_the_upstream_gets(
        self, door: Opened, sent: Sent, wanted: dict[str, list[str] | None]
    ) -> None:
        """The credential is there once, the client's copies are not, and nothing else is touched."""
        outcome = door.send(sent)
        assert outcome.status == 200
        assert {name: outcome.headers.get(name) for name in wanted} == wanted

    @pytest.mark.parametrize(("query", "wanted"), QUERIES)
    def test_the_query(self, door: Opened, query: str, wanted: list[tuple[str, str]]) -> None:
        """Our argument replaces every copy, however it is spelt, and leaves the others in order."""
        pairs = [p.partition("=") for p in door.send(Sent("query", query)).query.split("&")]
        assert [(unquote_plus(name), value) for name, _, value in pairs] == wanted

    @pytest.mark.parametrize(
        ("sent", "status", "error"), [row[1:] for row in DENIED], ids=[r[0] for r in DENIED]
    )
    def test_what_the_client_is_answered(
        self, door: Opened, sent: Sent, status: int, error: str
    ) -> None:
        """By the one table, as JSON, and with Retry-After where it helps."""
        outcome = door.send(sent)
        assert (outcome.status, outcome.error) == (status, error)
        assert (outcome.retry_after is not None) == (error == "no_credential")

    def test_a_header_that_a_client_makes_up(self, door: Opened) -> None:
        """Nothing that looks like a gateway's word on the caller counts."""
        made_up = (
            *("X-Consumer-Username", "X-Consumer-Groups", "X-Authenticated-Groups"),
            *("Vaultauthz", "X-Forwarded-Client-Cert"),
        )
        headers = tuple((name, value) for name in made_up for value in ("shop", "staff"))
        assert door.send(Sent("shop", headers=headers)).error == "caller_denied"
        assert door.send(Sent("staff", headers=headers)).error == "caller_denied"

    def test_more_than_there_is_room_for(self, door: Opened) -> None:
        """Another caller's lease would be one too many: it is told to come back."""
        assert door.send(Sent("few", caller="a")).status == 200
        outcome = door.send(Sent("few", caller="b"))
        assert (outcome.status, outcome.error) == (503, "overloaded")
        assert outcome.retry_after is not None

    def test_the_audit_line_says_who_got_what(self, door: Opened) -> None:
        """Which credential, through which gateway, and the path without its query."""
        sent = Sent("geo", "/1?secret=2", "POST", caller="shop")
        assert door.send(sent).status == 200
        line = audited(door.folder, "request.allowed", path="/geo/1")
        wanted = {
            "gateway": self.gateway,
            "caller": "shop",
            "upstream": "geo",
            "stage": "production",
            "method": "POST",
            "host": "api.test",
            "path": "/geo/1",
            "decision": "allowed",
        }
        assert {key: line[key] for key in wanted} == wanted
        issued = audited(door.folder, "lease.issued", upstream="geo")
        assert line["credential_id"] == issued["credential_id"]

    def test_a_denial_has_one_id_everywhere(self, door: Opened) -> None:
        """In the client's answer and in the audit log, however long one the client sends."""
        headers = (("X-Request-Id", "r" * 3 * REQUEST_ID_LIMIT),)
        outcome = door.send(Sent("reads", "/id", "POST", headers=headers))
        line = audited(door.folder, "request.denied", path="/reads/id")
        assert (line["reason"], line["request_id"]) == ("caller_denied", outcome.request_id)
        assert 0 < len(outcome.request_id) <= REQUEST_ID_LIMIT

    @pytest.mark.parametrize("method", sorted(BODILESS))
    def test_what_has_no_body_is_signed_without_one(self, door: Opened, method: str) -> None:
        """A method that must say if it has one, and does not."""
        outcome = door.send(Sent("signed", "?x=1", method))
        text = f"{method}\n/signed?x=1\n".encode()
        assert outcome.headers["x-signature"] == [hmac.digest(b"one-1", text, "sha256").hex()]

    def test_each_request_waits_for_its_own_lease(self, door: Opened) -> None:
        """It is answered when Vault has answered; in time, or as if there were none."""
        first, second = (door.send(Sent("each")).headers["authorization"] for _ in range(2))
        assert first != second
        door.vault.fault(latency(0.3), "database/creds/each")
        assert door.send(Sent("each")).status == 200
        go = threading.Event()
        door.vault.fault(held(go), "database/creds/each", times=1)
        try:
            late = door.send(Sent("each"))
        finally:
            go.set()
            door.vault.heal()
        assert (late.status, late.error) == (503, "no_credential")

    def test_a_reload_and_the_end(self, tmp_path: Path) -> None:
        """The new file decides, without a request lost; at the end nothing is left at Vault."""
        upstreams = {"bearer": UPSTREAMS["bearer"], "pay": UPSTREAMS["pay"]}
        with self.open(tmp_path, upstreams) as door:
            assert door.send(Sent("bearer")).status == door.send(Sent("pay")).status == 200
            assert door.vault.leases
            self.configured(door.vault, tmp_path, upstreams | {"bearer": UPSTREAMS["shop"]})
            assert wait_until(lambda: door.send(Sent("bearer")).error == "caller_denied")
            assert door.send(Sent("pay")).status == 200
        assert not door.vault.leases
        reasons = {line["reason"] for line in audit(tmp_path, "request.denied")}
        assert reasons == {"caller_denied"}

    def test_a_bug_of_ours_is_a_denial(self, tmp_path: Path) -> None:
        """The client is answered, nothing goes on, and no error's text is told to anybody."""
        path = tmp_path / "bug"
        path.mkdir()
        (path / "sitecustomize.py").write_text(BUG)
        upstreams = {"bearer": UPSTREAMS["bearer"]}
        with self.open(tmp_path, upstreams, {"PYTHONPATH": str(path)}) as door:
            outcome = door.send(Sent("bearer"))
        assert (outcome.status, outcome.error) == (500, "internal")
        (line,) = audit(tmp_path, "request.denied")
        assert (line["gateway"], line["reason"]) == (self.gateway, "internal")
        told = [file.read_text() for file in tmp_path.glob("*.log")]
        assert not [text for text in told if SECRET in text]
