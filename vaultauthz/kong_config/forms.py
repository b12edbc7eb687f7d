"""The same settings in Kong's two forms: lines of kong.conf, and KONG_ variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def settings(lines: Iterable[str]) -> Mapping[str, str]:
    """The settings among ``lines``, which are ``name = value`` and comments, by their names."""
    found = (line.partition(" = ") for line in lines if not line.startswith("#"))
    return {name: value for name, _, value in found}


def conf(lines: Iterable[str]) -> list[str]:
    """As kong.conf has them."""
    # There a # begins a comment anywhere in a line, unless it is escaped.
    escaped = (line if line.startswith("#") else line.replace("#", r"\#") for line in lines)
    return ["# --- kong.conf ---", *escaped]


def environment(lines: Iterable[str]) -> list[str]:
    """As variables, in the form of ``docker run --env-file``: no quotes, nothing is expanded."""
    written = (line if line.startswith("#") else _variable(line) for line in lines)
    return ["# --- Kong's environment ---", *written]


def _variable(line: str) -> str:
    name, _, value = line.partition(" = ")
    return f"KONG_{name.upper()}={value}"
