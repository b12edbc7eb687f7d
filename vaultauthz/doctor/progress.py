"""One line that says what is being done, on a terminal, and is gone in the end."""

from __future__ import annotations

import shutil
import threading
from types import TracebackType
from typing import Final, Self, TextIO

_CLEAR: Final = "\r\x1b[K"


class Progress:
    """Safe for threads. Where ``out`` is no terminal it says nothing."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._live = out.isatty()

    def say(self, what: str) -> None:
        """Show this in place of what was shown."""
        with self._lock:
            if self._live:
                width = shutil.get_terminal_size().columns - 1
                self._out.write(f"{_CLEAR}{what}…"[: width + len(_CLEAR)])
                self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._live:
                self._live = False
                self._out.write(_CLEAR)
                self._out.flush()
