"""An answer that is not there yet, for a check that must wait for Vault."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Later(Generic[T]):
    """Answered once, by whoever comes first: Vault's answer or the deadline.

    ``then`` hands the answer on, in the thread that brings it or, when it is there
    already, in the caller's. Nobody who must not block needs to call ``wait``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there = threading.Event()
        self._answer: T | None = None
        self._next: list[Callable[[T], None]] = []

    def answer(self, value: T) -> bool:
        """Give the answer; False when there was one before."""
        with self._lock:
            if self._there.is_set():
                return False
            self._answer = value
            self._there.set()
            following, self._next = self._next, []
        for take in following:
            take(value)
        return True

    def then(self, take: Callable[[T], None]) -> None:
        """Call ``take`` with the answer, as soon as there is one."""
        with self._lock:
            if not self._there.is_set():
                self._next.append(take)
                return
        take(self._answer)  # type: ignore[arg-type]  # set before `there` was

    def map(self, change: Callable[[T], U]) -> Later[U]:
        """The answer that ``change`` makes of this one."""
        changed: Later[U] = Later()

        def take(value: T) -> None:
            changed.answer(change(value))

        self.then(take)
        return changed

    def wait(self) -> T:
        """The answer; blocks until it is there, which its deadline sees to."""
        self._there.wait()
        return self._answer  # type: ignore[return-value]  # as in `then`
