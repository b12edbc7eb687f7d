"""``grpc.health.v1.Health/Check``: tells Envoy's active health check whether to ask us.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md

``Watch`` is not served and answers UNIMPLEMENTED, which the protocol lets a client take as
"no watching here": each watcher would hold a thread for as long as it is connected, and
Envoy asks by ``Check``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from vaultauthz._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from vaultauthz.envoy import ext_authz
from vaultauthz.envoy.rpc import INVALID_ARGUMENT, NOT_FOUND, RpcError

SERVICE: Final = "grpc.health.v1.Health"
METHOD: Final = f"/{SERVICE}/Check"
# The empty name stands for the server as a whole.
_KNOWN: Final = frozenset(("", ext_authz.SERVICE))

_SERVING: Final = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
_NOT_SERVING: Final = HealthCheckResponse(
    status=HealthCheckResponse.NOT_SERVING
).SerializeToString()


class HealthService:
    """SERVING while ``ready()`` says so and ``drain`` has not been called."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._draining = False

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether ``drain`` has been called."""
        return self._draining

    def check(self, data: bytes, left: float | None = None) -> bytes:
        """The HealthCheckResponse for the HealthCheckRequest in ``data``.

        Raises:
            RpcError: NOT_FOUND for a service that is not here, INVALID_ARGUMENT for bytes
                that are no HealthCheckRequest.
        """
        try:
            service = HealthCheckRequest.FromString(data).service
        except DecodeError:
            raise RpcError(INVALID_ARGUMENT, "not a HealthCheckRequest") from None
        if service not in _KNOWN:
            raise RpcError(NOT_FOUND, "no such service")
        return _SERVING if self._ready() and not self._draining else _NOT_SERVING
