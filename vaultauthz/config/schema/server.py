"""``vault``."""

from __future__ import annotations

from vaultauthz.config import vault as reader
from vaultauthz.config.schema.forms import Schema, closed, duration, file, flag, text
from vaultauthz.config.values import Vault

_USUAL = Vault("")


def vault() -> Schema:
    """The section ``vault``."""
    return closed(
        reader.KEYS,
        {
            "address": _addresses(),
            "insecure": flag(
                "Allow http:// beyond this machine: logins and secrets travel in clear text."
            ),
            "namespace": text(
                "Of Vault Enterprise, HCP or OpenBao, as in platform/team; default: $VAULT_NAMESPACE."
            ),
            "tls": _tls(),
            "timeout": duration("Of one call to Vault.", reader.TIMEOUT, _USUAL.timeout),
            "calls_per_second": {
                "description": "Of each stage at most; default: no bound.",
                "type": ["number", "string"],
                "minimum": 0.1,
                "maximum": 1000,
                "pattern": r"^[0-9]{1,4}(\.[0-9]{1,3})?$",
            },
        },
        "The server.",
    )


def _addresses() -> Schema:
    one = {
        "description": "https://HOST:PORT, or unix:///PATH of an agent or proxy on this host.",
        "type": "string",
        "pattern": r"^\s*[A-Za-z]+://",
    }
    several = {
        "description": "Nodes of one cluster; the next is asked when one is away.",
        "type": "array",
        "items": one,
        "minItems": 1,
        "maxItems": reader.MOST_ADDRESSES,
        "uniqueItems": True,
    }
    return {"description": "Where Vault is; default: $VAULT_ADDR.", "anyOf": [one, several]}


def _tls() -> Schema:
    return closed(
        reader.TLS_KEYS,
        {
            "ca_cert": file("The authorities that sign Vault's certificate, in PEM."),
            "client_cert": file("Our certificate, in PEM."),
            "client_key": file("Its private key, in PEM."),
            "server_name": text("The name in Vault's certificate, where it is not the host's."),
            "x509_strict": flag(
                "Refuse certificates that lack what RFC 5280 demands, as Python does from 3.13 on."
            ),
        },
        "TLS towards Vault; default: the system's authorities.",
        dependentRequired={"client_cert": ["client_key"], "client_key": ["client_cert"]},
    )
