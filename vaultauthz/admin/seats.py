"""Who is connected, and who must go when there is no seat left: never the newcomer.

A health probe is a newcomer, and is answered in a moment. So a connection that has no whole
request yet, or does not take its answer, has its seat until somebody else needs it: the one
that has had it for longest gives it up, of the address that has taken the most. However many
are slow, the next one is let in.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from dataclasses import dataclass
from math import inf
from threading import Lock


@dataclass(slots=True)
class _Seat:
    address: str
    since: float
    ends_at: float
    ours: bool = False  # the answer is being made: whoever is slow, it is not the client


class Seats:
    """At most ``most`` connections; times are in seconds on any clock. Safe for threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._taken: dict[socket.socket, _Seat] = {}

    def take(self, connection: socket.socket, address: str, now: float, whole: float) -> bool:
        """A seat for a connection from ``address`` ("" for a unix socket's).

        False when everybody who sits is being worked for.
        """
        with self._lock:
            if len(self._taken) >= self._most and not self._free_one():
                return False
            self._taken[connection] = _Seat(address, now, now + whole)
            return True

    def _free_one(self) -> bool:
        slow = [(c, seat) for c, seat in self._taken.items() if not seat.ours]
        if not slow:
            return False
        crowd = Counter(seat.address for _, seat in slow)
        first = min(slow, key=lambda each: (-crowd[each[1].address], each[1].since))
        self._hang_up(first[0])
        return True

    def wrapped(self, connection: socket.socket, tls: socket.socket) -> None:
        """The same connection under another name.

        Raises:
            ConnectionAbortedError: it has been hung up on meanwhile.
        """
        with self._lock:
            seat = self._taken.pop(connection, None)
            if seat is None:
                raise ConnectionAbortedError
            self._taken[tls] = seat

    def begin(self, connection: socket.socket, now: float, whole: float) -> None:
        """It waits for its next request, which has ``whole`` seconds until it is answered."""
        self._enter(connection, now, ends_at=now + whole)

    def work(self, connection: socket.socket, now: float) -> None:
        """Its request is there."""
        self._enter(connection, now, ours=True)

    def send(self, connection: socket.socket, now: float) -> None:
        """It is to take its answer."""
        self._enter(connection, now)

    def _enter(
        self,
        connection: socket.socket,
        now: float,
        *,
        ours: bool = False,
        ends_at: float | None = None,
    ) -> None:
        with self._lock:
            seat = self._taken.get(connection)
            if seat is not None:  # else it has been hung up on
                seat.ours, seat.since = ours, now
                seat.ends_at = seat.ends_at if ends_at is None else ends_at

    def leave(self, connection: socket.socket) -> None:
        """It has ended."""
        with self._lock:
            self._taken.pop(connection, None)

    def end_late(self, now: float = inf) -> None:
        """Hang up on those whose time is over: by default, on everybody."""
        with self._lock:
            for connection in [c for c, seat in self._taken.items() if seat.ends_at <= now]:
                self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        del self._taken[connection]
        with contextlib.suppress(OSError):
            # Not close(): its thread still holds it, and wakes from this.
            # Not SSLSocket.shutdown() either: it drops the encryption first, and an
            # answer that goes out just then would go in clear.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
