"""A section of the configuration as one table: reader, defaults, JSON Schema and documentation.

A ``Reader`` takes one value and says, as a JSON Schema, what it takes (``kinds`` has the usual
ones). A ``Key`` is a row: a name, its reader, and what it means. A ``Section`` is the table. It
reads a mapping into what ``make`` makes of it, a frozen dataclass as a rule; a key's default is
that of the field of its name, and a key whose field has none is required.

    AUDIT = Section(Audit, "One JSON object a line.", Key("file", FILE_TO_WRITE, "Where to write"))
    AUDIT.read(value)  # → Audit

What depends on more than the value itself is read by hand, around ``Section.open`` and ``build``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from vaultauthz.config.reader import Table, Value

T = TypeVar("T")
Schema = dict[str, Any]

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
ABSENT: Final[Any] = object()  # where there is no default
NOTHING: Final = (ABSENT, None, "", (), inf)  # defaults that nobody could write


@dataclass(frozen=True, slots=True)
class Reader(Generic[T]):
    """What takes one value: ``read`` raises ``Refused``, ``schema`` is what it takes.

    ``bounds`` end each text about it, ``note`` the schema's alone; ``show`` gives a default
    as it is written in the file, None for none; ``stand_in`` is for a required one that is
    missing or refused. The keys of a ``section`` are documented below its own.
    """

    read: Callable[[Value], T]
    schema: Mapping[str, Any]
    bounds: str = ""
    note: str = ""
    show: Callable[[Any], Any] = lambda default: default
    stand_in: Any = ""
    section: Section[Any] | None = None

    def about(self, text: str) -> Schema:
        """What one is that stands in a list, or in another's schema."""
        return {"description": text, **self.schema}

    def by(self, read: Callable[[Value], Any]) -> Reader[Any]:
        """The same to write, read by another function."""
        return replace(self, read=read)


@dataclass(frozen=True, slots=True)
class Key:
    """A row.

    ``text`` is the schema's sentence and the documentation's first; ``more`` goes on there, in
    Markdown. ``otherwise`` says in words what holds without the key, where no constant does.
    ``missing`` is the way out for who has left out a required one. ``default`` is for what is no
    field's, and read by hand; ``stand_in`` in place of a refused value, where that is not the default.
    """

    name: str
    reader: Reader[Any]
    text: str = ""
    more: str = ""
    otherwise: str = ""
    missing: str = ""
    default: Any = ABSENT
    stand_in: Any = ABSENT

    @property
    def required(self) -> bool:
        """Whether nothing at all stands in for it."""
        return self.default is ABSENT and not self.otherwise

    @property
    def written(self) -> Any:
        """The default as it would stand in the file; None where it is none, or told in words."""
        bare = self.otherwise or self.default in NOTHING
        return None if bare else self.reader.show(self.default)

    def schema(self) -> Schema:
        """What stands behind it."""
        words = [self._described(), self.reader.bounds, self.reader.note]
        text = " ".join(filter(None, words))
        described = {"description": text} if text else {}
        usual = {} if self.written is None else {"default": self.written}
        return {**self.reader.schema, **described, **usual}

    def _described(self) -> str:
        if not self.otherwise:
            return self.text
        text = f"{self.text.removesuffix('.')}; default: {self.otherwise}."
        return text if self.text else f"Default: {self.otherwise}."


@dataclass(frozen=True, slots=True)
class Condition:
    """What is between keys of one table: ``check`` notes or raises, ``schema`` says the same.

    It is checked before anything is read, or ``before`` the key of that name is.
    """

    schema: Mapping[str, Any]
    check: Callable[[Table], None] = lambda _: None
    before: str = ""


def not_both(one: str, other: str, way_out: str) -> Condition:
    """At most one of the two."""

    def check(table: Table) -> None:
        if one in table and other in table:
            raise table.place.wrong(f"has both {one} and {other}; {way_out}")

    return Condition({"not": {"required": [one, other]}}, check)


def one_of_two(one: str, other: str, missing: str) -> Condition:
    """One of the two and no more; ``missing`` is the way out where there is neither."""
    twice = not_both(one, other, "keep one")

    def check(table: Table) -> None:
        twice.check(table)
        if one not in table and other not in table:
            table.missing(one, missing)

    return Condition({"oneOf": [{"required": [one]}, {"required": [other]}]}, check)


def needs(one: str, other: str, why: str, *, before: str = "") -> Condition:
    """``one`` is nothing without ``other``."""

    def check(table: Table) -> None:
        if one in table and other not in table:
            table.missing(other, why)

    return Condition({"dependentRequired": {one: [other]}}, check, before)


def both(one: str, other: str) -> tuple[Condition, Condition]:
    """Neither without the other."""
    return needs(one, other, f"{one} needs it"), needs(other, one, f"{other} needs it")


class Section(Generic[T]):
    """A table of keys, of which the dataclass ``make`` is made.

    ``conditions`` are checked in order. ``refused`` and ``secretive`` are those of ``Value.table``.
    """

    def __init__(
        self,
        make: type[T],
        text: str,
        *keys: Key,
        conditions: tuple[Condition, ...] = (),
        refused: Mapping[str, str] = _NONE,
        secretive: bool = False,
    ) -> None:
        self.make: Final = make
        self.fields: Final[Mapping[str, Field[Any]]] = vars(make)["__dataclass_fields__"]
        self.keys: Final = {key.name: self._with_default(key) for key in keys}
        self.names: Final = tuple(sorted(self.keys))  # as messages list them
        self.text = text
        self.conditions = conditions
        self._refused = refused
        self._secretive = secretive

    def _with_default(self, key: Key) -> Key:
        field = self.fields.get(key.name)
        if field is None or key.default is not ABSENT:
            return key
        if field.default_factory is not MISSING:
            return replace(key, default=field.default_factory())
        return key if field.default is MISSING else replace(key, default=field.default)

    def read(self, value: Value) -> T:
        """The whole of it."""
        return self.build(self.open(value))

    def open(self, value: Value) -> Table:
        """Its keys; unknown ones are noted."""
        return value.table(self.names, self._refused, secretive=self._secretive)

    def build(
        self,
        table: Table,
        known: Mapping[str, Any] = _NONE,
        usual: Mapping[str, Any] = _NONE,
        **read: Callable[[Value], Any],
    ) -> T:
        """What is made of ``table``: each field that has a key is read, in order.

        ``known`` are fields that are not; ``usual`` goes before the keys' own defaults, and
        ``read`` are readers that know more than the value.
        """
        self._check(table, "")
        found = dict(known)
        for name in self.keys:
            if name in self.fields and name not in known:
                self._check(table, name)
                found[name] = self.get(table, name, read.get(name), usual)
        return self.make(**found)

    def _check(self, table: Table, before: str) -> None:
        for condition in self.conditions:
            if condition.before == before:
                condition.check(table)

    def get(
        self,
        table: Table,
        name: str,
        read: Callable[[Value], Any] | None = None,
        usual: Mapping[str, Any] = _NONE,
    ) -> Any:
        """One of its keys, its default when absent or refused; noted where it is required."""
        key = self.keys[name]
        default = usual.get(name, key.default)
        stand_in = key.reader.stand_in if default is ABSENT else default
        if key.stand_in is not ABSENT:
            stand_in = key.stand_in
        if name in table:
            return table.get(name, read or key.reader.read, stand_in)
        if default is ABSENT:
            table.missing(name, key.missing)
            return stand_in
        return default

    def schema(self) -> Schema:
        """It as a JSON Schema of a mapping that has no other keys."""
        found: Schema = {
            "description": self.text,
            "type": "object",
            "properties": {name: key.schema() for name, key in self.keys.items()},
            "additionalProperties": False,
        }
        required = [name for name, key in self.keys.items() if key.required]
        if required:
            found["required"] = required
        for condition in self.conditions:
            for word, rule in condition.schema.items():
                found[word] = {**found.get(word, {}), **rule} if isinstance(rule, dict) else rule
        return found

    def reader(self, *, apart: bool = False) -> Reader[T]:
        """It as what stands behind a key of another; ``apart``: documented in a table of its own."""
        section = None if apart else self
        return Reader(self.read, self.schema(), show=lambda _: None, section=section)
