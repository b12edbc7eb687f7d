"""``inject`` of an upstream."""

from __future__ import annotations

from vaultauthz.config import inject as reader
from vaultauthz.config import inject_tls
from vaultauthz.config.schema.forms import Schema, closed, text
from vaultauthz.config.schema.signatures import hmac, sigv4

_FIELDS = '"{FIELD}" is a field of the secret.'


def injection() -> Schema:
    """One entry of ``inject``: one form."""
    return closed(
        reader.FORMS,
        {
            "header": _named("A header."),
            "bearer": _bearer(),
            "basic": _basic(),
            "query": _named("A parameter of the query, URL-encoded."),
            "cookie": _named("A cookie, beside the client's others."),
            "sigv4": sigv4(),
            "hmac": hmac(),
            "tls": _tls(),
        },
        "One place that the credential goes to.",
        minProperties=1,
        maxProperties=1,
    )


def _named(description: str) -> Schema:
    properties = {"name": text("Its name."), "value": text(_FIELDS)}
    return closed(reader.NAMED_KEYS, properties, description, required=reader.NAMED_KEYS)


def _bearer() -> Schema:
    token = text(_FIELDS)
    long = closed(reader.BEARER_KEYS, {"token": token}, "At length.", required=reader.BEARER_KEYS)
    return {"description": "Authorization: Bearer …", "anyOf": [token, long]}


def _basic() -> Schema:
    properties = {"username": text(_FIELDS), "password": text(_FIELDS)}
    description = "Authorization: Basic …"
    return closed(reader.BASIC_KEYS, properties, description, required=reader.BASIC_KEYS)


def _tls() -> Schema:
    properties = {
        "certificate": text(f'{_FIELDS} As the PKI engine: "{{certificate}}".'),
        "private_key": text(f'{_FIELDS} As the PKI engine: "{{private_key}}".'),
        "chain": text(f'{_FIELDS} "{{ca_chain}}" where the secret has it.'),
    }
    description = "A client certificate for mutual TLS with the upstream, which Envoy gets by SDS."
    return closed(inject_tls.TLS_KEYS, properties, description)
