"""Regular expressions and CEL, as Envoy is to match paths, headers and callers by.

``core.routing`` and ``broker`` decide on a path by decoding it; Envoy's RBAC filter has
regular expressions only. These say the same of every path that Envoy lets through under
``normalize_path`` and ``path_with_escaped_slashes_action: REJECT_REQUEST``: one of
printable ASCII. The tests hold them against the originals. RE2 and Python's ``re`` both read
them. They match whole paths.

Conditions on the caller's certificate, and on headers, are CEL, parsed as Envoy (1.40) wants it.
Envoy's own ``authenticated`` matcher looks for any of a certificate's names. What
vaultauthz is told by the ext_authz filter is one of them: the first URI, else the first DNS
name, else the subject. In CEL the same can be said.
"""

from __future__ import annotations

import re
from typing import Any, Final

from vaultauthz.core.callers import Pattern

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
    regular expression does not tell which. For a ``has_one_reading`` prefix, and for paths that are not
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


def has_one_reading(prefix: str) -> bool:
    """Whether all readings of a path below ``prefix`` are below it."""
    return re.fullmatch(r"(?:/[!-$&-.0-:<-~]*[!-$&-\-0-:<-~])*/?", prefix) is not None


# Envoy (1.40) refuses a regular expression in CEL that compiles to more than 100 instructions,
# whatever re2.max_program_size says. Plain text at its start costs none, each byte after that one,
# and each ".*" seven; a few are spent anyway.
MOST_OF_A_REGEX: Final = 96
_STAR: Final = 7
_NOT_PLAIN: Final = re.compile("[*\x80-\U0010ffff]")

Expr = dict[str, Any]


def caller_is(pattern: Pattern, *, widely: bool = False) -> Expr | None:
    """The caller's name fits ``pattern``; None where Envoy cannot say so.

    ``widely``: in any case of ASCII letters.
    """
    start, star, rest = pattern.text.partition("*")
    only_start = bool(star) and not rest.strip("*")
    if widely and start:
        return _caller_matches(f"{start}*" if only_start else pattern.text, "(?is)")
    if not star:
        return _call("_==_", _caller(), _text(start))
    if only_start:
        return _caller_starts_with(start)
    return _caller_matches(pattern.text, "(?is)" if widely else "(?s)")


def _caller_matches(text: str, flags: str) -> Expr | None:
    if _cost(text) > MOST_OF_A_REGEX:
        return None
    regex = ".*".join(map(_in_any_case if "i" in flags else literal, text.split("*")))
    return _call("matches", _caller(), _text(rf"{flags}\A{regex}\z"))


def _cost(text: str) -> int:
    found = _NOT_PLAIN.search(text)
    costly = text[found.start() :] if found else ""
    return len(costly.encode()) + (_STAR - 1) * costly.count("*")


def _in_any_case(text: str) -> str:
    """For after ``(?i)``, which knows more than ASCII: U+017F is an s for it, U+212A a k."""
    regex = re.sub("[KkSs]", lambda c: f"(?-i:[{c[0].upper()}{c[0].lower()}])", literal(text))
    return re.sub("[^\x00-\x7f]+", r"(?-i:\g<0>)", regex)


def not_one(header: str, regex: str) -> Expr:
    """The header is there and is not what the expression matches, or empty, or several times."""
    headers = {"select_expr": {"operand": {"ident_expr": {"name": "request"}}, "field": "headers"}}
    value = _call("_[_]", headers, _text(header))
    return _call("!_", _call("matches", value, _text(rf"\A(?:{regex})?\z")))


def _caller_starts_with(start: str) -> Expr:
    if not start:
        return _call("_!=_", _caller(), _text(""))  # whoever it is, but not nobody
    return {"call_expr": {"target": _caller(), "function": "startsWith", "args": [_text(start)]}}


def _caller() -> Expr:
    uri, dns = "uri_san_peer_certificate", "dns_san_peer_certificate"
    subject = _of_connection("subject_peer_certificate")
    dns_or_subject = _call("_?_:_", _has(dns), _of_connection(dns), subject)
    return _call("_?_:_", _has(uri), _of_connection(uri), dns_or_subject)


def _of_connection(field: str) -> Expr:
    return {"select_expr": {"operand": {"ident_expr": {"name": "connection"}}, "field": field}}


def _has(field: str) -> Expr:
    return {"select_expr": {**_of_connection(field)["select_expr"], "test_only": True}}


def _call(function: str, *args: Expr) -> Expr:
    return {"call_expr": {"function": function, "args": list(args)}}


def _text(value: str) -> Expr:
    return {"const_expr": {"string_value": value}}
