"""Conditions on the caller's certificate, and on headers, as Envoy's CEL wants them: parsed.

Envoy's own ``authenticated`` matcher looks for any of a certificate's names. What
vaultauthz is told by the ext_authz filter is one of them: the first URI, else the first DNS
name, else the subject. In CEL the same can be said. (CEL as text is not taken here by
Envoy 1.40.)
"""

from __future__ import annotations

import re
from typing import Any, Final

from vaultauthz.core.callers import Pattern
from vaultauthz.envoy_config.readings import literal

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
