"""Typed access to the tree: a value that knows its line and its dotted key.

How the sections are read: a function from ``Value`` to the typed thing, which
raises ``Refused`` when it cannot. ``Table.get`` and ``Value.each`` note the refusal,
put a stand-in in its place and carry on, so that one run finds every problem; the
stand-ins never leave the package, because ``Report.raise_problems`` comes last.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from vaultauthz.config.document import Items, Node, Pairs, Scalar
from vaultauthz.config.problems import Refused, Report

T = TypeVar("T")
D = TypeVar("D")

_SHOWN_BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")
_WORD = re.compile(r"[a-z_]{1,20}\Z")
_LONGEST_SHOWN = 60
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NONE: Mapping[str, str] = MappingProxyType({})
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}


def quoted(text: str) -> str:
    """``text`` on one line in quotes, shortened. Never for a value that may be secret."""
    return repr(text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…")


def one_of(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _below(key: str, name: str) -> str:
    short = _SHOWN_BARE.match(name) and len(name) <= 2 * _LONGEST_SHOWN
    shown = name if short else quoted(name)
    return f"{key}.{shown}" if key else shown


@dataclass(frozen=True, slots=True)
class Value:
    """A node and its place. ``line`` is that of its key, where a mapping holds it."""

    node: Node
    line: int
    key: str
    report: Report

    def wrong(self, text: str) -> Refused:
        """The exception that says what is wrong here; for ``raise``."""
        return Refused(self.line, self.key, text)

    def warn(self, text: str, *, absent: bool = False) -> None:
        """Note a warning here; ``absent``: of a file that is not here."""
        self.report.warning(self.line, self.key, text, absent=absent)

    def text(self) -> str:
        """Text of one line, not empty; numbers are taken as they are written."""
        node = self.node
        if not isinstance(node, Scalar):
            raise self.wrong(f"wants text, found {node.kind}")
        if node.kind == "a boolean":
            raise self.wrong("wants text, found a boolean; put it in quotes to mean the word")
        if not node.text.strip() or node.kind == "nothing":
            raise self.wrong("is empty; give it a value or leave the key out")
        if _CONTROL.search(node.text):
            raise self.wrong("holds a line break or control character; write it on one line")
        return node.text

    def flag(self) -> bool:
        """``true`` or ``false``, also in YAML's other spellings."""
        if isinstance(self.node, Scalar) and self.node.kind == "a boolean":
            return _BOOLEANS[self.node.text.lower()]
        raise self.wrong(f"wants true or false, found {self.node.kind}")

    def whole(self, *, least: int, most: int) -> int:
        """A whole number within both bounds."""
        text = self.text()
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise self.wrong(f"wants a whole number from {least} to {most}, found {quoted(text)}")
        return int(text)

    def choice(self, allowed: Sequence[str]) -> str:
        """One of the ``allowed`` words."""
        word = self.text()
        if word not in allowed:
            raise self.wrong(f"{quoted(word)} is unknown; use {one_of(allowed)}")
        return word

    def items(self) -> list[Value]:
        """The items of a list, empty ones among them."""
        if not isinstance(self.node, Items):
            raise self.wrong(f"wants a list, found {self.node.kind}; write it as [a, b] or with -")
        return [
            Value(node, node.line, f"{self.key}[{number}]", self.report)
            for number, node in enumerate(self.node.items)
        ]

    def each(self, how: Callable[[Value], T]) -> tuple[T, ...]:
        """Every item of a list as ``how`` reads it; refused ones are noted and left out."""
        found = []
        for item in self.items():
            try:
                found.append(how(item))
            except Refused as refusal:
                self.report.refused(refusal)
        return tuple(found)

    def entries(self) -> dict[str, Value]:
        """The entries of a mapping by their key's text; a second one of a name is noted."""
        if not isinstance(self.node, Pairs):
            raise self.wrong(f"wants a mapping, found {self.node.kind}; write it as key: value")
        found: dict[str, Value] = {}
        for key, node in self.node.pairs:
            try:
                name = self._key_text(key)
                if name in found:
                    raise self._twice(key.line, "" if node.kind == "nothing" else name, found[name])
                found[name] = Value(node, key.line, _below(self.key, name), self.report)
            except Refused as refusal:
                self.report.refused(refusal)
        return found

    def _key_text(self, key: Node) -> str:
        if not isinstance(key, Scalar) or not key.text:
            raise Refused(key.line, self.key, "a key is not text; quote a value that begins with {")
        if key.text == "<<":
            text = "merge keys are not supported; write the keys out"
            raise Refused(key.line, _below(self.key, "<<"), text)
        return key.text

    def _twice(self, line: int, name: str, first: Value) -> Refused:
        # Unnamed without a value: see ``table`` on {password: ab,cd,cd}.
        text = f"{'the' if name else 'a'} key is there twice, first at line {first.line}"
        return Refused(
            line, _below(self.key, name) if name else self.key, f"{text}; remove one of them"
        )

    def each_entry(self, how: Callable[[str, Value], T]) -> dict[str, T]:
        """Every entry of a mapping as ``how`` reads it; refused ones are noted and left out."""
        found = {}
        for name, value in self.entries().items():
            try:
                found[name] = how(name, value)
            except Refused as refusal:
                self.report.refused(refusal)
        return found

    def table(
        self,
        known: Sequence[str],
        refused: Mapping[str, str] = _NONE,
        *,
        secretive: bool = False,
    ) -> Table:
        """A mapping of ``known`` keys; others are noted and left out.

        ``refused`` has words of its own for keys that people are likely to try.
        Where a secret may stand (``secretive``), a key is named only if it looks like
        one: ``{password: ab,cd}`` without quotes has the key ``cd``.
        """
        entries = self.entries()
        for name, value in entries.items():
            if name not in known:
                refusal = _unknown(value, name, known, refused)
                hidden = secretive and not _like_a_key(value, name, (*known, *refused))
                self.report.refused(_unnamed(self, value.line, known) if hidden else refusal)
        kept = {name: value for name, value in entries.items() if name in known}
        return Table(self, kept, complete=len(kept) == len(entries))


def _like_a_key(value: Value, name: str, known: Sequence[str]) -> bool:
    if value.node.kind == "nothing":  # as what follows a comma has it, and few mistyped keys
        return name in known
    return _WORD.match(name) is not None or bool(closest(name, known))


def _unnamed(value: Value, line: int, known: Sequence[str]) -> Refused:
    text = f"an unknown key (a secret with a comma needs quotes); known here: {', '.join(known)}"
    return Refused(line, value.key, text)


def closest(name: str, known: Collection[str]) -> list[str]:
    """The one of ``known`` that may have been meant, as a list; [] where none is near."""
    return difflib.get_close_matches(name.lower()[:_LONGEST_SHOWN], known, n=1)


def _unknown(value: Value, name: str, known: Sequence[str], refused: Mapping[str, str]) -> Refused:
    if name in refused:
        return value.wrong(refused[name])
    close = closest(name, known)
    hint = f"did you mean {close[0]}? Known here" if close else "known here"
    return value.wrong(f"unknown key; {hint}: {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping whose keys are known. ``complete``: no key was left out as unknown."""

    place: Value
    entries: dict[str, Value]
    complete: bool

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def get(self, name: str, how: Callable[[Value], T], default: D) -> T | D:
        """The value of ``name`` as ``how`` reads it; ``default`` when absent or refused."""
        value = self.entries.get(name)
        try:
            return default if value is None else how(value)
        except Refused as refusal:
            self.place.report.refused(refusal)
            return default

    def missing(self, name: str, hint: str = "") -> None:
        """Note that ``name`` has to be there."""
        key = _below(self.place.key, name)
        self.place.report.problem(self.place.line, key, f"is missing; {hint or 'add it'}")

    def begin(self, name: str) -> None:
        """Put an empty mapping in place of an absent ``name``."""
        if name not in self.entries:
            self._put(name, Pairs(self.place.line, ()), _below(self.place.key, name))

    def supply(self, name: str, text: str, origin: str) -> None:
        """Put ``text`` in place of an absent ``name``; messages say its ``origin`` (from $X)."""
        if name not in self.entries:
            key = f"{_below(self.place.key, name)} ({origin})"
            self._put(name, Scalar(self.place.line, text), key)

    def _put(self, name: str, node: Node, key: str) -> None:
        self.entries[name] = Value(node, self.place.line, key, self.place.report)
