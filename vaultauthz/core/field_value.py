"""What may stand in a header, a query or a cookie."""

from __future__ import annotations

import re

# What RFC 9110 keeps out of a field value, tab excepted: a CR or LF would let a
# secret's writer add headers of their own. And what UTF-8 has no bytes for.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


class InjectionError(ValueError):
    """The secret cannot be put on a request. Names the place, never the value."""


def clean(value: str, place: str) -> str:
    """``value``, which goes to ``place``.

    Raises:
        InjectionError: it holds a control character.
    """
    bad = _CONTROL.search(value)
    if bad:
        end = " (at its very end: a stray newline?)" if bad.end() == len(value) else ""
        raise InjectionError(
            f"the value for {place} holds the control character "
            f"0x{ord(bad.group()):02x}{end}, which a request cannot carry"
        )
    return value
