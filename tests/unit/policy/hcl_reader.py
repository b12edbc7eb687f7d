"""What a policy says, read by the rules of HCL's first version, as Vault reads it.

Its text is scanned here as HashiCorp's scanner does: ``#`` to the end of the line is a
comment outside of strings, ``${`` in a string begins what only ``}`` ends.
"""

from __future__ import annotations

import re
from typing import Any

from vaultauthz.policy import hcl
from vaultauthz.policy.needs import Need

_TOKEN = re.compile(r'\s+|#[^\n]*(?:\n|\Z)|"((?:[^"\\\n]|\\.)*)"|[a-z_]+|[={}\[\],]')
_ESCAPE = re.compile(r'\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(["\\]))')


def read(text: str) -> dict[str, dict[str, Any]]:
    """Each path's capabilities and parameters. Raises ValueError for what is no policy."""
    tokens = _tokens(text)
    paths: dict[str, dict[str, Any]] = {}
    while tokens:
        if tokens.pop(0) != "path":
            raise ValueError("not a path")
        name = _string(tokens)
        if name in paths:
            raise ValueError(f"{name} twice")
        paths[name] = _block(tokens)
    return paths


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            raise ValueError(text[at : at + 20])
        at = found.end()
        if not found.group()[0].isspace() and found.group()[0] != "#":
            tokens.append(found.group())
    return tokens


def _block(tokens: list[str]) -> dict[str, Any]:
    _take(tokens, "{")
    found: dict[str, Any] = {}
    while tokens[0] != "}":
        name = _string(tokens) if tokens[0].startswith('"') else tokens.pop(0)
        _take(tokens, "=")
        found[name] = _list(tokens) if tokens[0] == "[" else _block(tokens)
    _take(tokens, "}")
    return found


def _list(tokens: list[str]) -> list[str]:
    _take(tokens, "[")
    items = []
    while tokens[0] != "]":
        items.append(_string(tokens))
        if tokens[0] == ",":
            tokens.pop(0)
    _take(tokens, "]")
    return items


def _take(tokens: list[str], wanted: str) -> None:
    if tokens.pop(0) != wanted:
        raise ValueError(f"no {wanted}")


def _string(tokens: list[str]) -> str:
    quoted = tokens.pop(0)
    if not quoted.startswith('"') or "${" in quoted:
        raise ValueError(quoted)
    return _ESCAPE.sub(_char, quoted[1:-1])


def _char(found: re.Match[str]) -> str:
    code = found.group(1) or found.group(2)
    return chr(int(code, 16)) if code else found.group(3)


def said(paths: tuple[Need, ...]) -> dict[str, tuple[list[str], list[str] | None]]:
    """What a policy of these needs must say: capabilities, and the leases it is for."""
    return {
        need.path: (
            list(need.capabilities),
            [f"{p}*" for p in hcl.lease_prefixes(need)] if need.lease_prefixes else None,
        )
        for need in paths
    }


def says(text: str) -> dict[str, tuple[list[str], list[str] | None]]:
    """What it does say."""
    return {
        path: (
            block["capabilities"],
            block["allowed_parameters"]["lease_id"] if "allowed_parameters" in block else None,
        )
        for path, block in read(text).items()
    }
