"""``callers`` and ``deny`` of an upstream."""

from __future__ import annotations

from vaultauthz.config import callers as reader
from vaultauthz.config.schema.forms import Schema, closed, many, text


def callers() -> Schema:
    """``callers``: anybody, or a list of rules."""
    listed = rules("Alternatives; one of them has to match.")
    return {
        "description": "Who may use the credential.",
        "anyOf": [{"const": reader.ANY}, {**listed, "minItems": 1}],
    }


def rules(description: str) -> Schema:
    """A list of rules."""
    rule = closed(
        reader.KEYS,
        {
            "principal": text("The client certificate's URI or DNS name; * is any text."),
            "claims": {
                "description": "Claims of one verified JWT; nested names with dots.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": ["string", "integer", "boolean"]},
            },
            "consumer": text("Kong's authenticated consumer; * is any text."),
            "group": text("A group of Kong's consumer."),
            "methods": many(text("An HTTP method."), "HTTP methods.", least=1),
            "path_prefix": text("The path or what is below it.", pattern="^/"),
        },
        "All keys have to match.",
        minProperties=1,
    )
    return many(rule, description)
