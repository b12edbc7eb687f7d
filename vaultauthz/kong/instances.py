"""The plugin's instances in this process, by the number that Kong knows each by."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from vaultauthz.kong.gate import Instance
from vaultauthz.kong.handover import Names

_NUMBERS: Final = 2**31 - 1  # int32, and 0 would be left out of a message
# Kong does not close what it forgets. A number that is dropped while in use does no harm:
# Kong starts the instance anew when it is not known.
_MOST: Final = 100_000


class Instances:
    """Numbers begin at random: after a restart, none of the last process's means anything.

    Else a worker that has not heard of the restart would get another route's credential.
    """

    def __init__(self) -> None:
        self._next = secrets.randbelow(_NUMBERS)
        self._known: dict[int, Instance] = {}

    def add(self, instance: Instance) -> int:
        """Its number."""
        while self._next + 1 in self._known:
            self._next = (self._next + 1) % _NUMBERS
        number = self._next + 1
        self._next = number % _NUMBERS
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[number] = instance
        return number

    def inherit(self, named: Mapping[int, Names], last: int | None) -> None:
        """Go on with another process's; ``last`` is the last number that it gave."""
        for number, (upstream, stage) in named.items():
            self._known.setdefault(number, Instance(upstream, stage))
        if last is not None:
            self._next = last % _NUMBERS

    @property
    def named(self) -> dict[int, Names]:
        """What each number stands for."""
        return {number: (of.upstream, of.stage) for number, of in self._known.items()}

    @property
    def last(self) -> int:
        """The last number that was given."""
        return self._next

    def get(self, number: int) -> Instance | None:
        """The instance of this number, None where there is none."""
        return self._known.get(number)

    def drop(self, number: int) -> None:
        """Kong has closed it."""
        self._known.pop(number, None)
