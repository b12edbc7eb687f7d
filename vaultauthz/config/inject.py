"""``inject`` and ``strip`` of an upstream: where its credential goes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Final

from vaultauthz.config import forms, kinds, kong_logs
from vaultauthz.config.keys import Key, Schema
from vaultauthz.config.reader import Value, one_of
from vaultauthz.core.injection import Injection, header_names

# In the order in which people are told of them; others come after these.
_FIRST: Final = ("header", "bearer", "basic", "query", "cookie", "sigv4", "hmac", "tls")


def _found() -> Mapping[str, Key]:
    """What each file of ``config.forms`` says of its form, by the form's name."""
    modules = (import_module(f"{forms.__name__}.{m.name}") for m in iter_modules(forms.__path__))
    found: dict[str, Key] = {module.FORM.name: module.FORM for module in modules}
    order = (*(name for name in _FIRST if name in found), *sorted(found.keys() - set(_FIRST)))
    return MappingProxyType({name: found[name] for name in order})


FORMS: Final = _found()


# An entry of ``inject``: one form.
INJECTION: Final[Schema] = {
    "description": "One place that the credential goes to.",
    "type": "object",
    "properties": {name: form.schema() for name, form in FORMS.items()},
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}


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
    named = list(table.entries)
    if len(named) > 1:
        raise value.wrong(f"has {' and '.join(named)} in one entry; begin each with its own -")
    if not named:
        if table.complete:
            raise value.wrong(f"is empty; add {one_of(tuple(FORMS))}")
        return None  # its unknown form is noted already
    read: Injection = FORMS[named[0]].reader.read(table.entries[named[0]])
    return read


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


def _places(injection: Injection) -> Iterator[str]:
    yield from (f"the header {name}" for name in injection.header_names)
    yield from (f"the query parameter {name}" for name in injection.parameter_names)
    yield from (f"the cookie {name}" for name in injection.cookie_names)
    if injection.is_certificate:
        yield "the client certificate"


def _refuse_beside_signature(found: Sequence[tuple[Value, Injection]]) -> None:
    signing = [value for value, injection in found if injection.signature]
    for value in signing[1:]:
        text = f"signs, as line {signing[0].line} ({signing[0].key}) does; keep one of them"
        value.report.refused(value.wrong(text))
    for value, injection in found if signing else ():
        if injection.parameter_names:
            # Envoy writes the whole query anew, in another order and spelling.
            text = "changes the query, which is signed; put the credential in a header"
            value.report.refused(value.wrong(text))


def read_strip(value: Value, *, inject: Sequence[Injection]) -> tuple[str, ...]:
    """The headers to drop, none of which ``inject`` sets."""
    taken = header_names(inject)
    return tuple(dict.fromkeys(value.each(lambda item: _stripped(item, taken))))


def _stripped(value: Value, taken: Sequence[str]) -> str:
    name = kinds.header(value)
    if name in taken:
        raise value.wrong(f"{name} is set by inject, which drops the client's already; remove it")
    return name
