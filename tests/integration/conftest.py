"""Real servers, started once for the whole run and laid out by each test for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vaultauthz.demo.parts import OpenBao, Postgres


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One OpenBao for the tests that neither stop nor reconfigure it."""
    with OpenBao(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One PostgreSQL for the tests that do not stop it."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def secret_id(tmp_path: Path) -> Path:
    """Where a test puts its secret_id: a file that only its owner may read."""
    path = tmp_path / "secret_id"
    path.touch(0o600)
    return path
