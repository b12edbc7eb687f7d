"""Tests leave no record of logins to one another: not within a process, nor between pytest's workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RECORDS
from vaultauthz.vault.auth.tries import SHARED
from vaultauthz.vault.auth.tries_file import runtime_folder

_SEEN: list[Path | None] = []


@pytest.mark.parametrize("number", [1, 2])
def test_each_test_has_a_folder_of_its_own(number: int) -> None:
    """With nothing in it, below this process's."""
    folder = runtime_folder()
    assert folder is not None
    assert list(folder.iterdir()) == []
    assert Path(RECORDS) in folder.parents
    assert folder not in _SEEN
    _SEEN.append(folder)
    SHARED.begin("mary", "a")
    assert len(list(folder.iterdir())) == 1
