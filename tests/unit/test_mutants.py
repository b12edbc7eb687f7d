"""`make mutants`: that its settings name what there is, and how its results are counted."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.mutants import ROOT, counted, name_of, table

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]


@pytest.mark.parametrize("pattern", SETTINGS["only_mutate"])
def test_what_is_mutated_is_there(pattern: str) -> None:
    """A file that was renamed would be passed over in silence."""
    assert list(ROOT.glob(pattern))


@pytest.mark.parametrize(
    "path", SETTINGS["also_copy"] + SETTINGS["pytest_add_cli_args_test_selection"]
)
def test_what_the_tests_need_is_there(path: str) -> None:
    """And the tests themselves."""
    assert (ROOT / path).exists()


def test_a_file_and_a_folder_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are given on the command line."""
    monkeypatch.chdir(ROOT)
    assert name_of("vaultauthz/core/callers.py") == "vaultauthz.core.callers.*"
    assert name_of(str(Path("vaultauthz") / "core")) == "vaultauthz.core.*"


RESULTS = """
    vaultauthz.core.pace.x_a__mutmut_1: killed
    vaultauthz.core.pace.x_a__mutmut_2: survived
    vaultauthz.core.pace.x_a__mutmut_3: caught by type check
    vaultauthz.broker.x_b__mutmut_1: killed
    vaultauthz.broker.x_b__mutmut_2: segfault
    vaultauthz.core.lease.x_c__mutmut_1: not checked
"""


def test_mutants_are_counted_by_module() -> None:
    """What was not asked for is left out; what mutmut calls otherwise has a column of its own."""
    head, *rows = (line.split() for line in table(counted(RESULTS)).splitlines())
    assert head == "mutants by a type by a test by time lives untested segfault".split()  # noqa: SIM905
    assert rows == [
        ["vaultauthz.broker", *"2010001"],
        ["vaultauthz.core.pace", *"3110100"],
        ["all", *"5120101"],
    ]
