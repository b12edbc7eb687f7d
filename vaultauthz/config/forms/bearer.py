"""``bearer``: a token in ``authorization``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from vaultauthz.config import templates
from vaultauthz.config.document import Pairs
from vaultauthz.config.keys import Key, Reader, Section
from vaultauthz.config.reader import Value
from vaultauthz.core.injection import Injection, Mutation
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template, header_value


@dataclass(frozen=True, slots=True)
class Bearer(Injection):
    """``authorization: Bearer <token>`` (RFC 6750)."""

    form: ClassVar = "bearer"
    token: Template

    @property
    def header_names(self) -> tuple[str, ...]:
        return ("authorization",)

    @property
    def shown(self) -> str:
        return f"header authorization: Bearer {self.token.shown}"

    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        token = header_value(self.token.fill(fields), self.token.at("bearer token"))
        return Mutation(headers=(("authorization", f"Bearer {token}"),))


_AT_LENGTH: Final = Section(
    Bearer, "At length.", templates.field("token", templates.IN_HEADER), secretive=True
)


def _read(value: Value) -> Bearer:
    if isinstance(value.node, Pairs) and not templates.is_unquoted_field(value.node):
        return _AT_LENGTH.read(value)
    return Bearer(templates.in_header(value))


FORM: Final = Key(
    Bearer.form,
    Reader(_read, {"anyOf": [_AT_LENGTH.keys["token"].schema(), _AT_LENGTH.schema()]}),
    "Authorization: Bearer …",
)
