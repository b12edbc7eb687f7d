"""``cookie``: a cookie beside the client's others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from vaultauthz.config import kinds, templates
from vaultauthz.config.forms import of_keys
from vaultauthz.config.keys import Key
from vaultauthz.config.kinds import TEXT
from vaultauthz.core.injection import Injection, Mutation
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import InjectionError, Template, clean

_UNFIT: Final = re.compile(r'[\s",;\\]')


@dataclass(frozen=True, slots=True)
class Cookie(Injection):
    """``cookie: name=value`` beside the client's other cookies."""

    form: ClassVar = "cookie"
    name: str
    value: Template

    @property
    def cookie_names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def shown(self) -> str:
        return f"cookie {self.name}={self.value.shown}"

    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        value = clean(self.value.fill(fields), self.value.at(f"cookie {self.name}"))
        if _UNFIT.search(value) or not value.isascii():
            raise InjectionError(
                f"the value for cookie {self.name} holds a character that RFC 6265 keeps out"
            )
        return Mutation(cookies=((self.name, value),))


FORM: Final = of_keys(
    Cookie,
    "A cookie, beside the client's others.",
    Key("name", TEXT.by(kinds.token), "Its name.", missing="add the cookie's name"),
    templates.field("value"),
)
