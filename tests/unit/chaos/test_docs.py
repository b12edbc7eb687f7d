"""docs/chaos.md has the bounds and the faults as they are."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.show import bounds_table, kinds_table

DOCS = Path(__file__).parents[3] / "docs" / "chaos.md"


def test_the_tables_are_those_of_the_program() -> None:
    text = DOCS.read_text()
    for table in (bounds_table(), kinds_table()):
        assert "\n".join(table) in text
