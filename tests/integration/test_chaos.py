"""A minute of chaos: half of it in each mode, few and short faults, each answer judged as in a long run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.bounds import MODES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

ROOT = Path(__file__).parents[2]
# A seed whose plans have a token revoked, ours killed, Vault cut off, and a KV secret changed.
SEED = "395"


@pytest.mark.parametrize("mode", MODES)
def test_half_a_minute_of_faults(mode: str, tmp_path: Path) -> None:
    """No dead credential outside its bound, none of another's, no user left, and both logs hold."""
    told = tmp_path / "told.json"
    argv = [sys.executable, "-m", "tests.chaos", "--seconds", "30", "--seed", SEED, "--mode", mode]
    done = subprocess.run(
        [*argv, "--mild", "--rate", "20", "--json", told],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(told.read_text())
    assert found["good"]
    assert found["counts"]["allowed"] > 0
    assert found["last"]["users"] == []
    assert found["last"]["chain_holds"]
    assert found["last"]["joined"]
