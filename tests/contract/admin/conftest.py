"""A server over a fake application, and ways to talk to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from vaultauthz.admin import Admin, AdminView, LeaseRow, Readiness
from vaultauthz.admin.overview import Asked, Overview, ServerFacts, Sources, overview
from vaultauthz.config.values import Listen
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.events import AskedBy

TOKEN = "open-sesame"
MARKED = {"X-Vaultauthz": "1"}
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"  # its headers may go on
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FACTS = ServerFacts("1.2.3", began_at=1_700_000_000.0)


class FakeView:
    """An application with one upstream in two stages, and setters."""

    def __init__(self) -> None:
        self.readiness = Readiness(started=True, ready=True)
        self.rows = [LeaseRow("production", "pay ments", "active", "database/1", "c_1", 90.04, 60)]
        self.asked: list[tuple[str, str, str | None]] = []
        self.operators: list[AskedBy] = []  # of these
        self.error: Exception | None = None
        self.ending: list[EndingCertificate] = []

    def ready(self) -> Readiness:
        """What it was set to."""
        return self.readiness

    def leases(self) -> list[LeaseRow]:
        """What it was set to, or the error."""
        if self.error:
            raise self.error
        return self.rows

    def certificates(self) -> list[EndingCertificate]:
        """What it was set to."""
        return self.ending

    def overview(self, asked: Asked) -> Overview:
        """Made of the leases, at a time that stands still."""
        sources = Sources(
            lambda: 100.0, lambda: 1_700_000_100.0, lambda: FACTS, certificates=self.certificates
        )
        return overview(100.0, self.leases(), (), sources, asked)

    def metrics(self) -> str:
        """One gauge."""
        return "# TYPE up gauge\nup 1\n"

    def rotate(self, upstream: str, stage: str | None, operator: AskedBy) -> tuple[str, ...]:
        """Remember what was asked."""
        return self._asked("rotate", upstream, stage, operator)

    def revoke(self, upstream: str, stage: str | None, operator: AskedBy) -> tuple[str, ...]:
        """Remember what was asked."""
        return self._asked("revoke", upstream, stage, operator)

    def _asked(
        self, what: str, upstream: str, stage: str | None, operator: AskedBy
    ) -> tuple[str, ...]:
        stages = ("production", "staging")
        if upstream != "pay ments" or stage not in (None, *stages):
            return ()
        self.asked.append((what, upstream, stage))
        self.operators.append(operator)
        return (stage,) if stage else stages


@pytest.fixture
def view() -> FakeView:
    """What the server shows."""
    return FakeView()


@contextmanager
def serving(listen: Listen, view: AdminView, **patience: float) -> Iterator[Admin]:
    """A server that is stopped at the end, and leaves no thread behind."""
    others = set(threading.enumerate())  # an earlier test's fake may have left one
    admin = Admin(listen, view, **patience)
    admin.start()
    try:
        yield admin
    finally:
        admin.stop()
        wait_until(lambda: not _answering(but=others))


def _answering(but: set[threading.Thread]) -> list[threading.Thread]:
    """The threads of servers that answer a request."""
    ours = set(threading.enumerate()) - but
    return [thread for thread in ours if "process_request" in thread.name]


def wait_until(met: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for what another thread brings about."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


@pytest.fixture
def admin(view: FakeView) -> Iterator[Admin]:
    """A server on loopback TCP."""
    with serving(Listen(admin="127.0.0.1:0"), view) as server:
        yield server


@pytest.fixture
def impatient(view: FakeView) -> Iterator[Admin]:
    """One that hangs up on whoever is slow within a second."""
    with serving(Listen(admin="127.0.0.1:0"), view, quiet=0.5, whole=0.8) as server:
        yield server


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the admin token and, as editors leave it, a newline."""
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


@pytest.fixture
def guarded(view: FakeView, token_file: Path) -> Iterator[Admin]:
    """A server that wants a token."""
    listen = Listen(admin="127.0.0.1:0", admin_token_file=token_file)
    with serving(listen, view) as server:
        yield server


class Reply:
    """A whole answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def port(admin: Admin) -> int:
    """The port that the system chose."""
    return int(admin.address.rpartition(":")[2])


def ask(
    admin: Admin, target: str, method: str = "GET", headers: dict[str, str] | None = None
) -> Reply:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port(admin), timeout=PATIENCE)
    try:
        connection.request(method, target, headers=headers or {})
        return Reply(connection.getresponse())
    finally:
        connection.close()


def raw(admin: Admin, data: bytes, *, more: bool = False) -> bytes:
    """Whatever the server says to these bytes until it hangs up; ``more``: as if others followed."""
    with socket.create_connection(("127.0.0.1", port(admin)), timeout=PATIENCE) as connection:
        with contextlib.suppress(OSError):  # it may have hung up before
            connection.sendall(data)
            if not more:
                connection.shutdown(socket.SHUT_WR)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionResetError:
        pass  # it hung up with bytes of ours unread
    return answer
