"""A bed for each test, one PostgreSQL for all of them, and the table of what came of every fault."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.faults.bed import Bed, Times
from vaultauthz.demo.parts import Postgres

TABLE = "VAULTAUTHZ_FAULT_TABLE"  # the environment variable that names the summary's file
HEAD = "| fault | sent | 200 | 503 | other | dead | crossed | minted | dead allowed |"

MakeBed = Callable[[Times], Bed]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One PostgreSQL; a test that stops it starts it again."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def make_bed(
    tmp_path: Path, postgres: Postgres, request: pytest.FixtureRequest
) -> Iterator[MakeBed]:
    """Starts a bed with the lifetimes it is given; at the end its numbers are noted and its log is looked at."""
    beds: list[Bed] = []

    def make(times: Times) -> Bed:
        beds.append(Bed(tmp_path, postgres, times).__enter__())
        return beds[-1]

    yield make
    for bed in beds:
        bed.__exit__(None, None, None)
        note(bed.summary(request.node.name.removeprefix("test_").replace("_", " ")))
        bed.assert_clean_logs()


@pytest.fixture
def bed(make_bed: MakeBed) -> Bed:
    """A bed with leases of four seconds and everything else long."""
    return make_bed(Times())


def note(line: str) -> None:
    """Print a line of the summary, and add it to the table if one is asked for."""
    sys.stdout.write(f"\n{line}\n")
    path = os.environ.get(TABLE)
    if path:
        table = Path(path)
        with table.open("a") as file:
            if table.stat().st_size == 0:
                file.write(f"{HEAD}\n|{' --- |' * HEAD.count(' | ')} --- |\n")
            file.write(f"{line}\n")
