"""What a command prints: for people a table that fits the terminal, for programs JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

_GAP: Final = "  "
_WRAPPED: Final[dict[str, Any]] = {"subsequent_indent": "    ", "break_on_hyphens": False}
_SHORTEST: Final = 12  # characters that are left of a name that does not fit


@dataclass(frozen=True, slots=True)
class Output:
    """Where the answer goes and how; ``width`` is None where lines may be of any length."""

    out: TextIO
    as_json: bool = False
    width: int | None = None

    def lines(self, *lines: str) -> None:
        """For people, at a terminal that must not take any text for a command."""
        for line in lines:
            shown = "".join(char if char.isprintable() else "?" for char in line.rstrip())
            fits = self.width is None or len(shown) <= self.width
            parts = [shown] if fits else textwrap.wrap(shown, self.width or 0, **_WRAPPED)
            self.out.writelines(f"{part}\n" for part in parts)

    def json(self, value: Any) -> None:
        """For programs."""
        self.out.write(json.dumps(value, indent=2) + "\n")


def columns(cells: list[list[str]], width: int | None, *, least: int) -> list[str]:
    """The lines of a table, ``cells[0]`` its headings.

    What does not fit in ``width`` loses its last columns, down to ``least`` of them,
    and then the end of the first column's text.
    """
    while width is not None and _width(cells) > width and len(cells[0]) > least:
        cells = [line[:-1] for line in cells]
    if width is not None and _width(cells) > width:
        longest = max(_SHORTEST, _widest(cells, 0) - (_width(cells) - width))
        cells = [[_cut(line[0], longest), *line[1:]] for line in cells]
    widths = [_widest(cells, column) for column in range(len(cells[0]))]
    return [
        _GAP.join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _widest(cells: Sequence[Sequence[str]], column: int) -> int:
    """The widest cell of a column."""
    return max(len(line[column]) for line in cells)


def _width(cells: Sequence[Sequence[str]]) -> int:
    count = len(cells[0])
    return sum(_widest(cells, column) for column in range(count)) + len(_GAP) * (count - 1)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"
