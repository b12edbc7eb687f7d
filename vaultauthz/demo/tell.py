"""How the demo talks: steps, facts, ticks and crosses, in 80 columns of plain text."""

import os
import textwrap
from typing import TextIO

from vaultauthz.demo.parts import PartError

WIDTH = 80
GREEN, RED, BOLD, DIM, PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[2m", "\033[0m"
# What stands in for each sign where the output's encoding does not have it.
ASCII = str.maketrans({"✓": "ok", "✗": "FAILED", "…": "...", "—": "-"})
LABEL_COLUMNS = 11


class Teller:
    """Prints the story and remembers what did not hold. Colours only on a terminal, and not if NO_COLOR is set."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colours = out.isatty() and not os.environ.get("NO_COLOR")
        self._signs = can_print("✓✗…", out)
        self._step = 0
        self.held = 0
        self.failed: list[str] = []

    def title(self, words: str) -> None:
        """The demo's first line."""
        self._print(f"{words}\n{'=' * len(words)}", BOLD)

    def step(self, title: str, *paragraphs: str) -> None:
        """A new numbered step: its title, then what it is about."""
        self._step += 1
        self._print(f"\n{self._step}. {title}", BOLD)
        for words in paragraphs:
            self.say(words)

    def say(self, words: str) -> None:
        """A paragraph, wrapped."""
        self._print(wrapped(words, "   ", "   "))

    def fact(self, label: str, *lines: str) -> None:
        """Something that was sent, seen or answered, with its label in front; a long line goes on in the next one."""
        margin = " " * (3 + LABEL_COLUMNS)
        first = f"   {label:<{LABEL_COLUMNS}}"
        for line in lines:
            self._print(wrapped(line, first, margin), DIM)
            first = margin

    def hold(self, held: bool, words: str) -> bool:  # noqa: FBT001  # the calls read as a sentence
        """A tick if it held, else a cross; a cross makes the demo fail."""
        if held:
            self.held += 1
        else:
            self.failed.append(words)
        sign, colour = ("✓", GREEN) if held else ("✗", RED)
        indent = "     " if self._signs else " " * (4 + len(sign.translate(ASCII)))
        self._print(wrapped(words, f"   {sign} ", indent), colour)
        return held

    def broken(self, error: Exception) -> None:
        """A cross for what could not be done, with the reason; what a log said stays in its own lines."""
        first, *rest = str(error).splitlines() or [""]
        self.hold(
            False, first if isinstance(error, PartError) else f"{type(error).__name__}: {first}"
        )
        for line in rest:
            self.command(f"  {line}")

    def command(self, line: str) -> None:
        """A line to copy; never wrapped."""
        self._print(f"   {line}")

    def close(self) -> None:
        """The last line: what the count is."""
        if self.failed:
            self._print(
                f"\n✗ {len(self.failed)} of {self.held + len(self.failed)} did not hold:", RED
            )
            for words in self.failed:
                self.say(words)
        else:
            self._print(f"\n✓ All {self.held} held.", GREEN)

    def _print(self, words: str, colour: str = "") -> None:
        text = words if self._signs else words.translate(ASCII)
        print(
            f"{colour}{text}{PLAIN}" if self._colours and colour else text,
            file=self._out,
            flush=True,
        )


def wrapped(words: str, first: str, rest: str) -> str:
    """The words in lines of 80 columns, broken at spaces only: ids and URLs are full of hyphens."""
    return textwrap.fill(
        words,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )


def can_print(signs: str, out: TextIO) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        signs.encode(out.encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
