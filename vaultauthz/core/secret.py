"""A value that must not be seen: only the injection code reveals it."""

from __future__ import annotations

import hmac
from typing import Final, NoReturn

HIDDEN: Final = "<secret>"


class Secret:
    """One field of a credential.

    ``repr``, ``str`` and ``format`` show ``<secret>``, and it refuses to be
    pickled or copied, so that a log line, an error, a crash dump or a cache
    cannot hold the value by accident. ``reveal()`` is the one way to it, and
    easy to grep for.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Only what puts it on a request should call this."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # JSON can hold lone surrogates, which plain UTF-8 refuses.
        mine = self._value.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(mine, other._value.encode("utf-8", "surrogatepass"))

    # Unhashable: a dict or set keyed by it would compare in variable time.
    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied")
