"""What a flood of HTTP/2 frames does to checks: on native nothing, on grpcio nothing for good.

What docs/envoy.md promises, and no more: how many checks grpcio answers meanwhile is not.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import grpc
import pytest

from tests.contract.faults import wait_until
from tests.contract.test_server import CHECK, TIMEOUT, checked, client, serving, target_of
from tests.floods import FLOODS, flood, to
from vaultauthz.config.values import Listen

CONNECTIONS = 24
FEW = 4  # of these, grpcio has something to do for a while on a busy machine
CHECKS = 30


@pytest.mark.native
@pytest.mark.parametrize("kind", FLOODS)
def test_native_goes_on(tmp_path: Path, kind: str) -> None:
    """Each check is answered, while the flood comes in."""
    listen = Listen(grpc=f"unix://{tmp_path}/g", transport="native")
    with serving(listen) as (_, made), flood(kind, to(listen.grpc), CONNECTIONS) as sent:
        assert wait_until(lambda: sent() >= CONNECTIONS)
        for _ in range(CHECKS):
            assert made.check(checked()) == 200


@pytest.mark.parametrize("kind", ["continuation", "reset"])
def test_grpcio_is_back_afterwards(tmp_path: Path, kind: str) -> None:
    """Meanwhile a check is answered right or not at all; then a gateway need not even reconnect."""
    listen = Listen(grpc=f"unix://{tmp_path}/g", transport="grpcio")
    with serving(listen) as (server, made):
        right = made.call(CHECK, checked())
        with (
            flood(kind, to(listen.grpc), FEW) as sent,
            client(target_of(listen, server)) as another,
        ):
            assert wait_until(lambda: sent() >= FEW)
            for gateway in (made, another):
                with contextlib.suppress(grpc.RpcError):  # it is late: Envoy denies the request
                    assert gateway.call(CHECK, checked(), timeout=1.0) == right
        again = made.unary(CHECK)(checked(), timeout=TIMEOUT, wait_for_ready=True)
        assert again == made.call(CHECK, checked()) == right
