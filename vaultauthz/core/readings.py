"""What servers may read otherwise than it was sent: names of headers, parameters, cookies, and methods.

Names of headers: many servers read ``X_Api-Key`` as ``X-Api-Key``. CGI, and WSGI and PHP after it,
turn hyphens into underscores; so a client's header may stand for one that we set or drop. A name
with k separators has 2**k spellings: those of a short name are listed, for a long one the request's
own headers are looked through.

Names of parameters and cookies are compared as lenient servers do: PHP makes underscores of dots and
spaces and an array of ``key[]``, and ends a name at a NUL; old PHP decodes the names of cookies. Letter
case makes another name (RFC 3986, 6265).

Methods are case-sensitive (RFC 9110, 9.1), yet many servers take ``delete`` for DELETE. And frameworks
let a header, or ``_method`` in a query or a form, take the place of the method. A form is in the
body, which nobody reads here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Final
from urllib.parse import unquote, unquote_plus

# The client's headers among some names and their aliases: names in lower case, in the order in
# which they came. None where the gateway cannot tell.
Sent = tuple[tuple[str, str], ...] | None
Look = Callable[[Collection[str]], Sent]

_MOST_LISTED: Final = 2  # separators of a name whose spellings are listed


def folded_header(name: str) -> str:
    """What all spellings of a name have in common."""
    return name.lower().replace("_", "-")


def header_spellings(name: str) -> tuple[str, ...]:
    """The spellings in which underscores stand for some of a name's hyphens, itself first.

    Of a long name only that without hyphens.
    """
    name = name.lower()
    if not _is_short(name):
        return (name, name.replace("-", "_"))
    first, *parts = name.split("-")
    spelt = [first]
    for part in parts:
        spelt = [f"{start}{joint}{part}" for joint in "-_" for start in spelt]
    return tuple(spelt)


def long_names(names: Iterable[str]) -> tuple[str, ...]:
    """Those of which ``header_spellings`` leaves spellings out, in lower case."""
    return tuple(dict.fromkeys(name.lower() for name in names if not _is_short(name)))


def _is_short(name: str) -> bool:
    return name.count("-") <= _MOST_LISTED


def among(headers: Iterable[tuple[str, str]], names: Collection[str]) -> Sent:
    """The headers that are spellings of one of ``names``."""
    by_fold: dict[str, list[str]] = {}
    for name in names:
        by_fold.setdefault(folded_header(name), []).append(name)
    return tuple(
        (name, value)
        for name, value in headers
        if any(_spells(name, wanted) for wanted in by_fold.get(folded_header(name), ()))
    )


def _spells(name: str, wanted: str) -> bool:
    """Whether a name that folds alike only has underscores for some of ``wanted``'s hyphens."""
    return all(w != "_" or n == "_" for n, w in zip(name, wanted, strict=True))


_UNDERSCORED: Final = re.compile(r"[. \[]")


def folded_parameter(name: str) -> str:
    """What all names have in common that a query's ``name``, as it was sent, may be taken for."""
    return _folded(unquote_plus(name))


def folded_cookie(name: str) -> str:
    """The same for a cookie's name."""
    return _folded(unquote(name))


def _folded(name: str) -> str:
    name = name.partition("\0")[0].strip()
    start, _, index = name[1:].partition("[")
    if "]" in index:  # otherwise the bracket is one more underscore
        name = name[:1] + start
    return _UNDERSCORED.sub("_", name)


def is_parameter(pair: str, folds: Collection[str]) -> bool:
    """Whether a piece of a query between two ``&`` has a parameter that folds to one of these.

    Some split at ``;`` as well, as HTML 4 wanted it.
    """
    return any(folded_parameter(part.partition("=")[0]) in folds for part in pair.split(";"))


def is_cookie(pair: str, folds: Collection[str]) -> bool:
    """The same for a piece of a ``cookie`` header, of which some make two at a comma."""
    return any(folded_cookie(part.partition("=")[0]) in folds for part in pair.split(","))


# As Spring, Symfony, Rails, ASP.NET, Google's APIs and others call it.
OVERRIDES: Final = ("x-http-method", "x-http-method-override", "x-method-override")
TOKEN: Final = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TOKEN: Final = re.compile(TOKEN)
# Methods whose requests have a body only if they say so (RFC 9110, 8.6).
BODILESS: Final = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE"))


def has_no_body(method: str, length: str) -> bool:
    """Whether a request says so; ``length`` is its Content-Length, "" for none."""
    return length == "0" or (not length and method in BODILESS)


def _letters(word: str) -> str:
    """A word's letters in either case, each as it is or percent-encoded."""
    return "".join(f"(?:{c}|%{ord(c):02x}|%{ord(c.upper()):02x})" for c in word)


# A request target whose query has a parameter `_method`; PHP makes an underscore of what is no
# part of a name, leaves spaces in front away, and ends the name at a NUL. For Python's `re` and for RE2.
IN_QUERY: Final = (
    r"(?i)[^?]*\?(?:.*[&;])?(?:%20|\+)*(?:[_.+\[]|%5f|%2e|%20|%5b)"
    + _letters("method")
    + r"(?:(?:[=&;\[]|%5b|%00).*)?"
)
_IN_QUERY: Final = re.compile(IN_QUERY, re.DOTALL)


def other_methods(method: str, target: str, sent: Sent) -> tuple[str, ...] | None:
    """What else servers may take for the method; None where that cannot be said.

    ``target`` is the path with its query; ``sent`` are the ``OVERRIDES`` among the client's
    headers, None where they are not known.
    """
    if sent is None or not _TOKEN.fullmatch(method):
        return None
    if "?" in target and _IN_QUERY.fullmatch(target):
        return None
    if len({folded_header(name) for name, _ in sent}) < len(sent):
        return None  # servers differ in which copy counts
    found = {method.upper()}
    for _, value in sent:
        override = value.strip(" \t")
        if not override:
            continue
        if not _TOKEN.fullmatch(override):
            return None
        found.add(override.upper())
    found.discard(method)
    return tuple(found)
