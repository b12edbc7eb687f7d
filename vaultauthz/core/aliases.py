"""Other spellings of a header's name: many servers read ``X_Api-Key`` as ``X-Api-Key``.

CGI, and WSGI and PHP after it, turn hyphens into underscores; so a client's header may stand
for one that we set or drop. A name with k separators has 2**k spellings: those of a short name
are listed, for a long one the request's own headers are looked through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

# The client's headers among some names and their aliases: names in lower case, in the order in
# which they came. None where the gateway cannot tell.
Sent = tuple[tuple[str, str], ...] | None
Look = Callable[[Collection[str]], Sent]

_MOST_LISTED = 2  # separators of a name whose spellings are listed


def folded(name: str) -> str:
    """What all spellings of a name have in common."""
    return name.lower().replace("_", "-")


def listed(name: str) -> tuple[str, ...]:
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
    """Those of which ``listed`` leaves spellings out, in lower case."""
    return tuple(dict.fromkeys(name.lower() for name in names if not _is_short(name)))


def _is_short(name: str) -> bool:
    return name.count("-") <= _MOST_LISTED


def among(headers: Iterable[tuple[str, str]], names: Collection[str]) -> Sent:
    """The headers that are spellings of one of ``names``."""
    by_fold: dict[str, list[str]] = {}
    for name in names:
        by_fold.setdefault(folded(name), []).append(name)
    return tuple(
        (name, value)
        for name, value in headers
        if any(_spells(name, wanted) for wanted in by_fold.get(folded(name), ()))
    )


def _spells(name: str, wanted: str) -> bool:
    """Whether a name that folds alike only has underscores for some of ``wanted``'s hyphens."""
    return all(w != "_" or n == "_" for n, w in zip(name, wanted, strict=True))
