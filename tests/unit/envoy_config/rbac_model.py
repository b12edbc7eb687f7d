"""What Envoy makes of the printed rules: its RBAC filter, as far as they use it, in Python.

tests/integration/test_envoy_config.py holds a table of requests against the real one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vaultauthz.envoy_config.rbac import Filters

_ABSENT = object()


@dataclass(frozen=True)
class Sent:
    """A request: the names in the caller's certificate, and its token's claims."""

    method: str = "GET"
    path: str = "/"
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    subject: str | None = None  # None: no TLS
    claims: Mapping[str, Any] | None = None  # None: no token
    headers: tuple[tuple[str, str], ...] = ()  # in lower case; may be several of a name

    @property
    def principal(self) -> str:
        """What the ext_authz filter would tell: the first name."""
        return next(iter((*self.uris[:1], *self.dns[:1])), self.subject or "")

    @property
    def connection(self) -> Mapping[str, str]:
        """CEL's attributes of the connection; those that there are."""
        named = {"uri_san_peer_certificate": self.uris, "dns_san_peer_certificate": self.dns}
        found = {name: values[0] for name, values in named.items() if values}
        subject = {"subject_peer_certificate": self.subject} if self.subject is not None else {}
        return {**found, **subject}


class MissingError(Exception):
    """CEL's error for an attribute that is not there."""


def passes(filters: Filters, sent: Sent) -> bool:
    """Whether both filters let it through."""
    if any(_policy(policy, sent) for policy in filters.deny.values()):
        return False
    if filters.allow is None:
        return True
    allowing = (filters.allow, *filters.again.values())
    return all(any(_policy(p, sent) for p in policies.values()) for policies in allowing)


def _policy(policy: Mapping[str, Any], sent: Sent) -> bool:
    return (
        any(_matches(rule, sent) for rule in policy["permissions"])
        and any(_matches(rule, sent) for rule in policy["principals"])
        and ("condition" not in policy or _holds(policy["condition"], sent))
    )


def _matches(rule: Mapping[str, Any], sent: Sent) -> bool:
    ((kind, what),) = rule.items()
    judge: dict[str, Callable[[], bool]] = {
        "any": lambda: bool(what),
        "and_rules": lambda: all(_matches(one, sent) for one in what["rules"]),
        "or_rules": lambda: any(_matches(one, sent) for one in what["rules"]),
        "and_ids": lambda: all(_matches(one, sent) for one in what["ids"]),
        "or_ids": lambda: any(_matches(one, sent) for one in what["ids"]),
        "not_rule": lambda: not _matches(what, sent),
        "not_id": lambda: not _matches(what, sent),
        "header": lambda: _header(what, sent),
        "url_path": lambda: (
            bool(sent.path) and _text(what["path"], re.split("[?#]", sent.path, maxsplit=1)[0])
        ),
        "sourced_metadata": lambda: _metadata(what["metadata_matcher"], sent),
    }
    return judge[kind]()


def _header(matcher: Mapping[str, Any], sent: Sent) -> bool:
    path = ((":path", sent.path),) if sent.path else ()  # CONNECT has none
    sent_all = ((":method", sent.method), *path, *sent.headers)
    values = [value for name, value in sent_all if name == matcher["name"]]
    if "present_match" in matcher:
        return bool(values) is matcher["present_match"]
    return any(_text(matcher["string_match"], value) for value in values)  # each for itself


def _text(matcher: Mapping[str, Any], text: str) -> bool:
    ((kind, wanted),) = matcher.items()
    match kind:
        case "exact":
            return bool(text == wanted)
        case "prefix":
            return text.startswith(wanted)
        case "safe_regex":
            return re.fullmatch(wanted["regex"], text) is not None
    raise AssertionError(kind)


def _metadata(matcher: Mapping[str, Any], sent: Sent) -> bool:
    value: Any = {} if sent.claims is None else {"jwt_payload": sent.claims}
    for key in matcher["path"]:
        value = value.get(key["key"], _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return _value(matcher["value"], value)


def _value(matcher: Mapping[str, Any], value: Any) -> bool:
    ((kind, wanted),) = matcher.items()
    judge: dict[str, Callable[[], bool]] = {
        "present_match": lambda: (value is not _ABSENT) is wanted,
        "null_match": lambda: value is None,
        "bool_match": lambda: value is wanted,
        "double_match": lambda: _is_number(value) and bool(value == float(wanted["exact"])),
        "string_match": lambda: isinstance(value, str) and _text(wanted, value),
        "list_match": lambda: (
            isinstance(value, list) and any(_value(wanted["one_of"], item) for item in value)
        ),
        "or_match": lambda: any(_value(one, value) for one in wanted["value_matchers"]),
    }
    return judge[kind]()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _holds(condition: Mapping[str, Any], sent: Sent) -> bool:
    try:
        return _cel(condition, sent) is True
    except MissingError:
        return False


def _cel(expr: Mapping[str, Any], sent: Sent) -> Any:
    ((kind, what),) = expr.items()
    if kind == "const_expr":
        return what["string_value"]
    if kind == "select_expr" and what["field"] == "headers":
        return sent.headers
    if kind == "select_expr":
        assert what["operand"] == {"ident_expr": {"name": "connection"}}
        if what.get("test_only"):
            return what["field"] in sent.connection
        if what["field"] not in sent.connection:
            raise MissingError
        return sent.connection[what["field"]]
    return _call(what, sent)


def _joined(headers: tuple[tuple[str, str], ...], name: str) -> str:
    values = [value for each, value in headers if each == name]
    if not values:
        raise MissingError
    return ",".join(values)


def _call(call: Mapping[str, Any], sent: Sent) -> Any:
    args = call["args"]
    match call["function"]:
        case "_?_:_":
            return _cel(args[1] if _cel(args[0], sent) else args[2], sent)
        case "_==_" | "_!=_" as function:
            same = _cel(args[0], sent) == _cel(args[1], sent)
            return same is (function == "_==_")
        case "startsWith":
            return _cel(call["target"], sent).startswith(_cel(args[0], sent))
        case "!_":
            return _cel(args[0], sent) is False
        case "_[_]":  # all copies of a header in one
            return _joined(_cel(args[0], sent), _cel(args[1], sent))
        case "matches":
            pattern = _cel(args[1], sent).replace(r"\z", r"\Z")  # RE2's name for it
            return re.search(pattern, _cel(args[0], sent)) is not None
    raise AssertionError(call["function"])
