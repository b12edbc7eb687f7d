"""What one door loads is its own: another gateway's code and libraries are not waited for."""

from __future__ import annotations

import subprocess
import sys

import pytest

KONG = ("vaultauthz.kong.door", "vaultauthz.kong.stock", "vaultauthz.kong.supervise")
ENVOY = ("vaultauthz.envoy.door",)


@pytest.mark.parametrize(
    ("door", "others"),
    [
        *((door, ("vaultauthz.envoy", "grpc", "pygrpc_native")) for door in KONG),
        *((door, ("vaultauthz.kong",)) for door in ENVOY),
    ],
)
def test_a_door_loads_nothing_of_another(door: str, others: tuple[str, ...]) -> None:
    """Neither its modules nor what only it needs, in a fresh interpreter."""
    program = f"import sys, {door}; print(*sorted(sys.modules), sep='\\n')"
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = told.stdout.split()
    assert door in loaded
    assert not [name for name in loaded if name.startswith(tuple(others))]
