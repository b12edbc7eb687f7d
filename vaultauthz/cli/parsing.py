"""How the command line is read: near misses are told, and what there is can be walked through.

argparse has no public names for the parts of a parser; they are asked for here alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaultauthz.config.reader import closest


class _Formatter(argparse.HelpFormatter):
    """Counts a command's name with its indentation, without which the longest has a line by itself."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            self._action_max_length += 2


class SuggestingParser(argparse.ArgumentParser):
    """Says what may have been meant, by the rule that the configuration's keys go by."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Formatter, **named})

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as exc:
            exc.message += _meant(str(value), [str(one) for one in action.choices or ()])
            raise


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The options in ``words``; ends with status 2 and the usage of the command that is meant."""
    options, unknown = parser.parse_known_args(words)
    if unknown:
        found = command_of(parser, words)
        names = [name for action in actions(found) for name in action.option_strings]
        found.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown[0], names)}")
    return options


def _meant(word: str, known: Sequence[str]) -> str:
    close = closest(word, known)
    return f"; did you mean {close[0]}?" if close else ""


def command_of(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser that the words lead to: each that names a command goes one down."""
    for word in words:
        parser = commands(parser).get(word, parser)
    return parser


def commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The commands below a parser by their names; {} where there are none."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def summaries(parser: argparse.ArgumentParser) -> Mapping[str, str]:
    """What the help says in a line of each command below a parser."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return {one.dest: one.help or "" for one in action._choices_actions}  # noqa: SLF001
    return {}


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Its options and what it takes besides, without those that are not shown, and commands."""
    for action in parser._actions:  # noqa: SLF001
        hidden = action.help == argparse.SUPPRESS
        if not hidden and not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield action


def takes_file(action: argparse.Action) -> bool:
    """Whether its value is a file's path."""
    return action.type is Path
