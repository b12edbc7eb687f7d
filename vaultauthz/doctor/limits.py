"""How far an examination goes: its pace, its end by Ctrl-C, and no wrong login twice."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from vaultauthz.doctor.evidence import Trouble


class StoppedError(Exception):
    """The examination ends here; what is held is given back."""


@dataclass(frozen=True, slots=True)
class Turns:
    """One stage's calls; ``stop`` is set once, for all stages."""

    per_second: float  # infinity for no bound
    stop: threading.Event

    def take(self) -> None:
        """Wait for the next turn.

        Raises:
            StoppedError: there is none any more.
        """
        if self.stop.wait(1 / self.per_second):
            raise StoppedError


@dataclass(slots=True)
class Locks:
    """Logins that Vault locks after some wrong tries, and what each came to.

    Stages may share one: it is tried by one of them at a time, and after a refusal by
    no other.
    """

    _guard: threading.Lock = field(default_factory=threading.Lock)
    _locks: dict[tuple[str, ...], threading.Lock] = field(default_factory=dict)
    _refused: dict[tuple[str, ...], tuple[str, Trouble]] = field(default_factory=dict)

    def of(self, key: tuple[str, ...]) -> threading.Lock:
        """Held while this login is tried."""
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def refused(self, key: tuple[str, ...]) -> tuple[str, Trouble] | None:
        """The stage in which it was refused, and why."""
        return self._refused.get(key)

    def refuse(self, key: tuple[str, ...], stage: str, trouble: Trouble) -> None:
        """It must not be tried again. Called with its lock held."""
        self._refused[key] = (stage, trouble)
