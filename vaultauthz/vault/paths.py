"""A path of Vault as a URL of its HTTP API has it."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

# What a segment may hold as it is (RFC 3986, 3.3), and the slashes between them.
_AS_IT_IS: Final = "/-._~:@!$&'()*+,;="


def url(path: str) -> str:
    """Where ``path`` is, which is what ``vault read`` takes: each character stands for itself.

    Vault decodes it once, so that a ``%`` is one, and not the beginning of an escape.
    """
    return "/v1/" + quote(path, safe=_AS_IT_IS)
