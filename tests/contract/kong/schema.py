"""Kong's check of a plugin's config against the schema that its server told, as far as plugins here need it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list, tuple),
    "set": (list, tuple),
    "map": (dict,),
    "record": (dict,),
}


class SchemaViolation(Exception):  # noqa: N818 - Kong's own word
    """Kong refuses this config. The message names the field."""


def checked(schema: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with its defaults filled in. Raises SchemaViolation."""
    for field in schema["fields"]:
        if "config" in field:
            return _record("config", field["config"], dict(config))
    raise SchemaViolation("the schema has no config record")


def _record(name: str, record: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: about for field in record["fields"] for key, about in field.items()}
    unknown = set(value) - set(fields)
    if unknown:
        raise SchemaViolation(f"{name}.{min(unknown)}: unknown field")
    filled: dict[str, Any] = {}
    for key, about in fields.items():
        given = value.get(key)
        if given is None:
            given = about.get("default")
        if given is not None:
            filled[key] = _value(f"{name}.{key}", about, given)
        elif about.get("required"):
            raise SchemaViolation(f"{name}.{key}: required field missing")
    return filled


def _value(name: str, about: Mapping[str, Any], value: Any) -> Any:
    kind, given = about["type"], value
    if kind not in TYPES:
        raise SchemaViolation(f"{name}: unknown type {kind}")
    wrong = isinstance(value, bool) and kind != "boolean"
    if wrong or not isinstance(value, TYPES[kind]):
        raise SchemaViolation(f"{name}: expected a {kind}")
    if "one_of" in about and value not in about["one_of"]:
        raise SchemaViolation(f"{name}: expected one of: {', '.join(about['one_of'])}")
    if kind == "string" and value == "" and about.get("len_min", 1) > 0:
        raise SchemaViolation(f"{name}: length must be at least 1")
    if kind == "record":
        return _record(name, about, given)
    if kind in {"array", "set"} and "elements" in about:
        return [_value(f"{name}[{i}]", about["elements"], one) for i, one in enumerate(given, 1)]
    return value
