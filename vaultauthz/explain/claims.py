"""A token's claims as JSON, read as they arrive with a request: in a protobuf Struct.

What Envoy makes of a token goes through google.protobuf.Struct. All its numbers are doubles,
its texts are Unicode, and it has no place for what is neither.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

_WANTED: Final = 'a JSON object, as in \'{"sub": "ann", "scope": "pay"}\''


class UsageError(Exception):
    """The arguments describe no request; the message says what is wrong with them."""


def read_claims(text: str) -> Mapping[str, Any]:
    """The claims of one token.

    Raises:
        UsageError: it is no JSON object, or one that no token brings to a check.
    """
    try:
        claims = json.loads(
            text,
            parse_int=_double,
            parse_float=_double,
            parse_constant=_no_json,
            object_pairs_hook=_object,
        )
        _unicode(claims)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise UsageError(f"--claims wants {_WANTED}")
    return claims


def _double(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise UsageError(f"--claims: {digits[:40]} is beyond any number that a token can have")
    return number


def _no_json(word: str) -> NoReturn:
    raise UsageError(f"--claims: {word} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    claims = dict(pairs)
    if len(claims) < len(pairs):
        raise UsageError("--claims: a name stands there twice, and tokens differ in which counts")
    return claims


def _unicode(value: Any) -> None:
    """Raise UnicodeEncodeError for half a surrogate pair, which UTF-8 has no bytes for."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _unicode(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _unicode(name)
            _unicode(item)
