"""An answer that is not there yet, for a check that must wait for Vault."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

log = logging.getLogger(__name__)


class Later(Generic[T]):
    """Answered once, by whoever comes first: Vault's answer or the deadline.

    ``then`` hands the answer on, in the thread that brings it or, when it is there
    already, in the caller's. Nobody who must not block needs to call ``wait``.
    An error in ``map`` is handed on like an answer, so that nobody waits for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there = threading.Event()
        self._answer: T | None = None
        self._error: Exception | None = None
        self._next: list[tuple[Callable[[T], None], Callable[[Exception], object] | None]] = []

    def answer(self, value: T) -> bool:
        """Give the answer; False when there was one, or an error, before."""
        return self._settle(value, None)

    def fail(self, error: Exception) -> bool:
        """Say that there will be no answer; False when there was one, or an error, before."""
        return self._settle(None, error)

    def _settle(self, value: T | None, error: Exception | None) -> bool:
        with self._lock:
            if self._there.is_set():
                return False
            self._answer, self._error = value, error
            self._there.set()
            following, self._next = self._next, []
        for take, failed in following:
            try:
                self._hand_on(take, failed)
            except Exception as exc:  # noqa: BLE001 - it is not the error of those that follow
                # Its type, not its text, which may quote a value.
                log.error("an answer could not be handed on: %s", type(exc).__name__)  # noqa: TRY400
        return True

    def _hand_on(
        self, take: Callable[[T], None], failed: Callable[[Exception], object] | None
    ) -> None:
        if self._error is None:
            take(self._answer)  # type: ignore[arg-type]  # set before `there` was
        elif failed is not None:
            failed(self._error)

    def then(
        self, take: Callable[[T], None], failed: Callable[[Exception], object] | None = None
    ) -> None:
        """Call ``take`` with the answer, or ``failed`` with the error, as soon as there is one."""
        with self._lock:
            if not self._there.is_set():
                self._next.append((take, failed))
                return
        self._hand_on(take, failed)

    def map(self, change: Callable[[T], U]) -> Later[U]:
        """The answer that ``change`` makes of this one; what it raises is that one's error."""
        changed: Later[U] = Later()

        def take(value: T) -> None:
            try:
                answer = change(value)
            except Exception as exc:  # noqa: BLE001 - whoever waits is told
                changed.fail(exc)
            else:
                changed.answer(answer)

        self.then(take, changed.fail)
        return changed

    def wait(self) -> T:
        """The answer; blocks until it is there, which its deadline sees to. Raises the error."""
        self._there.wait()
        if self._error is not None:
            raise self._error
        return self._answer  # type: ignore[return-value]  # set before `there` was
