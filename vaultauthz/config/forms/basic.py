"""``basic``: a user name and a password in ``authorization``."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from vaultauthz.config import templates
from vaultauthz.config.forms import of_keys
from vaultauthz.core.injection import Injection, Mutation
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import InjectionError, Template, clean


@dataclass(frozen=True, slots=True)
class Basic(Injection):
    """``authorization: Basic base64(username:password)`` (RFC 7617, UTF-8)."""

    form: ClassVar = "basic"
    username: Template
    password: Template

    @property
    def header_names(self) -> tuple[str, ...]:
        return ("authorization",)

    @property
    def user_is_secret(self) -> bool:
        """As where an API key takes its place."""
        username = set(self.username.fields)
        return bool(username) and username >= set(self.password.fields)

    @property
    def shown(self) -> str:
        pair = f"{self.username.shown}:{self.password.shown}"
        return f"header authorization: Basic base64({pair})"

    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        # In base64 a blank is as good as any other character.
        username = clean(self.username.fill(fields), self.username.at("basic username"))
        password = clean(self.password.fill(fields), self.password.at("basic password"))
        if ":" in username:
            raise InjectionError("the value for basic username holds a colon, which ends the name")
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        return Mutation(headers=(("authorization", f"Basic {pair}"),))


FORM: Final = of_keys(
    Basic,
    "Authorization: Basic …",
    # A user name without a field in it is common; a password would be a secret in the file.
    templates.field("username", templates.ANY_TEXT),
    templates.field("password"),
)
