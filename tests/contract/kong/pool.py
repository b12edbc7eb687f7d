"""A worker's connections to the plugin server: one call at a time on each, the last used is taken first.

As nginx's cosockets: no limit to open connections, only to idle ones; an idle connection on which anything
happens (the server closes it, or sends an answer that is too late) is closed and not handed out again.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from pathlib import Path

from tests.contract.kong.routes import Settings


class Lost(Exception):  # noqa: N818 - what cosockets return as `err`
    """An operation failed; the message is what nginx says: "closed", "timeout", "connection refused"."""


def reason(error: OSError) -> str:
    """The word of nginx for a socket's error."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, BlockingIOError):  # a unix socket whose backlog is full refuses at once
        return "resource temporarily unavailable"
    return (error.strerror or str(error)).lower()


class Connection:
    """One connection. After a timeout it is still usable, after any other failure `broken`."""

    def __init__(self, path: Path, timeout: float) -> None:
        self.broken = False
        self.idle_since = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(str(path))
            self._socket.settimeout(timeout)
        except OSError as error:
            self._socket.close()
            raise Lost(reason(error)) from error

    def send(self, data: bytes) -> None:
        """Send all of it. Raises Lost."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(reason(error)) from error

    def receive_any(self, most: int = 4096) -> bytes:
        """What is there, at least one byte. Raises Lost."""
        try:
            data = self._socket.recv(most)
        except OSError as error:
            raise self._lost(reason(error)) from error
        if not data:
            raise self._lost("closed")
        return data

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes. Raises Lost, also when the server closes in the middle."""
        parts = []
        while size > 0:
            parts.append(self.receive_any(min(size, 65536)))
            size -= len(parts[-1])
        return b"".join(parts)

    def stirred(self) -> bool:
        """Whether there is something to read, or the other side has closed."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close it; once more is no harm."""
        self.broken = True
        self._socket.close()

    def _lost(self, why: str) -> Lost:
        self.broken = self.broken or why != "timeout"
        return Lost(why)


class Pool:
    """The connections of one worker."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.opened = 0
        self._path = path
        self._settings = settings
        self._idle: list[Connection] = []  # the last used at the end
        self._lock = threading.Lock()
        self._closed = threading.Event()
        if settings.notices_hangups:
            threading.Thread(target=self._notice, name="kong-pool", daemon=True).start()

    def _notice(self) -> None:
        """Close what stirs while it is idle, as nginx's event loop does."""
        while not self._closed.wait(0.01):
            with self._lock:
                stirred = [one for one in self._idle if one.stirred()]
                self._idle = [one for one in self._idle if one not in stirred]
            for one in stirred:
                one.close()

    def take(self) -> Connection:
        """The connection used last, or a new one. Raises Lost."""
        while (connection := self._pop()) is not None:
            old = time.monotonic() - connection.idle_since > self._settings.keepalive
            if not old and not (self._settings.notices_hangups and connection.stirred()):
                return connection
            connection.close()
        connection = Connection(self._path, self._settings.timeout)
        with self._lock:
            self.opened += 1
        return connection

    def put(self, connection: Connection) -> None:
        """`setkeepalive`: keep it for the next call, if it can be kept. Past the limit the oldest goes."""
        if connection.broken or (self._settings.notices_hangups and connection.stirred()):
            connection.close()
            return
        connection.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(connection)
            over = self._idle[: -self._settings.pool_size]
            del self._idle[: len(over)]
        for one in over:
            one.close()

    @property
    def idle(self) -> int:
        """How many connections wait for their next call."""
        with self._lock:
            return len(self._idle)

    def close(self) -> None:
        """Close what is idle."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _pop(self) -> Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None
