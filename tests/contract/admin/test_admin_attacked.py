"""A whole server whose admin port is attacked in every way at once: refused, counted, and nobody else notices."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.contract.admin.conftest import BEARER, MARKED, TOKEN, Reply, wait_until
from tests.contract.fake_vault import FakeVault
from tests.contract.running import database, fake, settings
from tests.patience import PATIENCE
from tests.working import Working
from vaultauthz.admin.server import CONNECTIONS
from vaultauthz.config import parse
from vaultauthz.core.decision import Allowed
from vaultauthz.core.request import Request
from vaultauthz.envoy.door import EnvoyDoor
from vaultauthz.service import Service

TOO_MANY = 20
ROTATE = "/upstreams/pay/rotate"
WRONG = {"Authorization": "Bearer wrong"}
Headers = dict[str, str]
# What is sent, and which answer and word of ours that gets.
REQUESTS: dict[str, tuple[str, str, Headers, bytes, int, str]] = {
    "no token": ("POST", ROTATE, MARKED, b"", 401, "token_needed"),
    "a wrong token": ("POST", ROTATE, MARKED | WRONG, b"", 401, "token_needed"),
    "an empty token": ("POST", ROTATE, MARKED | {"Authorization": "Bearer "}, b"", 401, "token_needed"),
    "a token in the query": ("GET", f"/leases?token={TOKEN}", {}, b"", 401, "token_needed"),
    "a form of another page": (
        "POST",
        ROTATE,
        BEARER | {"Origin": "https://evil.example", "Content-Type": "text/plain"},
        b'{"reason": "x"}',
        403,
        "mark_missing",
    ),
    "what a browser says is of another site": (
        "POST", ROTATE, BEARER | MARKED | {"Sec-Fetch-Site": "cross-site"}, b"", 403, "cross_site",
    ),
    "a preflight": ("OPTIONS", ROTATE, {"Origin": "https://evil.example"}, b"", 405, "method_not_allowed"),
    "a rebound name": ("GET", "/leases", BEARER | {"Host": "evil.example"}, b"", 421, "wrong_host"),
    "a rebound name that acts": ("POST", ROTATE, BEARER | MARKED | {"Host": "evil.test:80"}, b"", 421, "wrong_host"),
    "an action by GET": ("GET", ROTATE, BEARER | MARKED, b"", 405, "method_not_allowed"),
    "a path that climbs": ("GET", "/../../etc/passwd", BEARER, b"", 404, "not_found"),
    "one that is encoded": ("GET", "/%2e%2e/%2e%2e/etc/passwd", BEARER, b"", 404, "not_found"),
    "one of another system": ("GET", "/..\\..\\page.html", BEARER, b"", 404, "not_found"),
    "an upstream that climbs": (
        "POST", "/upstreams/..%2f..%2fetc/rotate", BEARER | MARKED, b"", 404, "unknown_upstream",
    ),
    "a URL of elsewhere": ("GET", "http://evil.example/leases", BEARER, b"", 400, "bad_request"),
    "a body that is none": ("POST", ROTATE, BEARER | MARKED, b"{", 400, "bad_body"),
    "a stage twice": ("POST", f"{ROTATE}?stage=a&stage=b", BEARER | MARKED, b"", 400, "bad_query"),
    "a huge line": ("GET", f"/leases?{'x' * 10_000}", BEARER, b"", 414, "request_uri_too_long"),
}  # fmt: skip
# What is sent as it is, on a connection of its own.
RAW: dict[str, tuple[bytes, int, str]] = {
    "a huge body": (b"Content-Length: 10000000000\r\n", 413, "too_large"),
    "a body of no length": (b"Transfer-Encoding: chunked\r\n", 411, "length_required"),
    "two lengths": (b"Content-Length: 1\r\nContent-Length: 200\r\n", 400, "bad_request"),
    "too many headers": (b"".join(b"X-%d: y\r\n" % n for n in range(200)), 431, ""),
}


class Attacked:
    """The server, and who asks it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        assert service.admin
        self._admin = service.admin

    @property
    def port(self) -> int:
        """Its admin port."""
        return int(self._admin.address.rpartition(":")[2])

    def ask(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Reply:
        """One request; what the client's library would change is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(method, target, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            return Reply(connection.getresponse())

    def refused(self) -> dict[str, int]:
        """How many, by reason, as a scrape with the token shows it."""
        name = "vaultauthz_admin_refused_total{reason="
        lines = self.ask("GET", "/metrics", BEARER).body.decode().splitlines()
        pairs = [line.removeprefix(name).split("} ") for line in lines if line.startswith(name)]
        return {reason.strip('"'): int(float(count)) for reason, count in pairs}


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role, two databases and two keys."""
    with fake() as made:
        yield made


@pytest.fixture
def attacked(vault: FakeVault, tmp_path: Path) -> Iterator[Attacked]:
    """A whole server with a lease of a second, which is renewed all the time."""
    vault.set_creds("database/creds/pay", ttl=1.0)
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text(TOKEN)
    document = settings(vault, pay=database("pay")) | {
        "listen": {
            "grpc": f"unix://{tmp_path}/g.sock",
            "admin": "127.0.0.1:0",
            "admin_token_file": "token",
        },
        "audit": {"file": f"{tmp_path}/audit.jsonl"},
    }
    service = Service(parse(yaml.safe_dump(document), "c.yaml", tmp_path, {}), EnvoyDoor)
    service.start()
    try:
        wait_until(lambda: service.ready)
        yield Attacked(service)
    finally:
        service.stop()


@pytest.mark.parametrize("what", REQUESTS)
def test_a_request(attacked: Attacked, tmp_path: Path, what: str) -> None:
    """It is refused by its word, which is counted, and nobody has asked for anything."""
    method, target, headers, body, status, word = REQUESTS[what]
    before = attacked.refused().get(word, 0)
    reply = attacked.ask(method, target, headers, body)
    assert (reply.status, reply.json["error"]) == (status, word)
    assert attacked.refused()[word] == before + 1
    assert "operator." not in (tmp_path / "audit.jsonl").read_text()
    assert TOKEN not in reply.body.decode()


@pytest.mark.parametrize("what", RAW)
def test_bytes(attacked: Attacked, what: str) -> None:
    """Answered before they are read, and hung up on."""
    headers, status, word = RAW[what]
    with socket.create_connection(("127.0.0.1", attacked.port), PATIENCE) as connection:
        connection.sendall(b"POST /leases HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
        with connection.makefile("rb") as answer:
            told = answer.read()
    assert told.startswith(f"HTTP/1.1 {status} ".encode())
    assert not word or attacked.refused()[word] == 1


class Attack(Working):
    """All of the requests, from three threads, again and again; and slow clients on every connection."""

    def __init__(self, attacked: Attacked) -> None:
        self._attacked = attacked
        self.others: list[tuple[str, int]] = []  # answers that were none of those that are due
        self.rounds = 0
        place = ("127.0.0.1", attacked.port)
        self.slow = [
            socket.create_connection(place, PATIENCE) for _ in range(CONNECTIONS + TOO_MANY)
        ]
        for one in self.slow:
            with contextlib.suppress(OSError):  # it has been hung up on
                one.send(b"GET /leas")
        super().__init__(threading.Thread(target=self._work, daemon=True) for _ in range(3))

    def _work(self) -> None:
        while not self._stopped.is_set():
            for method, target, headers, body, status, _ in REQUESTS.values():
                # It may be hung up on: others need the seat.
                with contextlib.suppress(OSError, http.client.HTTPException):
                    found = self._attacked.ask(method, target, headers, body).status
                    if found not in (status, 503):
                        self.others.append((target, found))
            self.rounds += 1


def test_all_of_it_at_once(attacked: Attacked, vault: FakeVault) -> None:
    """While slow clients sit on every connection: checks, renewals, probes and operators are served."""
    reason = json.dumps({"reason": "x"}).encode()
    with Attack(attacked) as attack:
        renewed = len(vault.calls("leases/renew"))
        wait_until(lambda: len(vault.calls("leases/renew")) >= renewed + 3)
        wait_until(lambda: attack.rounds >= 6)
        for _ in range(50):
            decision = attacked.service.check(Request("test", upstream="pay", stage="production"))
            assert isinstance(decision, Allowed)
            assert attacked.ask("GET", "/healthz", {}).status == 200
        assert attacked.ask("POST", ROTATE, BEARER | MARKED, reason).status == 202
    for one in attack.slow:
        one.close()
    assert attack.others == []
    found = attacked.refused()
    assert found["slow"] >= TOO_MANY
    assert {word for *_, word in REQUESTS.values()} <= found.keys()
