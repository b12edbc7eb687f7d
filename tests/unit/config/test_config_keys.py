"""A section is one table: what is read, what stands in, what is told and what is described."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from docs import tables
from vaultauthz.config import ConfigError, document
from vaultauthz.config.keys import Condition, Key, Section, both, needs, not_both, one_of_two
from vaultauthz.config.kinds import FLAG, TEXT, choice, duration, many, whole
from vaultauthz.config.problems import Report
from vaultauthz.config.reader import Value


@dataclass(frozen=True)
class Door:
    """What the table below makes."""

    name: str
    colour: str = "red"
    open: bool = False
    closes: float = 90.0
    keys: int | None = None


DOOR = Section(
    Door,
    "A door.",
    Key("name", TEXT, "Its name.", "More of it", missing="add its name"),
    Key("colour", choice("red", "blue"), "Its colour."),
    Key("open", FLAG, "Whether it is."),
    Key("closes", duration(1, 120), "After which time."),
    Key("keys", whole(1, 9), "How many.", otherwise="none needed"),
    Key("number", TEXT, "Of the house.", default=""),
)


def value(text: str) -> Value:
    """A section as it stands in a file."""
    node = document.read(text)
    assert node is not None
    return Value(node, 1, "door", Report("f", Path("/")))


def told(text: str, *conditions: Condition) -> list[str]:
    """What is wrong with a door."""
    section = Section(Door, "…", *DOOR.keys.values(), conditions=conditions)
    door = value(text)
    door.each_entry(lambda _, item: section.read(item))
    with pytest.raises(ConfigError) as refused:
        door.report.raise_problems()
    return [line.removeprefix("f:1: door.d") for line in refused.value.problems]


def test_what_is_read() -> None:
    """Each key by its reader, the others as the fields have them; what is aside is not given on."""
    assert DOOR.read(value("{name: a, number: 7}")) == Door("a")
    every = DOOR.read(value("{name: a, colour: blue, open: true, closes: 1m, keys: 2}"))
    assert every == Door("a", "blue", True, 60.0, 2)


def test_what_is_known_beside_the_value() -> None:
    """A reader of the moment, another default, and a field that is not read."""
    table = DOOR.open(value("{colour: blue}"))
    door = DOOR.build(table, {"name": "b"}, {"keys": 3}, colour=lambda item: item.text() + "!")
    assert door == Door("b", "blue!", keys=3)
    assert DOOR.get(table, "number") == ""


def test_every_problem_is_told() -> None:
    """A required one that is absent, unknown ones, and those that readers refuse."""
    assert told("{d: {keys: 12, nam: x, open: 1}}") == [
        ".nam: unknown key; did you mean name? Known here: closes, colour, keys, name, number, open",
        ".name: is missing; add its name",
        ".open: wants true or false, found a number",
        ".keys: wants a whole number from 1 to 9, found '12'",
    ]


@pytest.mark.parametrize(
    ("condition", "text", "wanted"),
    [
        (both("open", "keys")[0], "open: true", ".keys: is missing; open needs it"),
        (both("open", "keys")[1], "keys: 2", ".open: is missing; keys needs it"),
        (needs("keys", "open", "it is shut"), "keys: 2", ".open: is missing; it is shut"),
        (not_both("open", "keys", "keep one"), "open: true, keys: 2", ": has both open and keys; keep one"),
        (one_of_two("open", "keys", "add it"), "open: true, keys: 2", ": has both open and keys; keep one"),
        (one_of_two("open", "keys", "add keys"), "colour: red", ".open: is missing; add keys"),
    ],
)  # fmt: skip
def test_conditions(condition: Condition, text: str, wanted: str) -> None:
    """What is between two keys is told; the schema's side is in test_config_schema."""
    assert told(f"{{d: {{name: a, {text}}}}}", condition) == [wanted]


def test_the_schema() -> None:
    """Required is what has no default; bounds and defaults are the readers'."""
    schema = DOOR.schema()
    assert schema["required"] == ["name"]
    found = {
        name: (one["description"], one.get("default")) for name, one in schema["properties"].items()
    }
    assert found == {
        "name": ("Its name.", None),
        "colour": ("Its colour.", "red"),
        "open": ("Whether it is.", False),
        "closes": ("After which time. 1s to 2m", "90s"),
        "keys": ("How many; default: none needed.", None),
        "number": ("Of the house.", None),
    }


def test_the_table_of_the_documentation() -> None:
    """A line for each key, those of a section in it below its own."""
    house = Section(
        Door, "A house.", Key("door", DOOR.reader(), "The door."),
        Key("rooms", many(TEXT.schema, lambda _: ()), "Names.", default=()),
        Key("back", DOOR.reader(apart=True), "Another.", default=Door("b")),
        Key("lawn", TEXT, "What it has.", default=""), Key("yard", TEXT, default=""),
        conditions=(one_of_two("lawn", "yard", "add one"),),
    )  # fmt: skip
    assert tables.table(house).splitlines()[2:] == [
        "| `door` | required | The door. |",
        "| `door.name` | required | Its name. More of it |",
        "| `door.colour` | `red` | Its colour (`red`, `blue`). |",
        "| `door.open` | `false` | Whether it is. |",
        "| `door.closes` | `90s` | After which time (1s to 2m). |",
        "| `door.keys` | none needed | How many (1 to 9). |",
        "| `door.number` | none | Of the house. |",
        "| `rooms` | none | Names. |",
        "| `back` |  | Another. |",
        "| `lawn` | required, or `yard` | What it has. |",
        "| `yard` | required, or `lawn` |  |",
    ]


# What no field of the dataclass holds: read by hand, or a key of two that make one field.
BY_HAND = {
    "the file": [],
    "vault": ["insecure"],
    "stages": ["ttl", "increment"],
    "upstreams": ["secret", "deny", "kong_query_in_logs", "kong_username_in_logs"],
    "secret": ["kv", "static_role", "pki", "method", "params", "ttl", "increment"],
}


@pytest.mark.parametrize("name", tables.TABLES)
def test_each_key_has_its_field(name: str) -> None:
    """A key that none has would be read by nobody; the method of a login is its class."""
    section = tables.TABLES[name]
    by_hand = ["method"] if name.startswith("auth: ") else BY_HAND.get(name, [])
    assert [key for key in section.keys if key not in section.fields] == by_hand


# Fields that hold what is made of the key's value, by hand.
MADE = {
    ("the file", "stages"),
    ("the file", "upstreams"),
    ("vault", "address"),
    ("upstreams", "callers"),
}


def given_by(read: Any) -> Any:
    """The type of what a reader gives."""
    while isinstance(read, partial):
        read = read.func
    section = getattr(read, "__self__", None)
    return section.make if isinstance(section, Section) else get_type_hints(read)["return"]


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_reader_gives_what_its_field_holds(name: str) -> None:
    """A type checker does not see the two together."""
    section = tables.TABLES[name]
    held = get_type_hints(section.make)
    for key in section.keys.values():
        if key.name in section.fields and (name, key.name) not in MADE:
            found = given_by(key.reader.read)
            assert found == held[key.name] or found in get_args(held[key.name]), key.name
