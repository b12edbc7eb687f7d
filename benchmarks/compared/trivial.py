"""A gRPC server that lets each check through without a thought: what any handler of Check costs at least.

    python trivial.py native|grpcio SOCKET KEY

It decodes the request and encodes its answer, always the same, as generated code has every handler do.
`native` is the transport that we serve on; `grpcio` is what most Python servers are: sync, a pool of threads.
Serves until it is killed.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))

from compared.messages import check_response
from vaultauthz._pb.ext_authz_pb2 import CheckRequest, CheckResponse
from vaultauthz._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from vaultauthz.envoy import ext_authz
from vaultauthz.envoy.native_transport import NativeTransport
from vaultauthz.envoy.rpc import UnaryMethod
from vaultauthz.envoy.server import HEALTH_METHOD


def main(transport: str, target: str, key: str) -> None:
    """Serve for ever."""
    allowed = CheckResponse.FromString(check_response(key))
    serving = HealthCheckResponse(status=HealthCheckResponse.SERVING)
    # Bound to a name: grpcio ends a server that nobody holds any more.
    server = (_native if transport == "native" else _grpcio)(target, allowed, serving)
    server.start()
    threading.Event().wait()


def _native(target: str, allowed: CheckResponse, serving: HealthCheckResponse) -> NativeTransport:
    def check(data: bytes, _left: float | None) -> bytes:
        CheckRequest.FromString(data)
        return allowed.SerializeToString()

    def healthy(_data: bytes, _left: float | None) -> bytes:
        return serving.SerializeToString()

    methods = {
        ext_authz.METHOD: UnaryMethod(check, check),
        HEALTH_METHOD: UnaryMethod(healthy, healthy),
    }
    return NativeTransport(target, methods)


def _grpcio(target: str, allowed: CheckResponse, serving: HealthCheckResponse) -> grpc.Server:
    check = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: allowed,
        CheckRequest.FromString,
        CheckResponse.SerializeToString,
    )
    healthy = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: serving,
        HealthCheckRequest.FromString,
        HealthCheckResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor())
    for path, handler in ((ext_authz.METHOD, check), (HEALTH_METHOD, healthy)):
        _, service, name = path.split("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {name: handler}),)
        )
    server.add_insecure_port(target)
    return server


if __name__ == "__main__":
    main(sys.argv[1], f"unix:{sys.argv[2]}", sys.argv[3])
