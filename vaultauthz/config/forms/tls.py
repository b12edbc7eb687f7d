"""``tls``: a certificate by which the gateway shows the upstream who it is (mutual TLS)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from vaultauthz.config import templates
from vaultauthz.config.forms import of_keys
from vaultauthz.config.keys import Key
from vaultauthz.core.injection import Injection, Mutation
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import InjectionError, Template

_CERTIFICATE: Final = Template.parse("{certificate}")
_PRIVATE_KEY: Final = Template.parse("{private_key}")
_CHAIN: Final = Template.parse("{ca_chain}")
_TEXT: Final = re.compile(r"[\t\r\n\x20-\x7e]+")
_BEGINS_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
_BEGINS_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


@dataclass(frozen=True, slots=True)
class ClientCertificate(Injection):
    """PEM texts for the gateway's side of mutual TLS, which Envoy gets by SDS.

    The defaults are what the PKI engine answers. ``chain``, the certificates between ours
    and the authority, is None for the field ``ca_chain`` where the secret has one.
    """

    form: ClassVar = "tls"
    is_certificate: ClassVar = True
    certificate: Template = _CERTIFICATE
    private_key: Template = _PRIVATE_KEY
    chain: Template | None = None

    @property
    def used_fields(self) -> tuple[str, ...]:
        """Not those of a chain.

        An authority's certificate may have ended where another path to the same authority
        has not, and that is the other side's to judge.
        """
        return (*self.certificate.fields, *self.private_key.fields)

    @property
    def shown(self) -> str:
        return "client certificate: by SDS, not for each request"

    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        own = _pem(self.certificate.fill(fields), "certificate")
        if not own.startswith(_BEGINS_CERTIFICATE):
            raise InjectionError("the value for tls certificate does not begin as one in PEM")
        key = _pem(self.private_key.fill(fields), "private_key")
        if not _BEGINS_KEY.match(key):
            raise InjectionError("the value for tls private_key does not begin as one in PEM")
        return Mutation(tls=(own + self._chained(fields), key))

    def _chained(self, fields: Mapping[str, Secret]) -> str:
        template = self.chain or (_CHAIN if "ca_chain" in fields else None)
        if template is None or _is_blank(template, fields):
            return ""  # the authority itself has signed it
        return _pem(template.fill(fields), "chain")


def _is_blank(template: Template, fields: Mapping[str, Secret]) -> bool:
    """Whether it is nothing but fields that are there and without anything in them."""
    return all(
        named and name in fields and not fields[name].reveal().strip()
        for name, named in template.parts
    )


def _pem(text: str, place: str) -> str:
    """The text with one newline at its end."""
    if not _TEXT.fullmatch(text):
        raise InjectionError(f"the value for tls {place} holds a character that PEM has not")
    return text.strip() + "\n"


FORM: Final = of_keys(
    ClientCertificate,
    "A client certificate for mutual TLS with the upstream, which Envoy gets by SDS.",
    Key("certificate", templates.ANY_TEXT, templates.FIELD_TEXT),
    Key("private_key", templates.WITH_FIELD, templates.FIELD_TEXT),
    Key("chain", templates.ANY_TEXT, templates.FIELD_TEXT, otherwise="{ca_chain}, if there is one"),
)
