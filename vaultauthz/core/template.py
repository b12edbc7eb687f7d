"""Text with ``{field}`` places that a secret's fields fill."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vaultauthz.core.field_value import not_blank
from vaultauthz.core.fields import told
from vaultauthz.core.outside import names
from vaultauthz.core.secret import Secret

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")


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
        raise MissingFieldError(name, told(fields))
    return not_blank(secret.reveal(), name)
