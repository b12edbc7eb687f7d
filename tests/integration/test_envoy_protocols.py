"""Services behind a real Envoy that speak more than plain requests: gRPC and WebSocket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.integration.gateway_bed import GatewayBed, Route
from tests.integration.served import TIMEOUT, Login, Served
from vaultauthz.demo.parts import OpenBao

pytestmark = pytest.mark.integration

KEY = "protocol-key-1"
POLICY = 'path "protocols/*" { capabilities = ["read"] }'
UPSTREAMS = """
upstreams:
  geo:
    secret: {kv: protocols/geo}
    inject: [{bearer: "{api_key}"}, {header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: [{methods: [GET, POST]}]
"""
HANDSHAKE = """\
GET /chat HTTP/1.1
Host: {host}
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
X-Api-Key: mine

""".replace("\n", "\r\n")


def unchanged(data: bytes) -> bytes:
    """What a message is made of, and into."""
    return data


class GrpcEcho(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs only
    """Answers every call with the message, and remembers its metadata."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """One handler for every method, streams of messages both ways."""
        self.calls.append([(str(k), str(v)) for k, v in details.invocation_metadata])
        return grpc.stream_stream_rpc_method_handler(
            lambda messages, _: messages, unchanged, unchanged
        )


@pytest.fixture(scope="module")
def grpc_echo() -> Iterator[tuple[GrpcEcho, int]]:
    """A gRPC service and its port."""
    echo = GrpcEcho()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield echo, port
    server.stop(0).wait(TIMEOUT)


class Tunnel:
    """Agrees to every upgrade, then sends back in capitals what it gets."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heads: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = until(connection, b"\r\n\r\n")
            self.heads.append(head.decode())
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            )
            while data := connection.recv(1000):
                connection.sendall(data.upper())

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()


def until(connection: socket.socket, end: bytes) -> bytes:
    """What arrives up to ``end``, or until the other side hangs up."""
    data = b""
    while end not in data and (more := connection.recv(1000)):
        data += more
    return data


@pytest.fixture(scope="module")
def tunnel() -> Iterator[Tunnel]:
    """A service that speaks WebSocket, as far as Envoy can tell."""
    made = Tunnel()
    yield made
    made.close()


@pytest.fixture(scope="module")
def bed(
    bao: OpenBao,
    grpc_echo: tuple[GrpcEcho, int],
    tunnel: Tunnel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayBed]:
    """The gateway in front of both, with a ready server."""
    bao.put_kv("protocols/geo", {"api_key": KEY})
    login = Login(bao.address, *bao.enable_approle("protocols", POLICY))
    routes = [
        Route("grpc.test", "geo", service="grpc"),
        Route("tunnel.test", "geo", service="tunnel"),
        Route("denied.test", "gone", service="tunnel"),
        Route("denied-grpc.test", "gone", service="grpc"),
    ]
    more = {"grpc": grpc_echo[1], "tunnel": tunnel.port}
    folder = tmp_path_factory.mktemp("protocols")
    with Served(folder, login, UPSTREAMS) as served:
        served.wait_ready()
        with GatewayBed(folder, served.socket, routes, more) as made:
            yield made


def call(bed: GatewayBed, host: str, messages: list[bytes]) -> list[bytes]:
    """A gRPC call of `host` through the gateway. Raises grpc.RpcError."""
    options = [("grpc.default_authority", host)]
    with grpc.insecure_channel(f"127.0.0.1:{bed.ports['strict']}", options) as channel:
        method = channel.stream_stream("/a.Service/Method", unchanged, unchanged)
        sent = (("x-api-key", "mine"), ("authorization", "Bearer mine"), ("x-api-key", "too"))
        return list(method(iter(messages), timeout=TIMEOUT, metadata=sent))


def test_grpc(bed: GatewayBed, grpc_echo: tuple[GrpcEcho, int]) -> None:
    """A stream of messages goes both ways, with our credential in its metadata and not the client's."""
    assert call(bed, "grpc.test", [b"one", b"two"]) == [b"one", b"two"]
    metadata = grpc_echo[0].calls[-1]
    assert [v for k, v in metadata if k == "x-api-key"] == [KEY]
    assert [v for k, v in metadata if k == "authorization"] == [f"Bearer {KEY}"]


def test_a_denied_grpc_call(bed: GatewayBed, grpc_echo: tuple[GrpcEcho, int]) -> None:
    """A gRPC client is told PERMISSION_DENIED, and the service hears nothing."""
    before = len(grpc_echo[0].calls)
    with pytest.raises(grpc.RpcError) as raised:
        call(bed, "denied-grpc.test", [b"one"])
    assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert len(grpc_echo[0].calls) == before


def test_websocket(bed: GatewayBed, tunnel: Tunnel) -> None:
    """The handshake carries our credential, and then bytes go both ways."""
    with socket.create_connection(("127.0.0.1", bed.ports["strict"]), TIMEOUT) as connection:
        connection.sendall(HANDSHAKE.format(host="tunnel.test").encode())
        assert until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        for word in (b"hello", b"again"):
            connection.sendall(word)
            assert until(connection, word.upper()) == word.upper()
    keys = [line for line in tunnel.heads[-1].lower().splitlines() if "x-api-key" in line]
    assert keys == [f"x-api-key: {KEY}"]


def test_a_denied_websocket(bed: GatewayBed, tunnel: Tunnel) -> None:
    """The handshake is answered 403, and no connection is made."""
    before = len(tunnel.heads)
    with socket.create_connection(("127.0.0.1", bed.ports["strict"]), TIMEOUT) as connection:
        connection.sendall(HANDSHAKE.format(host="denied.test").encode())
        assert until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 403 ")
    assert len(tunnel.heads) == before
