"""``sigv4`` and ``hmac`` of ``inject``."""

from __future__ import annotations

from collections.abc import Iterable

from vaultauthz.config import inject_signed as reader
from vaultauthz.config.schema.forms import Schema, choice, closed, many, text
from vaultauthz.core.signing.hmac_form import ALGORITHMS, ENCODINGS, KEY_ENCODINGS
from vaultauthz.core.signing.words import TIMESTAMPS

_HOST = text("The host that the upstream receives; default: the client's.")


def sigv4() -> Schema:
    """AWS Signature Version 4."""
    return closed(
        reader.SIGV4_KEYS,
        {
            "region": text("As in eu-central-1."),
            "service": text("The service's name in signatures, as in execute-api or s3."),
            "access_key": text('"{FIELD}" of the secret.', usual=reader.ACCESS_KEY),
            "secret_key": text('"{FIELD}" of the secret.', usual=reader.SECRET_KEY),
            "session_token": text(
                '"{FIELD}" of the secret; default: session_token or security_token, if there is one.'
            ),
            "body": {
                "description": "Whether it is signed; default: not for S3 and VPC Lattice.",
                "enum": list(reader.BODIES),
            },
            "host": _HOST,
        },
        "AWS Signature Version 4, computed for each request.",
        required=("region", "service"),
    )


def hmac() -> Schema:
    """A keyed hash over parts of the request."""
    return closed(
        reader.HMAC_KEYS,
        {
            "key": text('"{FIELD}" of the secret.'),
            "key_encoding": _first(KEY_ENCODINGS, "How the key is written in the secret."),
            "algorithm": _first(ALGORITHMS, "The hash."),
            "sign": many(text("Words and fields in braces."), "What is signed, in order.", least=1),
            "separator": {
                "description": "Between the parts of sign.",
                "type": "string",
                "maxLength": 16,
                "default": "\n",
            },
            "encoding": _first(ENCODINGS, "How {signature} is written."),
            "timestamp": _first(TIMESTAMPS, "How {timestamp} is written."),
            "headers": {
                "description": "Each header that is set; one has {signature} in it.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": text("Words and fields in braces."),
            },
            "host": _HOST,
        },
        "A keyed hash over parts of each request.",
        required=("key", "sign", "headers"),
    )


def _first(words: Iterable[str], description: str) -> Schema:
    allowed = tuple(words)
    return choice(allowed, description, usual=allowed[0])
