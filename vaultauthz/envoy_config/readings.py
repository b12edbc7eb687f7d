"""What servers may read in a path, as regular expressions for Envoy.

``core.routing`` and ``broker`` decide on a path by decoding it; Envoy's RBAC filter has
regular expressions only. These say the same of every path that Envoy lets through under
``normalize_path`` and ``path_with_escaped_slashes_action: REJECT_REQUEST``: one of
printable ASCII. The tests hold them against the originals.

RE2 and Python's ``re`` both read them. They match whole paths.
"""

from __future__ import annotations

import re
from typing import Final

_SPECIAL: Final = frozenset(r"\.+*?()|[]{}^$")


def literal(text: str) -> str:
    """``text`` as a regular expression that matches it."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def either(name: str) -> str:
    """A header's name in all its spellings, as a regular expression."""
    return "[-_]".join(literal(part) for part in name.replace("_", "-").split("-"))


def _anywhere(pattern: str) -> str:
    return f"(?i).*(?:{pattern}).*"


_HEX: Final = "[0-9a-f]"
_C: Final = "%(?:25)?"  # before a byte that is encoded once, or twice
# A hexadecimal digit that is encoded twice. (One that is encoded once is "disguised".)
_TWICE: Final = "%25(?:3[0-9]|[46][1-6])"
# Fullwidth forms, which a server may make ASCII of; this finds their like as well.
_WIDE: Final = f"ef(?:%{_HEX}+){{2}}"
_WIDE_DOT: Final = f"{_C}ef{_C}bc{_C}8e"
_WIDE_SLASH: Final = f"{_C}ef{_C}bc{_C}8f"
_WIDE_END: Final = f"{_C}ef{_C}bc{_C}(?:9b|9f|83)"  # ; ? #
# What servers may take off a segment's ends: controls and spaces, of Latin-1 too.
_BLANK: Final = f"{_C}(?:[0189]{_HEX}|20|7f|a0|c2{_C}(?:[89]{_HEX}|a0)|ef{_C}bf{_C}bd)"
_DOT: Final = rf"(?:\.|%252e|{_WIDE_DOT})"
_SLASH: Final = f"(?:/|%252f|{_WIDE_SLASH})"
_SEGMENT_ENDS: Final = f"(?:{_SLASH}|;|{_C}(?:3b|3f|23)|{_WIDE_END})"

# Each names what it finds. Envoy denies a path that fits one of them, as `core.routing.ambiguous`
# does; and escaped slashes, which the gateway should have refused before.
AMBIGUOUS: Final = {
    "no path": r"[^/*].*|\*.+|",
    "characters encoded without need": _anywhere(
        "%(?:2[de]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a]|c[01]|e0%[89]|f0%8)"
        f"|%25c[01]|{_C}e0{_C}[89]{_HEX}|{_C}f0{_C}8{_HEX}"
        f"|%(?:25){{0,2}}(?:u|%25[57]5)(?:{_HEX}|{_TWICE}){{4}}"
    ),
    "a slash, backslash or NUL in disguise": _anywhere(
        rf"\\|%2f|%5c|%00|%255c|%2500|{_C}ef{_C}bc{_C}bc"
    ),
    "dot segments": (
        f"(?i).*{_SLASH}(?:{_BLANK})*{_DOT}{{1,2}}(?:{_BLANK})*(?:{_SEGMENT_ENDS}.*)?"
    ),
    "what can be decoded three times": _anywhere(
        f"%2525{_HEX}{_HEX}|%(?:25){{0,2}}(?:{_TWICE}(?:{_HEX}|{_TWICE})|{_HEX}{_TWICE})"
    ),
}


def decoded_under(prefix: str) -> str:
    """Paths that a server may read as ``prefix`` or below it.

    One that decodes them, once or twice, drops path parameters (``/admin;x``) and what
    ``core.routing.bare_path`` takes off, merges slashes and knows no letter case, or does only
    some of that. A few more where a path is encoded twice or in fullwidth characters, as a
    regular expression does not tell which. For a ``plain`` prefix, and for paths that are not
    ``AMBIGUOUS``.
    """
    if prefix == "/":
        return "/.*"
    slash = f"(?:/|{_C}2f|{_WIDE_SLASH})"
    parameter = f"(?:(?:;|{_C}3b|{_WIDE_END})[^/]*)?"
    ending = rf"(?:\.|{_C}2e|{_BLANK}|{_WIDE_DOT})*"
    # A segment of nothing but what is dropped, and the slash after it.
    between = f"(?:{ending}{parameter}{slash})*(?:{_BLANK})*"
    start = f"(?i)/{between}"
    segments = [_coded(segment) for segment in prefix.strip("/").split("/")]
    whole = start + f"{ending}{parameter}{slash}{between}".join(segments)
    if prefix.endswith("/"):
        return f"{whole}{ending}{parameter}{slash}.*"
    return f"{whole}{ending}{parameter}(?:(?:{slash}|{_C}(?:3f|23)|{_WIDE_END}).*)?"


def _coded(segment: str) -> str:
    """Each character as it is, percent-encoded once or twice, or fullwidth."""
    return "".join(f"(?:{literal(char)}|{_C}(?:{_code(char)}|{_WIDE}))" for char in segment)


def _code(char: str) -> str:
    """The hexadecimal digits of a character, in either letter case."""
    codes = sorted({f"{ord(c):02x}" for c in (char.lower(), char.upper())})
    return "|".join(codes)


def plain(prefix: str) -> bool:
    """Whether all readings of a path below ``prefix`` are below it."""
    return re.fullmatch(r"(?:/[!-$&-.0-:<-~]*[!-$&-\-0-:<-~])*/?", prefix) is not None
