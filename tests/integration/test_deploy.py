"""What deploy/kubernetes gives to Envoy, to the real one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vaultauthz.demo.parts import binaries

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration


def test_envoy_takes_the_sidecar_s_configuration() -> None:
    """deploy/kubernetes/sidecar/envoy.yaml passes Envoy's validation as it stands."""
    file = ROOT / "deploy" / "kubernetes" / "sidecar" / "envoy.yaml"
    argv = [str(binaries.envoy()), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
