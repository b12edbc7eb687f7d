"""``inject`` and ``strip`` of an upstream: where its credential goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from vaultauthz.config import kong_logs, names, templates
from vaultauthz.config.document import Pairs
from vaultauthz.config.inject_signed import read_hmac, read_sigv4
from vaultauthz.config.inject_tls import read_tls
from vaultauthz.config.reader import Value, one_of
from vaultauthz.core.injection import (
    Basic,
    Bearer,
    Cookie,
    Header,
    Hmac,
    Injection,
    Query,
    SigV4,
    Tls,
    header_names,
)

NAMED_KEYS: Final = ("name", "value")
BASIC_KEYS: Final = ("password", "username")
BEARER_KEYS: Final = ("token",)


def read_inject(value: Value, *, accepted: Collection[str] = ()) -> tuple[Injection, ...]:
    """Every injection; no two of them fill the same place, and one at most signs.

    ``accepted`` are the keys of ``kong_logs`` that the upstream has.
    """
    if not value.items():
        raise value.wrong(f"sets nothing; add {one_of(tuple(FORMS))}")
    read = value.each(lambda item: (item, _read_injection(item)))
    found = [(item, injection) for item, injection in read if injection is not None]
    _refuse_same_place(found)
    _refuse_beside_signature(found)
    for item, injection in found:
        kong_logs.note(item, injection, accepted)
    return tuple(injection for _, injection in found)


def _read_injection(value: Value) -> Injection | None:
    table = value.table(tuple(FORMS), secretive=True)
    forms = list(table.entries)
    if len(forms) > 1:
        raise value.wrong(f"has {' and '.join(forms)} in one entry; begin each with its own -")
    if not forms:
        if table.complete:
            raise value.wrong(f"is empty; add {one_of(tuple(FORMS))}")
        return None  # its unknown form is noted already
    return FORMS[forms[0]](table.entries[forms[0]])


def _refuse_same_place(found: Sequence[tuple[Value, Injection]]) -> None:
    first: dict[str, Value] = {}
    for value, injection in found:
        for place in _places(injection):
            if place.endswith(" "):
                continue  # its name was refused
            if place in first:
                old = first[place]
                text = f"sets {place}, as line {old.line} ({old.key}) does; keep one of them"
                value.report.refused(value.wrong(text))
            first.setdefault(place, value)


def _places(injection: Injection) -> Sequence[str]:
    if isinstance(injection, Query):
        return (f"the query parameter {injection.name}",)
    if isinstance(injection, Cookie):
        return (f"the cookie {injection.name}",)
    if isinstance(injection, Tls):
        return ("the client certificate",)
    return [f"the header {name}" for name in header_names((injection,))]


def _refuse_beside_signature(found: Sequence[tuple[Value, Injection]]) -> None:
    signing = [value for value, injection in found if isinstance(injection, (SigV4, Hmac))]
    for value in signing[1:]:
        text = f"signs, as line {signing[0].line} ({signing[0].key}) does; keep one of them"
        value.report.refused(value.wrong(text))
    for value, injection in found if signing else ():
        if isinstance(injection, Query):
            # Envoy writes the whole query anew, in another order and spelling.
            text = "changes the query, which is signed; put the credential in a header"
            value.report.refused(value.wrong(text))


def _read_header(value: Value) -> Header:
    table = value.table(NAMED_KEYS, secretive=True)
    name = table.require("name", names.header_to_set, "", "add the header's name")
    return Header(name, templates.required(table, "value", templates.in_header))


def _read_bearer(value: Value) -> Bearer:
    if templates.is_unquoted_field(value.node):
        raise value.wrong(templates.QUOTE_HINT)
    if isinstance(value.node, Pairs):
        table = value.table(BEARER_KEYS, secretive=True)
        return Bearer(templates.required(table, "token", templates.in_header))
    return Bearer(templates.in_header(value))


def _read_basic(value: Value) -> Basic:
    table = value.table(BASIC_KEYS, secretive=True)
    # A user name without a field in it is common; a password would be a secret in the file.
    username = templates.required(table, "username", templates.parse)
    return Basic(username, templates.required(table, "password"))


def _read_query(value: Value) -> Query:
    table = value.table(NAMED_KEYS, secretive=True)
    name = table.require("name", Value.text, "", "add the parameter's name")
    return Query(name, templates.required(table, "value"))


def _read_cookie(value: Value) -> Cookie:
    table = value.table(NAMED_KEYS, secretive=True)
    name = table.require("name", names.token, "", "add the cookie's name")
    return Cookie(name, templates.required(table, "value"))


def read_strip(value: Value, *, inject: Sequence[Injection]) -> tuple[str, ...]:
    """The headers to drop, none of which ``inject`` sets."""
    taken = header_names(inject)
    return tuple(dict.fromkeys(value.each(lambda item: _stripped(item, taken))))


def _stripped(value: Value, taken: Sequence[str]) -> str:
    name = names.header(value)
    if name in taken:
        raise value.wrong(f"{name} is set by inject, which drops the client's already; remove it")
    return name


FORMS: Final[dict[str, Callable[[Value], Injection]]] = {
    "header": _read_header,
    "bearer": _read_bearer,
    "basic": _read_basic,
    "query": _read_query,
    "cookie": _read_cookie,
    "sigv4": read_sigv4,
    "hmac": read_hmac,
    "tls": read_tls,
}
