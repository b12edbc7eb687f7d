"""A policy's text. Each need is one block, so that blocks can be put together at will."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final

from vaultauthz.policy.needs import Need

LARGEST: Final = 1 << 20  # bytes; Raft storage's max_entry_size, unless it is set
_WIDTH: Final = 100
_MANY: Final = 1000  # lines or lease prefixes, from which on space is saved
_QUOTED: Final = {'"': '\\"', "\\": "\\\\"}


class PolicyError(Exception):
    """No policy can be written; the text says why and what to do."""


class Form(Enum):
    """How much room a policy takes; from ``_MANY`` lines on, and for large ones, less."""

    FULL = "comments above each block"
    SHORT = "a block on a line, its upstreams behind it"
    BARE = "no comments on the lines"


def policy(needs: Sequence[Need], header: Iterable[str], notes: Mapping[str, str]) -> str:
    """The whole text: ``header`` as comments, then a block for each need.

    ``notes`` is a further comment for the line of a path.

    Raises:
        PolicyError: a path that a policy cannot name.
    """
    head = "".join(comment(line) for line in header)
    text = ""
    for form in Form:
        if form is Form.FULL and len(needs) > _MANY:
            continue
        blocks = [block(need, notes.get(need.path, ""), form) for need in needs]
        text = f"{head}\n" + ("\n" if form is Form.FULL else "").join(blocks)
        if stored_size(text) <= LARGEST:
            break
    return text


def stored_size(text: str) -> int:
    """Bytes that Vault keeps for a policy: a JSON string of it, and a little more."""
    return len(json.dumps(text, ensure_ascii=False).encode()) + 500


def block(need: Need, note: str = "", form: Form = Form.FULL) -> str:
    """The HCL of one need, with comments.

    Raises:
        PolicyError: its path means something else in a policy.
    """
    check_path(need)
    path, capabilities = _string(need.path), _list(need.capabilities)
    if form is not Form.FULL and not need.lease_prefixes:
        whose = ", ".join(need.upstreams) or need.why
        said = _printable(f"  # {whose}" + (f"  # {note}" if note else ""))
        shown = said if form is Form.SHORT else ""
        return f"path {path} {{ capabilities = {capabilities} }}{shown}\n"
    lines = [f"path {path} {{", f"  capabilities = {capabilities}"]
    lines += _parameters(need)
    return "".join([*_comments(need, note), *(f"{line}\n" for line in [*lines, "}"])])


def comment(text: str) -> str:
    """One comment line that nothing in ``text`` can end."""
    return f"# {_printable(text)}".rstrip() + "\n"


def check_path(need: Need) -> None:
    """Refuse a path that a policy would read as a pattern, or could not read at all.

    Raises:
        PolicyError: says whose it is.
    """
    problem = _problem(need)
    if problem:
        whose = ", ".join(need.upstreams[:3]) or "the login"
        raise PolicyError(
            f"{whose}: a policy cannot name {_string(need.path)} alone: {problem}; "
            "give it another name in Vault"
        )


def _problem(need: Need) -> str:
    paths = (need.path, *need.lease_prefixes)
    if any("{{" in path or "}}" in path for path in paths):
        return "two braces begin or end an identity template there"
    # Lease prefixes are matched as text with a * at either end, paths by segments.
    if need.path.endswith("*") or any(path.startswith("*") for path in need.lease_prefixes):
        return "a * at its end (of leases: at its start) stands for any text there"
    if "+" in need.path.split("/") or "+*" in need.path:
        return "a + stands for any segment there"
    return ""


def _parameters(need: Need) -> list[str]:
    """Leases only by the request's body, and only of these paths.

    Vault checks the body's keys and values. The other form, with the lease in the URL,
    is another path, which the policy does not have.
    """
    if not need.lease_prefixes:
        return []
    prefixes = lease_prefixes(need)
    lines = ["  allowed_parameters = {", '    "lease_id" = [']
    lines += [f"      {_string(prefix + '*')}," for prefix in prefixes]
    lines.append("    ]")
    if need.path.endswith("/renew"):
        lines.append('    "increment" = []')  # an empty list stands for any value
    return [*lines, "  }"]


def lease_prefixes(need: Need) -> tuple[str, ...]:
    """What the policy lets a ``lease_id`` begin with: the needs' own, or their folders."""
    if len(need.lease_prefixes) <= _MANY:
        return need.lease_prefixes
    return tuple(dict.fromkeys(f"{p.rstrip('/').rpartition('/')[0]}/" for p in need.lease_prefixes))


def _comments(need: Need, note: str) -> list[str]:
    lines = [need.why]
    if len(need.upstreams) > 2 and not need.lease_prefixes:
        lines += textwrap.wrap(
            ", ".join(need.upstreams),
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    if len(need.lease_prefixes) > _MANY:
        lines.append("(so many paths that their folders are named instead)")
    if not need.required:
        lines.append("(may be left out)")
    return [comment(line) for line in [*lines, note] if line]


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_string, texts))}]"


def _string(text: str) -> str:
    """A quoted string; what HCL would take for an escape or ``${…}`` is written as a code."""
    if text.isprintable() and not any(mark in text for mark in ('"', "\\", "${")):
        return f'"{text}"'
    out = "".join(_QUOTED.get(char) or _coded(char) for char in text)
    return '"' + out.replace("${", "$\\u007b") + '"'


def _coded(char: str) -> str:
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
