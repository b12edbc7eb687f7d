"""What has come in on a stream, for the thread that answers it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final, Self

# Bytes that may wait to be read. Then the client's own flow control holds it up.
ROOM: Final = 256 * 1024


class EndedError(Exception):
    """Nothing comes any more: the client, or we, have ended the stream."""


class Inbox(Iterator[bytes]):
    """A stream's messages in order; safe for threads.

    One reads, by iterating or, to be woken for other reasons too, by ``take``. What
    came before the end is still read after it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._rung = False
        self._ended = False

    def put(self, message: bytes) -> bool:
        """Add a message, when there is room for it; False when the stream has ended."""
        with self._changed:
            while self._bytes > ROOM and not self._ended:
                self._changed.wait()
            if self._ended:
                return False
            self._messages.append(message)
            self._bytes += len(message)
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """Nothing comes after this."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def ring(self) -> None:
        """Wake ``take`` without a message, now or when it is next called."""
        with self._changed:
            self._rung = True
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> bytes | None:
        """The next message; None when it was rung for, or after ``timeout`` seconds.

        Raises:
            EndedError: there is none, and none will come.
        """
        with self._changed:
            if not (self._messages or self._rung or self._ended):
                self._changed.wait(timeout)
            self._rung = False
            if self._messages:
                message = self._messages.popleft()
                self._bytes -= len(message)
                self._changed.notify_all()
                return message
            if self._ended:
                raise EndedError
            return None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            while (message := self.take()) is None:
                pass
        except EndedError:
            raise StopIteration from None
        return message
