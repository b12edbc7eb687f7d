"""Clients that are malformed, silent, slow or too many."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.contract.admin.conftest import (
    GET,
    FakeView,
    ask,
    port,
    raw,
    received,
    serving,
    wait_until,
)
from tests.contract.admin.test_admin_tls import issue
from tests.patience import PATIENCE
from vaultauthz.admin import Admin, LeaseRow, Readiness
from vaultauthz.admin.server import CONNECTIONS
from vaultauthz.config.values import Listen


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n", None),
        (b"hello\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET /healthz HTTP/9.9\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (GET + b"Host: localhost\r\n\r\n", 400),
        (GET + b"no colon here\r\n\r\n", 400),
        (GET + b"Content-Length: x\r\n\r\n", 400),
        (GET + b"Content-Length: -1\r\n\r\n", 400),
        (GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (GET + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (GET + b"Content-Length: 5000\r\n\r\n", 413),
        (GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET http://localhost/leases HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (GET + b"X: 1\r\n" * 200 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"\x00" * 9000, 414),
        (GET + b"X-\xff\xfe: 1\r\n\r\n", 400),
        (GET + b"X-Name: \xff\xe2\x82\xac\r\n\r\n", 200),
        (b"GET /%00%ff%zz HTTP/1.0\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
    ],
)
def test_malformed_request(admin: Admin, data: bytes, status: int | None) -> None:
    """Whatever comes in is answered in JSON or dropped, and the server goes on."""
    answer = raw(admin, data)
    if status is None:
        assert answer == b""
    else:
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:80]
        assert b"Content-Type: application/json\r\n" in answer
        assert b"aaaa" not in answer
    assert ask(admin, "/healthz").status == 200


def test_random_bytes(admin: Admin) -> None:
    """Noise neither stops the server nor holds a connection."""
    for size in (1, 100, 5000, 100_000):
        raw(admin, os.urandom(size))
    assert ask(admin, "/healthz").status == 200


def test_silent_client_is_dropped(impatient: Admin) -> None:
    """A client that says nothing is hung up on."""
    assert raw(impatient, b"", more=True) == b""


def test_dripping_client_is_dropped(impatient: Admin) -> None:
    """A byte now and then does not keep a connection: a request as a whole has its time."""
    with socket.create_connection(("127.0.0.1", port(impatient)), timeout=PATIENCE) as connection:

        def hung_up() -> bool:
            try:
                connection.sendall(b"a")
            except ConnectionError:
                return True
            time.sleep(0.05)  # well below what it may be quiet for
            return False

        wait_until(hung_up)


def test_a_probe_waits_for_the_threads_of_those_who_were_hung_up_on(view: FakeView) -> None:
    """On a starved machine they take a moment to end; that is no reason for a 503."""
    with serving(Listen(admin="127.0.0.1:0"), view) as admin:
        spare = admin._server._spare  # type: ignore[union-attr]
        while spare.acquire(blocking=False):
            pass
        with reached(admin) as probe:
            probe.sendall(PROBE)
            assert not select.select([probe], [], [], 0.2)[0]
            spare.release()
            assert received(probe)[:12] == b"HTTP/1.1 200"


def reached(admin: Admin) -> socket.socket:
    """A connection to it, by whatever it listens on."""
    if admin.address.startswith("unix://"):
        connection = socket.socket(socket.AF_UNIX)
        place: Any = admin.address.removeprefix("unix://")
    else:
        connection, place = socket.socket(), ("127.0.0.1", port(admin))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE)
    connection.connect(place)
    return connection


def health(admin: Admin, tls: ssl.SSLContext | None = None) -> bytes:
    """The first bytes of a probe's answer."""
    with reached(admin) as connection:
        if tls is None:
            connection.sendall(PROBE)
            return received(connection)[:12]
        with tls.wrap_socket(connection, server_hostname="localhost") as wrapped:
            wrapped.sendall(PROBE)
            return received(wrapped)[:12]


PROBE = GET + b"Connection: close\r\n\r\n"
SLOW = {
    "silent": b"",
    "one byte": b"G",
    "half a header": GET + b"X: ",
    "half a body": GET + b"Content-Length: 100\r\n\r\nabc",
    "idle after an answer": GET + b"\r\n",
    "not taking its answer": GET.replace(b"healthz", b"metrics") + b"\r\n",
}


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW.keys())
def test_the_health_of_a_server_that_slow_clients_sit_on(
    view: FakeView, tmp_path: Path, sent: bytes, unix: bool
) -> None:
    """Three times as many as there are seats, and each probe is answered all the same."""
    text = "# HELP up up\n" * 80_000  # 1 MB: more than the system takes for these clients
    view.metrics = lambda: text  # type: ignore[method-assign]
    place = f"unix://{tmp_path}/admin.sock" if unix else "127.0.0.1:0"
    with (
        serving(Listen(admin=place), view, quiet=60.0, whole=60.0) as admin,
        contextlib.ExitStack() as held,
    ):
        for _ in range(CONNECTIONS * 3 if b"metrics" not in sent else CONNECTIONS + 10):
            held.enter_context(reached(admin)).sendall(sent)
        assert [health(admin) for _ in range(20)] == [b"HTTP/1.1 200"] * 20


def test_the_health_of_a_tls_server_that_half_handshakes_sit_on(
    view: FakeView, tmp_path: Path
) -> None:
    """Clients that begin one and say nothing more keep no probe out."""
    ca = trustme.CA()
    tls = ssl.create_default_context()
    ca.configure_trust(tls)
    listen = Listen(admin="127.0.0.1:0", admin_tls=issue(ca, tmp_path))
    with (
        serving(listen, view, quiet=60.0, whole=60.0) as admin,
        contextlib.ExitStack() as held,
    ):
        for _ in range(CONNECTIONS * 2):
            held.enter_context(reached(admin)).sendall(b"\x16\x03\x01")
        assert [health(admin, tls) for _ in range(20)] == [b"HTTP/1.1 200"] * 20


def test_a_crowd_from_one_address_makes_room_before_others(view: FakeView) -> None:
    """Whoever is slow alone keeps the seat until the time for a request is over."""
    with (
        serving(Listen(admin="127.0.0.1:0"), view, quiet=60.0, whole=60.0) as admin,
        contextlib.ExitStack() as held,
        socket.create_connection(("127.0.0.1", port(admin)), PATIENCE, ("127.0.0.2", 0)) as alone,
    ):
        alone.sendall(b"GET /healthz HT")
        for _ in range(CONNECTIONS * 2):
            held.enter_context(reached(admin)).sendall(b"G")
        alone.sendall(b"TP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert received(alone).startswith(b"HTTP/1.1 200 ")


def test_connections_are_bounded(view: FakeView) -> None:
    """While every seat is worked for, one more is told so; there is room when they are answered."""
    go_on, asked = threading.Event(), threading.Semaphore(0)

    def ready() -> Readiness:
        asked.release()
        go_on.wait()
        return Readiness(started=True, ready=True)

    view.ready = ready  # type: ignore[method-assign]
    with (
        serving(Listen(admin="127.0.0.1:0"), view, quiet=60.0, whole=60.0) as admin,
        contextlib.ExitStack() as held,
    ):
        for _ in range(CONNECTIONS):
            held.enter_context(reached(admin)).sendall(PROBE.replace(b"healthz", b"readyz"))
            asked.acquire()
        assert raw(admin, b"").startswith(b"HTTP/1.1 503 ")
        go_on.set()
        wait_until(lambda: b" 200 " in raw(admin, PROBE))


def test_long_answers_are_made_a_few_at_a_time(view: FakeView) -> None:
    """One too many is told to come again; probes and the others are not held up."""
    go_on, asked = threading.Event(), threading.Semaphore(0)

    def leases() -> list[LeaseRow]:
        asked.release()
        go_on.wait()
        return []

    view.leases = leases  # type: ignore[method-assign]
    with (
        serving(Listen(admin="127.0.0.1:0"), view, quiet=60.0, whole=60.0) as admin,
        contextlib.ExitStack() as held,
    ):
        connections = [held.enter_context(reached(admin)) for _ in range(8)]
        for connection in connections:
            connection.sendall(PROBE.replace(b"healthz", b"leases"))
            asked.acquire()
        busy = ask(admin, "/leases")
        assert (busy.status, busy.json) == (503, {"error": "busy"})
        assert busy.headers["Retry-After"] == "1"
        assert health(admin) == b"HTTP/1.1 200"
        go_on.set()
        assert {received(each)[:12] for each in connections} == {b"HTTP/1.1 200"}


def test_many_clients_at_once(admin: Admin) -> None:
    """Requests from many threads are all answered."""
    found: list[int] = []

    def work() -> None:
        for _ in range(20):
            found.append(ask(admin, "/leases").status)  # noqa: PERF401 - shared by threads

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 160


def test_stop_hangs_up(view: FakeView) -> None:
    """A stop does not wait for clients, frees the port, and may come twice."""
    with serving(Listen(admin="127.0.0.1:0"), view) as admin:
        address = admin.address
        with socket.create_connection(("127.0.0.1", port(admin)), timeout=PATIENCE) as connection:
            connection.sendall(b"GET /")
            wait_until(lambda: any("process_request" in t.name for t in threading.enumerate()))
            admin.stop()  # the client's own time is some seconds, and it would be told of it
            assert received(connection) == b""
    with serving(Listen(admin=address), view):
        pass
