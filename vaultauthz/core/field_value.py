"""What may stand in a header, a query or a cookie."""

from __future__ import annotations

import re

# What RFC 9110 keeps out of a field value, tab excepted: a CR or LF would let a
# secret's writer add headers of their own. And what UTF-8 has no bytes for.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


# Letters by their kind, and nothing to see: of Hangul, of Braille.
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800"


class InjectionError(ValueError):
    """The secret cannot be put on a request. Names the place, never the value.

    ``mend``: the way out, for the operator.
    """

    mend = "write it without that character (printf, not echo, leaves no newline)"


class BlankError(InjectionError):
    """The secret has a field without anything in it, which is no credential."""

    mend = "write the credential into it"


def clean(value: str, place: str) -> str:
    """``value``, which goes to ``place``.

    Raises:
        InjectionError: it holds a control character.
    """
    bad = _CONTROL.search(value)
    if bad:
        end = " (at its very end: a stray newline?)" if bad.end() == len(value) else ""
        raise InjectionError(
            f"the value for {place} holds the control character "
            f"0x{ord(bad.group()):02x}{end}, which a request cannot carry"
        )
    return value


def header_value(value: str, place: str) -> str:
    """``value``, which is a header's, or its last part.

    Raises:
        InjectionError: it holds a control character, or a blank at an edge, which is no part
            of a header's value (RFC 9110, 5.5): the upstream would be sent another one.
    """
    clean(value, place)
    edges_fit(value, value, place)
    return value


def edges_fit(first: str, last: str, place: str) -> None:
    """See that a header's value may begin as ``first`` does and end as ``last`` does."""
    for edge, side in ((first[:1], "begins"), (last[-1:], "ends")):
        if edge.isspace():
            raise InjectionError(
                f"the value for {place} {side} with a blank (0x{ord(edge):02x}), "
                "which a header cannot carry there"
            )


def not_blank(value: str, field: str) -> str:
    """``value`` of the secret's ``field``.

    Raises:
        BlankError: there is nothing in it, or nothing that can be seen.
    """
    if not any(
        letter.isprintable() and not letter.isspace() and letter not in _FILLERS for letter in value
    ):
        raise BlankError(f"the secret's field {field!r} is {'blank' if value else 'empty'}")
    return value
