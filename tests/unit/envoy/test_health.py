"""grpc.health.v1 without a socket."""

import pytest

from vaultauthz._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from vaultauthz.envoy.rpc import INVALID_ARGUMENT, NOT_FOUND, RpcError
from vaultauthz.envoy.server import HealthService

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def asked(health: HealthService, service: str = "") -> int:
    """The status that a health check gets."""
    data = HealthCheckRequest(service=service).SerializeToString()
    return HealthCheckResponse.FromString(health.check(data)).status


@pytest.mark.parametrize("service", ["", "envoy.service.auth.v3.Authorization"])
def test_it_follows_ready(service: str) -> None:
    """SERVING exactly while the server is ready, for the whole and for the service."""
    states = [False, True, False]
    health = HealthService(lambda: states.pop(0))
    assert [asked(health, service) for _ in range(3)] == [NOT_SERVING, SERVING, NOT_SERVING]


def test_a_draining_server_is_not_serving() -> None:
    """Once it drains it is NOT_SERVING, ready or not."""
    health = HealthService(lambda: True)
    health.drain()
    assert asked(health) == NOT_SERVING


def test_an_unknown_service_is_not_found() -> None:
    """The protocol's answer for a name that is not served."""
    with pytest.raises(RpcError) as raised:
        asked(HealthService(lambda: True), "other.Service")
    assert raised.value.code == NOT_FOUND


def test_bytes_that_do_not_parse() -> None:
    """They fail the call as an invalid argument."""
    with pytest.raises(RpcError) as raised:
        HealthService(lambda: True).check(b"\xff")
    assert raised.value.code == INVALID_ARGUMENT
