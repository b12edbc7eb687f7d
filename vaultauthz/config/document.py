"""YAML text → a tree whose every node knows its line.

Built from PyYAML's events rather than by its composer: events come one at a
time from a parser that does not recurse, so that a hostile file (a million
brackets, a bomb of aliases) is refused at a stated bound before it costs
anything, and a refused tag is never looked up.
"""

from __future__ import annotations

import re
from bisect import bisect
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

# A configuration nests seven levels deep, and a megabyte of real upstreams makes
# 150,000 nodes; aliases count as what they stand for.
DEEPEST: Final = 32
MOST_NODES: Final = 1_000_000

# The C parser takes a megabyte in a fraction of a second where the Python one
# takes ten, which a reload would steal from the request path.
LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_READ_AHEAD = 4096  # characters, more than either parser reads ahead
_OPENING = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # YAML 1.1, 5.1
)
_YAML = "tag:yaml.org,2002:"
_PLAIN_TAGS = (None, f"{_YAML}str", f"{_YAML}map", f"{_YAML}seq")
_KINDS = {
    f"{_YAML}bool": "a boolean",
    f"{_YAML}float": "a number",
    f"{_YAML}int": "a number",
    f"{_YAML}null": "nothing",
}
# Characters beyond the first 65,536 as JSON writes them: two escapes, \ud83d\ude00 (RFC 8259, 7).
# YAML has one escape for each (\U0001F600), and its C parser refuses halves.
# An escape begins with a backslash that is not itself escaped.
_PAIR: Final = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
)
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")
_SHORTER: Final = len(r"\ud83d\ude00") - len(r"\U0001F600")
_RESOLVER: Any = yaml.resolver.Resolver()


class DocumentError(Exception):
    """The text is not one YAML document that a configuration could be."""

    def __init__(self, line: int, text: str) -> None:
        self.line = line
        self.text = text
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Scalar:
    """``text`` as written (``010`` stays ``010``); ``kind`` is what YAML takes it for."""

    line: int
    text: str
    kind: str = "text"  # or "a boolean", "a number", "nothing"
    size: int = 1


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    line: int
    items: tuple[Node, ...]
    size: int = 1
    kind: str = "a list"


@dataclass(frozen=True, slots=True)
class Pairs:
    """A mapping, in the file's order and with its duplicate keys."""

    line: int
    pairs: tuple[tuple[Node, Node], ...]
    size: int = 1
    kind: str = "a mapping"


Node = Scalar | Items | Pairs


def read(text: str, loader: Any = LOADER) -> Node | None:
    """The document in ``text``, None when there is nothing in it.

    Raises:
        DocumentError: not YAML, several documents, or beyond the bounds above.
    """
    _check_characters(text)
    builder = _Builder()
    try:
        _build(builder, text, loader)
    except yaml.MarkedYAMLError as exc:
        if not _at_half(text, exc):
            raise _refused(text, exc, builder) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # The Python parser lets chr() fail on "\UFFFFFFFF".
        raise _no_yaml() from None
    else:
        return builder.root
    return _read_joined(_Joined(text), loader)


def _read_joined(joined: _Joined, loader: Any) -> Node | None:
    """The document once more, of a file with escapes as JSON has them."""
    builder = _Builder(joined)
    try:
        _build(builder, joined.text, loader)
    except yaml.MarkedYAMLError as exc:
        refused = _refused(joined.text, exc, builder)
        raise (_half(_line(exc)) if _at_half(joined.text, exc) else refused) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        raise _no_yaml() from None
    return builder.root


def _build(builder: _Builder, text: str, loader: Any) -> None:
    for event in yaml.parse(text, Loader=loader):
        builder.take(event)


def _no_yaml() -> DocumentError:
    return DocumentError(1, "not YAML; is this the right file?")


def _half(line: int) -> DocumentError:
    return DocumentError(
        line,
        "half a character: an escape of \\ud800 to \\udfff stands for one only in a pair, high and "
        "low, in double quotes; write both, or the character itself",
    )


def _at_half(text: str, exc: yaml.MarkedYAMLError) -> bool:
    return exc.problem_mark is not None and _is_half(text, exc.problem_mark.index)


def _line(exc: yaml.MarkedYAMLError) -> int:
    mark = exc.problem_mark or exc.context_mark
    return mark.line + 1 if mark else 1


def _refused(text: str, exc: yaml.MarkedYAMLError, builder: _Builder) -> DocumentError:
    _check_read_ahead(text, exc, builder)
    return _syntax_error(text, exc)


def _check_characters(text: str) -> None:
    bad = _UNPRINTABLE.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        what = f"the character U+{ord(bad.group()):04X}"
        raise DocumentError(line, f"not YAML: {what} has no place in text; is this the right file?")


def _check_read_ahead(text: str, exc: yaml.MarkedYAMLError, builder: _Builder) -> None:
    # A parser reads up to 1,024 characters ahead of its events, since a bracket may begin a key,
    # and there the libyaml of PyYAML 6.0.4 gives up in words of its own at 1,000 brackets.
    # What is wrong first is told first, whatever a parser stumbled over behind it.
    mark = exc.problem_mark or exc.context_mark
    if mark is None:
        return
    begin = max(builder.end, mark.index - _READ_AHEAD)
    line = text.count("\n", 0, begin) + 1
    depth = builder.depth - 1  # a bracket of ours goes first: then all is read as within some
    try:
        for token in yaml.scan("[" + text[begin : mark.index], Loader=yaml.SafeLoader):
            depth += isinstance(token, _OPENING)
            depth -= isinstance(token, _CLOSING)
            if depth > DEEPEST:
                raise _too_deep(line + token.start_mark.line)
    except yaml.YAMLError:
        return


def _too_deep(line: int) -> DocumentError:
    return DocumentError(line, f"nested deeper than {DEEPEST} levels; is this the right file?")


def _syntax_error(text: str, exc: yaml.MarkedYAMLError) -> DocumentError:
    mark = exc.problem_mark or exc.context_mark
    line = _line(exc)
    if mark and _rest(text, mark.line, mark.column).startswith("\t"):
        return DocumentError(line, "not YAML: a tab where only spaces may indent; use spaces")
    problem = re.sub("'([^']*)'", _harmless, exc.problem or "it cannot be read")
    return DocumentError(
        line, f"not YAML: {problem}; check the indentation, and quote special characters"
    )


def _harmless(quote: re.Match[str]) -> str:
    # It may be a piece of a password that needed quotes itself; a single character
    # or the name of a token ('<scalar>') tells nothing.
    tells_nothing = len(quote[1]) <= len("\\t") or quote[1].startswith("<")
    return quote[0] if tells_nothing else "'…'"


def _rest(text: str, line: int, column: int) -> str:
    lines = text.split("\n")
    return lines[line][column:] if line < len(lines) else ""


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    line: int
    anchor: str | None
    is_list: bool
    nodes: list[Node] = field(default_factory=list)

    def close(self) -> Node:
        size = 1 + sum(node.size for node in self.nodes)
        if self.is_list:
            return Items(self.line, tuple(self.nodes), size)
        pairs = zip(self.nodes[::2], self.nodes[1::2], strict=True)
        return Pairs(self.line, tuple(pairs), size)


class _Builder:
    """Puts events together; holds the bounds."""

    def __init__(self, joined: _Joined | None = None) -> None:
        self.root: Node | None = None
        self._joined = joined
        self.end = 0  # in the text, of the last event
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._size = 0

    @property
    def depth(self) -> int:
        """Collections that are open."""
        return len(self._open)

    def take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        self.end = event.end_mark.index
        if isinstance(event, yaml.AliasEvent):
            self._add(self._aliased(event.anchor, line), line)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event.tag, line)
            self._check_escapes(event, line)
            self._finish(_scalar(event, line), event.anchor, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_tag(event.tag, line)
            self._begin(_Open(line, event.anchor, isinstance(event, yaml.SequenceStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            self._size -= sum(node.size for node in closed.nodes)  # counted again as one
            self._finish(closed.close(), closed.anchor, line)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise DocumentError(line, "a second document begins here; a configuration is one")

    def _aliased(self, anchor: str | None, line: int) -> Node:
        # A collection's anchor is known from its end on, so none can hold itself.
        node = self._anchors.get(anchor or "")
        if node is None:
            raise DocumentError(
                line, "an alias (*) without its anchor before it; quote a text that begins with *"
            )
        return node

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag not in _PLAIN_TAGS:
            raise DocumentError(line, "a YAML tag (!) is not accepted; quote a text that begins so")

    def _check_escapes(self, event: Any, line: int) -> None:
        # Elsewhere the same characters are no escapes, and have been changed all the same.
        joined = self._joined
        if (
            joined
            and event.style != '"'
            and joined.within(event.start_mark.index, event.end_mark.index)
        ):
            raise _half(line)

    def _begin(self, collection: _Open) -> None:
        if self.depth >= DEEPEST:
            raise _too_deep(collection.line)
        self._open.append(collection)

    def _finish(self, node: Node, anchor: str | None, line: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        self._add(node, line)

    def _add(self, node: Node, line: int) -> None:
        self._size += node.size
        if self._size > MOST_NODES:
            raise DocumentError(
                line, f"more than {MOST_NODES:,} values, aliases counted as what they stand for"
            )
        if self._open:
            self._open[-1].nodes.append(node)
        else:
            self.root = node


def _scalar(event: yaml.ScalarEvent, line: int) -> Scalar:
    text = _whole(event.value)  # the Python parser leaves halves as they are
    if text is None:
        raise _half(line)
    if not event.implicit[0]:  # quoted, or tagged as text
        return Scalar(line, text)
    tag = _RESOLVER.resolve(yaml.ScalarNode, event.value, (True, False))
    return Scalar(line, event.value, _KINDS.get(tag, "text"))


def _is_half(text: str, at: int) -> bool:
    r"""Whether a parser that gave up at this place, behind a ``\u``, did so over half a character."""
    return _HALF.match(text, max(0, at - 2)) is not None


class _Joined:
    r"""A text with each pair of escapes in YAML's form, and where these are in it."""

    def __init__(self, text: str) -> None:
        self._ends: list[int] = []
        self.text = _PAIR.sub(self._join, text)

    def _join(self, pair: re.Match[str]) -> str:
        before, high, low = pair.groups()
        whole = bytes.fromhex(high + low).decode("utf-16-be")
        self._ends.append(pair.end() - _SHORTER * (1 + len(self._ends)))
        return f"{before}\\U{ord(whole):08X}"

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._ends)

    def within(self, begin: int, end: int) -> bool:
        """Whether one of them is in this part of the text."""
        return bisect(self._ends, begin) < bisect(self._ends, end)


def _whole(value: str) -> str | None:
    """``value`` with its surrogates put together; None where one has no other half."""
    if value.isascii():
        return value
    try:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return None
