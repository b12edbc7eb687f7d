"""``query``: a parameter of the query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import quote_plus

from vaultauthz.config import templates
from vaultauthz.config.forms import of_keys
from vaultauthz.config.keys import Key
from vaultauthz.config.kinds import TEXT
from vaultauthz.core.injection import Injection, Mutation
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template, clean


@dataclass(frozen=True, slots=True)
class Query(Injection):
    """``?name=value``, URL-encoded; replaces every copy the client sent."""

    form: ClassVar = "query"
    name: str
    value: Template

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def shown(self) -> str:
        return f"query parameter {self.name}={self.value.shown}"

    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        value = clean(self.value.fill(fields), self.value.at(f"query {self.name}"))
        return Mutation(query=((quote_plus(self.name), quote_plus(value)),))


FORM: Final = of_keys(
    Query,
    "A parameter of the query, URL-encoded.",
    Key("name", TEXT, "Its name.", missing="add the parameter's name"),
    templates.field("value"),
)
