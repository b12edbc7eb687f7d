"""What is wrong with a configuration: found all at once, told in the file's order."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# A file of nothing but mistakes (the wrong file, say) would otherwise cost minutes
# of looking for suggestions and megabytes of text.
MOST_PROBLEMS: Final = 100


class ConfigError(ValueError):
    """The configuration cannot be used; its text is for the user to read.

    One problem a line, each ``FILE:LINE: KEY: what is wrong; the way out``.
    ``problems`` holds the same lines. No value of a secret is ever among them.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Refused(Exception):  # noqa: N818 - ends the reading of one value, never seen outside
    """One value cannot be used; whoever reads the values around it carries on."""

    def __init__(self, line: int, key: str, text: str) -> None:
        self.line = line
        self.key = key
        self.text = text
        super().__init__(text)


class Report:
    """The problems and warnings of one file; ``folder`` is where its paths start.

    ``elsewhere``: the files that it names are another machine's, or another user's.
    """

    def __init__(self, name: str, folder: Path, *, elsewhere: bool = False) -> None:
        self.name = name
        self.folder = folder
        self.elsewhere = elsewhere
        # Dicts for their order: a part that is read twice tells its problem once.
        self._problems: dict[tuple[int, str], None] = {}
        self._warnings: dict[tuple[int, str], None] = {}
        self._absent: dict[tuple[int, str], None] = {}
        self._unfit: dict[tuple[int, str], None] = {}

    def problem(self, line: int, key: str, text: str) -> None:
        """Note something that keeps the file from being used.

        Raises:
            ConfigError: there are so many that looking for more helps nobody.
        """
        self._problems[line, self._line(line, key, text)] = None
        if len(self._problems) >= MOST_PROBLEMS:
            more = f"{self.name}: and more; mend these {MOST_PROBLEMS} problems first"
            raise ConfigError((*_in_order(self._problems), more))

    def refused(self, refusal: Refused) -> None:
        """Note a problem that ended the reading of a value."""
        self.problem(refusal.line, refusal.key, refusal.text)

    def warning(self, line: int, key: str, text: str, *, absent: bool = False) -> None:
        """Note something that works, and that the user should know of.

        ``absent``: it is about a file that this machine or this user does not have.
        """
        found = line, self._line(line, key, text)
        self._warnings[found] = None
        if absent:
            self._absent[found] = None

    def unfit_for_kong(self, line: int, key: str, text: str) -> None:
        """Note something that a server of Kong's must not be started with."""
        self._unfit[line, self._line(line, key, text)] = None

    def raise_problems(self) -> None:
        """End here if anything was found.

        Raises:
            ConfigError: with every problem noted so far.
        """
        if self._problems:
            raise ConfigError(_in_order(self._problems))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, each a line like those of the problems."""
        return _in_order(self._warnings)

    @property
    def absent(self) -> tuple[str, ...]:
        """Those of the warnings that are about absent files."""
        return _in_order(self._absent)

    @property
    def unfit(self) -> tuple[str, ...]:
        """What does not go with Kong, each a line like those of the problems."""
        return _in_order(self._unfit)

    def _line(self, line: int, key: str, text: str) -> str:
        return ": ".join(part for part in (f"{self.name}:{line}", key, text) if part)


def _in_order(found: dict[tuple[int, str], None]) -> tuple[str, ...]:
    return tuple(text for _, text in sorted(found, key=lambda entry: entry[0]))
