"""Which transport a run of the tests is of: the suite runs on both (`make test-grpcio`)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from tests.contract.test_server import allow
from vaultauthz.config.values import Listen
from vaultauthz.envoy.grpcio_transport import GrpcioTransport
from vaultauthz.envoy.server import GrpcServer

GRPCIO = os.environ.get("VAULTAUTHZ_TEST_TRANSPORT") == "grpcio"
FOLDER = Path(__file__).parents[1] / "without_native"
FOUND = "import importlib.util as u; print(u.find_spec('pygrpc_native') is not None)"


def found(environment: dict[str, str]) -> bool:
    """Whether a Python of this environment has the wheel."""
    command = [sys.executable, "-c", FOUND]
    return subprocess.check_output(command, env=environment, text=True).strip() == "True"


def test_a_process_of_this_run_has_the_transport_that_was_asked_for() -> None:
    """Ours, and each that a test starts."""
    assert (importlib.util.find_spec("pygrpc_native") is None) == GRPCIO
    assert found(dict(os.environ)) != GRPCIO


def test_the_folder_takes_the_wheel_away() -> None:
    """That alone, and nothing else that is installed."""
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    assert not found(environment)
    subprocess.run([sys.executable, "-c", "import grpc, hvac"], env=environment, check=True)


def test_auto_is_the_transport_of_this_run() -> None:
    """What every test gets that names none."""
    server = GrpcServer(Listen("127.0.0.1:0"), allow, lambda: True)
    assert isinstance(server._transport, GrpcioTransport) == GRPCIO
