"""An exchange with a cloud's service: what is slow, too large or elsewhere ends it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.contract.cloud_http import CloudService, Told
from vaultauthz.config.auth import fields_in
from vaultauthz.core.grant import Verdict
from vaultauthz.vault.auth import cloud
from vaultauthz.vault.errors import VaultError


@contextlib.contextmanager
def raw(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server that does ``talk`` on its one connection."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    talk(connection, over)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            thread.join()


def says_nothing(connection: socket.socket, over: threading.Event) -> None:
    over.wait()


def says_it_byte_by_byte(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not over.wait(0.02):
        connection.sendall(b"x")


@pytest.mark.parametrize("talk", [says_nothing, says_it_byte_by_byte])
def test_a_service_that_takes_too_long_is_given_up(
    talk: Callable[[socket.socket, threading.Event], None],
) -> None:
    """Also one that never stops to answer."""
    with raw(talk) as url, pytest.raises(VaultError, match="the service did not answer in time"):
        cloud.exchange("the service", url, timeout=0.3)


def test_an_answer_that_breaks_off_is_worth_another_try() -> None:
    """As a service that restarts gives it."""

    def breaks_off(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")

    with raw(breaks_off) as url, pytest.raises(VaultError) as caught:
        cloud.exchange("the service", url)
    assert caught.value.failure.verdict is Verdict.RETRY


def test_a_redirect_is_not_followed() -> None:
    """The identity would go where the redirect says."""
    with CloudService(lambda asked: Told(200, "elsewhere")) as other:
        there = {"Location": other.address}
        with CloudService(lambda asked: Told(302, "", there)) as service:
            assert cloud.exchange("the service", service.address).status == 302
        assert not other.heard


def test_an_answer_without_an_end_is_refused() -> None:
    """A machine's metadata is small."""
    with (
        CloudService(lambda asked: Told(200, "x" * (2 << 20))) as service,
        pytest.raises(VaultError, match="larger than 1 MiB"),
    ):
        cloud.exchange("the service", service.address)


def test_the_answer_comes_with_its_status_and_headers() -> None:
    """Header names in any letter case, as google-auth asks for them."""
    with CloudService(lambda asked: Told(418, {"a": 1}, {"X-Thing": "here"})) as service:
        reply = cloud.exchange("the service", service.address, method="PUT", body=b"text")
    assert (reply.status, reply.headers["x-thing"]) == (418, "here")
    assert fields_in("the service", reply) == {"a": 1}
    assert service.heard[0].body == b"text"
