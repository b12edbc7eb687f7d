"""Text with ``"{FIELD}"`` of the secret in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vaultauthz.config.document import Node, Pairs
from vaultauthz.config.keys import Key, Reader
from vaultauthz.config.kinds import TEXT
from vaultauthz.config.reader import Value
from vaultauthz.core.template import Template, TemplateError

QUOTE_HINT: Final = 'wants text, found a mapping; put it in quotes: "{FIELD}"'
FIELD_TEXT: Final = '"{FIELD}" is a field of the secret.'
_NOTHING: Final = Template(())
FIELD_HINT: Final = 'add "{FIELD}", a field of the secret'


def is_unquoted_field(node: Node) -> bool:
    """Whether it was meant as ``"{token}"``: without quotes that is a mapping in YAML."""
    return isinstance(node, Pairs) and all(item.kind == "nothing" for _, item in node.pairs)


def parse(value: Value) -> Template:
    """A template, also one without a field."""
    if is_unquoted_field(value.node):
        raise value.wrong(QUOTE_HINT)
    try:
        return Template.parse(value.text())
    except TemplateError:
        # The parser's own message shows the text, which may be a password.
        raise value.wrong(
            "has a { or } that encloses no field's name; write {{ and }} for the characters"
        ) from None


def read(value: Value) -> Template:
    """A template that ought to have a field; a warning where it has none."""
    template = parse(value)
    if not template.fields:
        value.warn('has no "{FIELD}" of the secret in it: is a secret in the configuration?')
    return template


def in_header(value: Value, how: Callable[[Value], Template] = read) -> Template:
    """The same for a header, which carries no blank at its edges (RFC 9110, 5.5)."""
    template = how(value)
    ends = (
        (template.parts[:1], slice(0, 1), "begins"),
        (template.parts[-1:], slice(-1, None), "ends"),
    )
    for parts, edge, does in ends:
        if any(not is_field and text[edge].isspace() for text, is_field in parts):
            raise value.wrong(f"{does} with a blank, which a header cannot carry there; remove it")
    return template


def _reader(how: Callable[[Value], Template]) -> Reader[Template]:
    return Reader(how, TEXT.schema, show=lambda t: t.written, stand_in=_NOTHING)


# What reads a template: any text, one with a field in it, and the same for a header.
ANY_TEXT: Final = _reader(parse)
WITH_FIELD: Final = _reader(read)
IN_HEADER: Final = _reader(in_header)


def field(name: str, reader: Reader[Template] = WITH_FIELD) -> Key:
    """A key that has to be there, for a template with a field in it."""
    return Key(name, reader, FIELD_TEXT, missing=FIELD_HINT)
