"""Text with ``{field}`` places that a secret's fields fill, and what may stand on a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vaultauthz.core.redaction import names
from vaultauthz.core.secret import Secret, shown_names

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")
# What RFC 9110 keeps out of a field value, tab excepted: a CR or LF would let a
# secret's writer add headers of their own. And what UTF-8 has no bytes for.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# Letters by their kind, and nothing to see: of Hangul, of Braille.
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800"


class InjectionError(ValueError):
    """The secret cannot be put on a request. Names the place, never the value.

    ``mend``: the way out, for the operator.
    """

    mend = "write it without that character (printf, not echo, leaves no newline)"


class BlankError(InjectionError):
    """The secret has a field without anything in it, which is no credential."""

    mend = "write the credential into it"


class TemplateError(ValueError):
    """The text is not a template; the message says where and why."""


class MissingFieldError(LookupError):
    """The secret lacks a field. ``field`` is its name, ``known`` what there is."""

    def __init__(self, field: str, known: tuple[str, ...]) -> None:
        self.field = field
        self.known = known
        super().__init__(
            f"the secret has no field {field!r}; it has: {names(known) or 'no fields'}"
        )


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal text and field names in turn."""

    parts: tuple[tuple[str, bool], ...]  # (text, is_field)

    @classmethod
    def parse(cls, text: str) -> Template:
        """Parse ``text``; ``{{`` and ``}}`` stand for single braces.

        Raises:
            TemplateError: a brace without its partner, or an empty name.
        """
        parts: list[tuple[str, bool]] = []
        for match in _PIECE.finditer(text):
            piece, name = match.group(0), match.group(1)
            if name is not None:
                if not _NAME.match(name):
                    raise TemplateError(f"{{{name}}} is not a field name")
                parts.append((name, True))
            elif piece in ("{{", "}}"):
                parts.append((piece[0], False))
            elif piece in ("{", "}"):
                raise TemplateError(
                    f"a single {piece!r} at character {match.start() + 1}; "
                    f"write {piece * 2!r} for the character itself"
                )
            else:
                parts.append((piece, False))
        return cls(tuple(parts))

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields it wants, in order, each once."""
        return tuple(dict.fromkeys(text for text, is_field in self.parts if is_field))

    @property
    def written(self) -> str:
        """The text that it was parsed from."""
        braces = {"{": "{{", "}": "}}"}
        return "".join(
            f"{{{text}}}" if is_field else "".join(braces.get(c, c) for c in text)
            for text, is_field in self.parts
        )

    @property
    def shown(self) -> str:
        """The names of its fields, for people; text around them may be a secret."""
        if not self.fields:
            return "(fixed text)"
        return "…".join(f"{{{name}}}" for name in self.fields)

    def at(self, place: str) -> str:
        """``place`` with the fields that go there, for a message."""
        names = self.fields
        return f"{place} (field {', '.join(names)})" if names else place

    def fill(self, fields: Mapping[str, Secret]) -> str:
        """The text with every field's value in its place.

        Raises:
            MissingFieldError: ``fields`` lacks one that the template names.
            BlankError: there is nothing in one of them.
        """
        return "".join(value_of(text, fields) if named else text for text, named in self.parts)


def value_of(name: str, fields: Mapping[str, Secret]) -> str:
    """The value of one field, which has to be there; see ``Template.fill``."""
    secret = fields.get(name)
    if secret is None:
        raise MissingFieldError(name, shown_names(fields))
    return not_blank(secret.reveal(), name)


def clean(value: str, place: str) -> str:
    """``value``, which goes to ``place``.

    Raises:
        InjectionError: it holds a control character.
    """
    bad = _CONTROL.search(value)
    if bad:
        end = " (at its very end: a stray newline?)" if bad.end() == len(value) else ""
        raise InjectionError(
            f"the value for {place} holds the control character "
            f"0x{ord(bad.group()):02x}{end}, which a request cannot carry"
        )
    return value


def header_value(value: str, place: str) -> str:
    """``value``, which is a header's, or its last part.

    Raises:
        InjectionError: it holds a control character, or a blank at an edge, which is no part
            of a header's value (RFC 9110, 5.5): the upstream would be sent another one.
    """
    clean(value, place)
    edges_fit(value, value, place)
    return value


def edges_fit(first: str, last: str, place: str) -> None:
    """See that a header's value may begin as ``first`` does and end as ``last`` does."""
    for edge, side in ((first[:1], "begins"), (last[-1:], "ends")):
        if edge.isspace():
            raise InjectionError(
                f"the value for {place} {side} with a blank (0x{ord(edge):02x}), "
                "which a header cannot carry there"
            )


def not_blank(value: str, field: str) -> str:
    """``value`` of the secret's ``field``.

    Raises:
        BlankError: there is nothing in it, or nothing that can be seen.
    """
    if not any(
        letter.isprintable() and not letter.isspace() and letter not in _FILLERS for letter in value
    ):
        raise BlankError(f"the secret's field {field!r} is {'blank' if value else 'empty'}")
    return value
