"""Threads that do their work while a context lasts: the loads of tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from tests.patience import PATIENCE


class Working:
    """Starts ``threads`` at the beginning; at the end sets ``_stopped`` and waits for them."""

    def __init__(self, threads: Iterable[threading.Thread]) -> None:
        self._stopped = threading.Event()
        self._threads = tuple(threads)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE)
