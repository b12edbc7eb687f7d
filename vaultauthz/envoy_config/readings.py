"""What servers may read in a path, as regular expressions for Envoy.

``core.routing`` and ``broker`` decide on a path by decoding it; Envoy's RBAC filter has
regular expressions only. These say the same of every path that Envoy lets through under
``normalize_path`` and ``path_with_escaped_slashes_action: REJECT_REQUEST``: one of
printable ASCII. The tests hold them against the originals.

RE2 and Python's ``re`` both read them. They match whole paths.
"""

from __future__ import annotations

import re
import string
from typing import Final

# What `AMBIGUOUS` leaves no encoding of.
_NEVER_CODED: Final = frozenset(string.ascii_letters + string.digits + "-._")
_SPECIAL: Final = frozenset(r"\.+*?()|[]{}^$")


def literal(text: str) -> str:
    """``text`` as a regular expression that matches it."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def _anywhere(pattern: str) -> str:
    return f"(?i).*(?:{pattern}).*"


_HEX: Final = "[0-9a-f]"
# A hexadecimal digit that is encoded twice. (One that is encoded once is "disguised".)
_TWICE: Final = "%25(?:3[0-9]|[46][1-6])"
_DOT: Final = r"(?:\.|%252e)"
_SLASH: Final = "(?:/|%252f)"
_SEGMENT_ENDS: Final = "(?:/|%252f|;|%(?:25)?(?:3b|3f|23))"

# Each names what it finds. Envoy denies a path that fits one of them, as `core.routing.ambiguous`
# does; and escaped slashes, which the gateway should have refused before.
AMBIGUOUS: Final = {
    "characters encoded without need": _anywhere(
        "%(?:2[de]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a]|c[01]|e0%[89]|f0%8)"
    ),
    "a slash, backslash or NUL in disguise": _anywhere(r"\\|%2f|%5c|%00|%255c|%2500"),
    "dot segments": f"(?i).*{_SLASH}{_DOT}{{1,2}}(?:{_SEGMENT_ENDS}.*)?",
    "what can be decoded three times": _anywhere(
        f"%2525{_HEX}{_HEX}|%(?:25){{0,2}}(?:{_TWICE}(?:{_HEX}|{_TWICE})|{_HEX}{_TWICE})"
    ),
}


def decoded_under(prefix: str) -> str:
    """Paths that a server reads as ``prefix`` or below it.

    One that decodes them, drops path parameters (``/admin;x``) and merges slashes, or does
    only some of that. For a ``plain`` prefix, and for paths that are not ``AMBIGUOUS``.
    """
    parameter = "(?:(?:;|%3[bB])[^/]*)?"
    between = f"{parameter}/(?:{parameter}/)*"
    segments = [_coded(segment) for segment in prefix.strip("/").split("/")]
    start = f"/(?:{parameter}/)*"
    if prefix == "/":
        return "/.*"
    end = f"{parameter}/.*" if prefix.endswith("/") else f"{parameter}(?:/.*)?"
    return start + between.join(segments) + end


def _coded(segment: str) -> str:
    """Each character as it is, or percent-encoded where that is no disguise."""
    return "".join(
        literal(char) if char in _NEVER_CODED else f"(?:{literal(char)}|{_escape(char)})"
        for char in segment
    )


def _escape(char: str) -> str:
    digits = f"{ord(char):02x}"
    either = (d if d.isdigit() else f"[{d}{d.upper()}]" for d in digits)
    return "%" + "".join(either)


def plain(prefix: str) -> bool:
    """Whether all readings of a path below ``prefix`` are below it."""
    return re.fullmatch(r"(?:/[!-$&-.0-:<-~]+)*/?", prefix) is not None
