"""YAML as text with comments: templates, and values that go into them."""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

WIDTH: Final = 110  # columns that a line of values may take
_COMMENT_WIDTH: Final = 100
_PLACE: Final = re.compile(r"\$([a-z][a-z0-9_]*)")
_WHOLE: Final = re.compile(r"(\s*)(- )?\$([a-z][a-z0-9_]*)")
_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./\-]*\Z")
_UNSEEN: Final = re.compile(r"[^\x20-\x7e]")
_LAST_OF_FOUR: Final = 0xFFFF
# Words that some reader of YAML takes for a boolean or for nothing.
_WORDS: Final = frozenset(("false", "n", "no", "null", "off", "on", "true", "y", "yes"))


def fill(template: str, **values: str) -> str:
    """``template`` with its ``$name`` places filled.

    A place that is a whole line, or the item of a list, takes a text of any number of lines,
    indented as the place is; the line goes where the text is empty.
    """
    lines = textwrap.dedent(template).strip("\n").splitlines()
    return "\n".join(filled for line in lines for filled in _filled(line, values))


def _filled(line: str, values: Mapping[str, str]) -> list[str]:
    whole = _WHOLE.fullmatch(line)
    if whole is None:
        return [_PLACE.sub(lambda place: values[place.group(1)], line)]
    indent, item, name = whole.groups(default="")
    lines = textwrap.indent(values[name], indent + " " * len(item)).splitlines()
    if item and lines:
        lines[0] = indent + item + lines[0].lstrip()
    return lines


def join(*parts: str, between: str = "\n") -> str:
    """The parts that are not empty, one below the other."""
    return between.join(part for part in parts if part)


def without_repeats(text: str) -> str:
    """``text`` with each comment where it first stands, and no spaces at the ends of lines.

    What has to be replaced is told each time.
    """
    seen: set[str] = set()
    kept: list[str] = []
    for is_comment, lines in itertools.groupby(text.splitlines(), _is_comment):
        paragraph = list(lines)
        comment_text = " ".join(line.strip() for line in paragraph)
        if is_comment and comment_text in seen and "REPLACE" not in comment_text:
            continue
        seen.add(comment_text)
        kept += (line.rstrip() for line in paragraph)
    return "\n".join(kept) + "\n"


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def comment(text: str) -> str:
    """``text`` as comment lines."""
    seen = printable(text)
    lines = textwrap.wrap(seen, _COMMENT_WIDTH - 2, break_on_hyphens=False, break_long_words=False)
    return "\n".join(f"# {line}" for line in lines)


def printable(text: str) -> str:
    """``text`` for a comment, which no line break ends that a reader of YAML may know."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def scalar(value: str | float) -> str:
    """One value, in quotes where YAML would take it for something else."""
    if isinstance(value, str) and _PLAIN.match(value) and value.lower() not in _WORDS:
        return value
    return _UNSEEN.sub(lambda found: _escaped(found.group()), json.dumps(value, ensure_ascii=False))


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= _LAST_OF_FOUR else f"\\U{ord(char):08x}"


def flow(value: Any) -> str:
    """Any value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(v)}" for key, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def block(value: Any, indent: int = 0) -> str:
    """Any value on as few lines as ``WIDTH`` allows; ``indent`` is where it will stand."""
    return "\n".join(_lines(value, WIDTH - indent))


def _lines(value: Any, width: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield from _entry(f"{scalar(key)}:", held, width, "  ")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _item(item, width)
    else:
        yield scalar(value)


def _entry(start: str, held: Any, width: int, indent: str) -> Iterator[str]:
    line = f"{start} {flow(held)}"
    if len(line) <= width or not isinstance(held, (Mapping, list, tuple)) or not held:
        yield line
        return
    yield start
    for inner in _lines(held, width - len(indent)):
        yield indent + inner


def _item(item: Any, width: int) -> Iterator[str]:
    line = f"- {flow(item)}"
    if len(line) <= width or not isinstance(item, (Mapping, list, tuple)) or not item:
        yield line
        return
    inner = _lines(item, width - 2)
    yield f"- {next(inner)}"
    for rest in inner:
        yield f"  {rest}"
