"""Conditions on the caller's certificate, and on headers, as Envoy's CEL wants them: parsed.

Envoy's own ``authenticated`` matcher looks for any of a certificate's names. What
vaultauthz is told by the ext_authz filter is one of them: the first URI, else the first DNS
name, else the subject. In CEL the same can be said. (CEL as text is not taken here by
Envoy 1.40.)
"""

from __future__ import annotations

from typing import Any, Final

from vaultauthz.core.callers import Pattern
from vaultauthz.envoy_config.readings import literal

# Envoy bounds the size of what a regular expression in CEL is compiled to.
MOST_OF_A_REGEX: Final = 200

Expr = dict[str, Any]


def caller_is(pattern: Pattern) -> Expr | None:
    """The caller's name fits ``pattern``; None where Envoy cannot say so."""
    start, star, rest = pattern.text.partition("*")
    if not star:
        return _call("_==_", _caller(), _text(start))
    if not rest.strip("*"):
        return _caller_starts_with(start)
    regex = ".*".join(literal(piece) for piece in pattern.text.split("*"))
    if len(regex) > MOST_OF_A_REGEX:
        return None
    return _call("matches", _caller(), _text(rf"(?s)\A{regex}\z"))


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
