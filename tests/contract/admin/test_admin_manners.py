"""Clients that are malformed, silent, slow or too many."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

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
from tests.patience import PATIENCE
from vaultauthz.admin import Admin
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


def test_connections_are_bounded(admin: Admin) -> None:
    """One connection over the limit is told so at once; there is room when others have gone."""
    held = [
        socket.create_connection(("127.0.0.1", port(admin)), timeout=PATIENCE)
        for _ in range(CONNECTIONS)
    ]
    assert raw(admin, b"", more=True).startswith(b"HTTP/1.1 503 ")
    for connection in held:
        connection.close()
    wait_until(lambda: b" 200 " in raw(admin, GET + b"Connection: close\r\n\r\n"))


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
