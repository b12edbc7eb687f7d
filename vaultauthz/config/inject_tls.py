"""``inject: tls`` of an upstream: a client certificate for mutual TLS, by SDS."""

from __future__ import annotations

from typing import Final

from vaultauthz.config import templates
from vaultauthz.config.reader import Value
from vaultauthz.core.client_certificate import Tls

TLS_KEYS: Final = ("certificate", "chain", "private_key")
USUAL: Final = Tls()


def read_tls(value: Value) -> Tls:
    """``tls: {}``: the fields are named as the PKI engine names them."""
    table = value.table(TLS_KEYS, secretive=True)
    return Tls(
        certificate=table.get("certificate", templates.parse, USUAL.certificate),
        private_key=table.get("private_key", templates.read, USUAL.private_key),
        chain=table.get("chain", templates.parse, None),
    )
