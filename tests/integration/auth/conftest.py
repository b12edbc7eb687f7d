"""One OpenBao for all auth methods; each test makes roles of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .auth_bao import AuthBao


@pytest.fixture(scope="package")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthBao]:
    """Neither stopped nor reconfigured by any test."""
    with AuthBao(tmp_path_factory.mktemp("auth-bao")) as server:
        yield server
