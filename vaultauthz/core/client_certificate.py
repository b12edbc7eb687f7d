"""A certificate by which the gateway shows an upstream who it is (mutual TLS)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vaultauthz.core.field_value import InjectionError
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template

_CERTIFICATE = Template.parse("{certificate}")
_PRIVATE_KEY = Template.parse("{private_key}")
_CHAIN = Template.parse("{ca_chain}")
_TEXT = re.compile(r"[\t\r\n\x20-\x7e]+")
_BEGINS_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_BEGINS_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM texts for the gateway's side of mutual TLS, which Envoy gets by SDS.

    The defaults are what the PKI engine answers. ``chain``, the certificates between ours
    and the authority, is None for the field ``ca_chain`` where the secret has one.
    """

    certificate: Template = _CERTIFICATE
    private_key: Template = _PRIVATE_KEY
    chain: Template | None = None

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields of the secret that it cannot do without."""
        chain = self.chain.fields if self.chain else ()
        return (*self.certificate.fields, *self.private_key.fields, *chain)

    def filled(self, fields: Mapping[str, Secret]) -> tuple[str, str]:
        """The certificate with its chain, and the private key.

        Raises:
            MissingFieldError: a field that is named is not there.
            InjectionError: one of them is no PEM text.
        """
        own = _pem(self.certificate.fill(fields), "certificate")
        if not own.startswith(_BEGINS_CERTIFICATE):
            raise InjectionError("the value for tls certificate does not begin as one in PEM")
        key = _pem(self.private_key.fill(fields), "private_key")
        if not _BEGINS_KEY.match(key):
            raise InjectionError("the value for tls private_key does not begin as one in PEM")
        return own + self._chained(fields), key

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
