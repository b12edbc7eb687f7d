"""Which parameters and cookies of a client an upstream may read as one of ours.

Names are compared as lenient servers do: PHP makes underscores of dots and spaces and an array of
``key[]``, and ends a name at a NUL; old PHP decodes the names of cookies. Letter case makes
another name (RFC 3986, 6265).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote, unquote_plus

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
