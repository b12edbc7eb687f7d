"""``header``: a header with any text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from vaultauthz.config import kinds, templates
from vaultauthz.config.forms import of_keys
from vaultauthz.config.keys import Key
from vaultauthz.config.kinds import TEXT
from vaultauthz.core.injection import Injection, Mutation
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template, header_value


@dataclass(frozen=True, slots=True)
class Header(Injection):
    """``name: value``. The name is kept in lower case, as HTTP/2 has it."""

    form: ClassVar = "header"
    name: str
    value: Template

    @property
    def headers_written(self) -> tuple[tuple[str, Template], ...]:
        return ((self.name, self.value),)

    @property
    def shown(self) -> str:
        return f"header {self.name}: {self.value.shown}"

    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        value = header_value(self.value.fill(fields), self.value.at(f"header {self.name}"))
        return Mutation(headers=((self.name, value),))


FORM: Final = of_keys(
    Header,
    "A header.",
    Key("name", TEXT.by(kinds.header_to_set), "Its name.", missing="add the header's name"),
    templates.field("value", templates.IN_HEADER),
)
