"""``inject`` and ``strip`` of an upstream: where its credential goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from vaultauthz.config import later, names
from vaultauthz.config.document import Node, Pairs
from vaultauthz.config.reader import Table, Value, one_of
from vaultauthz.core.injection import Basic, Bearer, Cookie, Header, Injection, Query, header_names
from vaultauthz.core.template import Template, TemplateError

NAMED_KEYS: Final = ("name", "value")
BASIC_KEYS: Final = ("password", "username")
BEARER_KEYS: Final = ("token",)
_NOTHING = Template(())


def read_inject(value: Value) -> tuple[Injection, ...]:
    """Every injection; no two of them fill the same place."""
    if not value.items():
        raise value.wrong(f"sets nothing; add {one_of(tuple(FORMS))}")
    read = value.each(lambda item: (item, _read_injection(item)))
    found = [(item, injection) for item, injection in read if injection is not None]
    _refuse_same_place(found)
    return tuple(injection for _, injection in found)


def _read_injection(value: Value) -> Injection | None:
    table = value.table(tuple(FORMS), later.INJECT, secretive=True)
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
        place = _place(injection)
        if place.endswith(" "):
            continue  # its name was refused
        if place in first:
            earlier = first[place]
            text = f"sets {place}, as line {earlier.line} ({earlier.key}) does; keep one of them"
            value.report.refused(value.wrong(text))
        first.setdefault(place, value)


def _place(injection: Injection) -> str:
    if isinstance(injection, Query):
        return f"the query parameter {injection.name}"
    if isinstance(injection, Cookie):
        return f"the cookie {injection.name}"
    return f"the header {header_names((injection,))[0]}"


def _read_header(value: Value) -> Header:
    table = value.table(NAMED_KEYS, secretive=True)
    name = table.require("name", names.header, "", "add the header's name")
    if name == "cookie":
        raise table.entries["name"].wrong(
            "cookie as a header would drop the client's other cookies; use the cookie form"
        )
    return Header(name, _template(table, "value"))


def _read_bearer(value: Value) -> Bearer:
    if _is_unquoted_field(value.node):
        raise value.wrong(_QUOTE_HINT)
    if isinstance(value.node, Pairs):
        return Bearer(_template(value.table(BEARER_KEYS, secretive=True), "token"))
    return Bearer(_read_template(value))


def _is_unquoted_field(node: Node) -> bool:
    """Whether it was meant as ``"{token}"``: without quotes that is a mapping in YAML."""
    return isinstance(node, Pairs) and all(item.kind == "nothing" for _, item in node.pairs)


def _read_basic(value: Value) -> Basic:
    table = value.table(BASIC_KEYS, secretive=True)
    # A user name without a field in it is common; a password would be a secret in the file.
    username = table.require("username", _parse_template, _NOTHING, _FIELD_HINT)
    return Basic(username, _template(table, "password"))


def _read_query(value: Value) -> Query:
    table = value.table(NAMED_KEYS, secretive=True)
    name = table.require("name", Value.text, "", "add the parameter's name")
    return Query(name, _template(table, "value"))


def _read_cookie(value: Value) -> Cookie:
    table = value.table(NAMED_KEYS, secretive=True)
    name = table.require("name", names.token, "", "add the cookie's name")
    return Cookie(name, _template(table, "value"))


_QUOTE_HINT = 'wants text, found a mapping; put it in quotes: "{FIELD}"'
_FIELD_HINT = 'add "{FIELD}", a field of the secret'


def _template(table: Table, name: str) -> Template:
    return table.require(name, _read_template, _NOTHING, _FIELD_HINT)


def _read_template(value: Value) -> Template:
    template = _parse_template(value)
    if not template.fields:
        value.warn('has no "{FIELD}" of the secret in it: is a secret in the configuration?')
    return template


def _parse_template(value: Value) -> Template:
    if _is_unquoted_field(value.node):
        raise value.wrong(_QUOTE_HINT)
    try:
        return Template.parse(value.text())
    except TemplateError:
        # The parser's own message shows the text, which may be a password.
        raise value.wrong(
            "has a { or } that encloses no field's name; write {{ and }} for the characters"
        ) from None


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
}
