"""A gRPC client that holds streams open, as Envoys do."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from tests.contract.test_server import TIMEOUT, client
from vaultauthz._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Node,
    Secret,
    Status,
)
from vaultauthz.config.values import Listen
from vaultauthz.core.decision import Decision, Denied, Reason
from vaultauthz.core.request import Request
from vaultauthz.envoy.rpc import MOST_STREAMS, StreamMethod
from vaultauthz.envoy.sds.subscription import SECRET_TYPE
from vaultauthz.envoy.server import GrpcServer

SECRETS = "/envoy.service.secret.v3.SecretDiscoveryService"
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"


class Line:
    """One stream of bytes; entering it opens it, leaving it cancels it."""

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._open = channel.stream_stream(
            method, request_serializer=bytes, response_deserializer=bytes
        )
        self.call: Any = None

    def send(self, message: Any) -> None:
        """Send a message, or bytes as they are."""
        self._out.put(message if isinstance(message, bytes) else message.SerializeToString())

    def end(self) -> None:
        """Send nothing more."""
        self._out.put(None)

    def next(self) -> bytes:
        """The next answer. Raises grpc.RpcError, or StopIteration at the end."""
        data: bytes = next(self.call)
        return data

    def code(self) -> grpc.StatusCode:
        """How it ends, whatever comes before."""
        with contextlib.suppress(grpc.RpcError):
            for _ in self.call:
                pass
        code: grpc.StatusCode = self.call.code()
        return code

    def __enter__(self) -> Self:
        self.call = self._open(iter(self._out.get, None), timeout=3 * TIMEOUT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.call.cancel()
        self._out.put(None)


class EnvoyLine(Line):
    """One stream of discovery: takes what it is sent unless told to refuse it."""

    def __init__(self, channel: grpc.Channel, method: str, node: str = "edge-1") -> None:
        super().__init__(channel, method)
        self._delta = "Delta" in method
        self._node = Node(id=node, cluster="edge")
        self.names: list[str] = []
        self.has: dict[str, str] = {}  # names and headers' values

    def want(self, *names: str) -> None:
        """Ask for these names besides those before."""
        self.names += names
        if self._delta:
            asked = DeltaDiscoveryRequest(
                node=self._node, type_url=SECRET_TYPE, resource_names_subscribe=names
            )
            self.send(asked)
        else:
            self._say()

    def _say(self, **more: Any) -> None:
        request = DiscoveryRequest(
            node=self._node, type_url=SECRET_TYPE, resource_names=self.names, **more
        )
        self.send(request)

    def hear(self, refuse: bytes = b"") -> dict[str, str]:
        """The next answer, acknowledged or refused."""
        form = DeltaDiscoveryResponse if self._delta else DiscoveryResponse
        answer: Any = form.FromString(self.next())
        heard: dict[str, Any] = {"response_nonce": answer.nonce}
        if refuse:
            heard["error_detail"] = Status(code=13, message=refuse)
        if self._delta:
            self.send(DeltaDiscoveryRequest(type_url=SECRET_TYPE, **heard))
        else:
            self._say(**heard)
        packed = [getattr(resource, "resource", resource) for resource in answer.resources]
        secrets = [Secret.FromString(item.value) for item in packed]
        found = {s.name: s.generic_secret.secret.inline_bytes.decode() for s in secrets}
        self.has.update(found)
        return found

    def hear_until(self, met: Callable[[dict[str, str]], bool]) -> None:
        """Take answers until what it has is as wanted."""
        while not met(self.has):
            self.hear()


def deny(_: Request) -> Decision:
    """A check that lets nothing through."""
    return Denied(Reason.CALLER_DENIED)


@contextlib.contextmanager
def streaming(
    listen: Listen, streams: dict[str, StreamMethod], most: int = MOST_STREAMS
) -> Iterator[GrpcServer]:
    """A server with these streams."""
    server = GrpcServer(listen, deny, lambda: True, streams=streams, most_streams=most)
    server.start()
    try:
        yield server
    finally:
        server.stop(1.0)


@contextlib.contextmanager
def channel(server: GrpcServer) -> Iterator[grpc.Channel]:
    """A connection of its own to a server on a port."""
    with client(f"127.0.0.1:{server.port}") as made:
        yield made.channel
