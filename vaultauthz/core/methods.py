"""Which method a request asks for, where servers may find more than one in it.

HTTP's methods are case-sensitive (RFC 9110, 9.1), yet many servers take ``delete`` for
DELETE. And frameworks let a header, or ``_method`` in a query or a form, take the place of
the method. A form is in the body, which nobody reads here.
"""

from __future__ import annotations

import re
from typing import Final

from vaultauthz.core.aliases import Sent, folded

# As Spring, Symfony, Rails, ASP.NET, Google's APIs and others call it.
OVERRIDES: Final = ("x-http-method", "x-http-method-override", "x-method-override")
TOKEN: Final = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TOKEN: Final = re.compile(TOKEN)
# Methods whose requests have a body only if they say so (RFC 9110, 8.6).
BODILESS: Final = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE"))


def _letters(word: str) -> str:
    """A word's letters in either case, each as it is or percent-encoded."""
    return "".join(f"(?:{c}|%{ord(c):02x}|%{ord(c.upper()):02x})" for c in word)


# A request target whose query has a parameter `_method`; PHP makes an underscore of what is no
# part of a name, leaves spaces in front away, and ends the name at a NUL. For Python's `re` and for RE2.
IN_QUERY: Final = (
    r"(?i)[^?]*\?(?:.*[&;])?(?:%20|\+)*(?:[_.+\[]|%5f|%2e|%20|%5b)"
    + _letters("method")
    + r"(?:(?:[=&;\[]|%5b|%00).*)?"
)
_IN_QUERY: Final = re.compile(IN_QUERY, re.DOTALL)


def readings(method: str, target: str, sent: Sent) -> tuple[str, ...] | None:
    """What else servers may take for the method; None where that cannot be said.

    ``target`` is the path with its query; ``sent`` are the ``OVERRIDES`` among the client's
    headers, None where they are not known.
    """
    if sent is None or not _TOKEN.fullmatch(method):
        return None
    if "?" in target and _IN_QUERY.fullmatch(target):
        return None
    if len({folded(name) for name, _ in sent}) < len(sent):
        return None  # servers differ in which copy counts
    found = {method.upper()}
    for _, value in sent:
        override = value.strip(" \t")
        if not override:
            continue
        if not _TOKEN.fullmatch(override):
            return None
        found.add(override.upper())
    found.discard(method)
    return tuple(found)
