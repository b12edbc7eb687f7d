"""Reloads and stops of Kong under load, both ways of starting our server; see `kong_rounds`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.kong_rounds import KONG, OUTSIDE, Bed, rounds
from vaultauthz.demo.parts import OpenBao, Postgres

pytestmark = pytest.mark.integration

# Two are enough to see a server go on at the one reload, and another take over at the other.
ROUNDS = int(os.environ.get("VAULTAUTHZ_KONG_ROUNDS", "2"))


@pytest.fixture(scope="module")
def bed(bao: OpenBao, postgres: Postgres) -> Bed:
    """The secrets and the login."""
    return Bed(bao, postgres)


@pytest.mark.timeout(120 + 60 * ROUNDS)
@pytest.mark.parametrize("way", [KONG, OUTSIDE])
def test_nothing_is_lost_left_or_unwritten(bed: Bed, tmp_path: Path, way: str) -> None:
    """No request at a reload, no lease or token after a stop, and each proxied request has its line."""
    found = rounds(bed, tmp_path, way, ROUNDS)
    assert found.requests > 0
    assert (found.lost, found.wrong, found.unwritten, found.chains) == (0, 0, 0, 0), found
