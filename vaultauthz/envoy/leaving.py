"""Sends gateways away from a server that is about to end, without cutting a call short.

By HTTP/2's GOAWAY (RFC 9113, 6.8): "no new streams here", with the highest number, so that each call that is
on its way is still answered. Neither library can say so and go on answering: grpcio (1.85) answers no call that
arrives after its ``stop``, and pygrpc-native (0.5) hangs up. So the frame is written to the connections
beside them. The kernel puts what is sent in one call into a stream in one piece while there is room;
so it is written only where nothing waits to be read, when no half of an answer to a check can be waiting in the
library. (Of a message that is larger than the socket's buffer, as SDS may have, one could in the instant
between its halves: that connection would break, and Envoy opens another.)

Over TLS a frame cannot be written beside the library. There each connection is of a minute's age at most, and
ends in the same way by itself (``grpcio_transport.OLDEST``): that is waited for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable, Collection
from typing import Final

from vaultauthz.envoy.connected import connected_to

# Length 8, type 7, no flags, stream 0; the last stream that is looked at, NO_ERROR.
GOAWAY: Final = struct.pack(">HBBBIII", 0, 8, 7, 0, 0, 2**31 - 1, 0)
# A connection must have had the server's first frame before: SETTINGS, sent when it is taken in.
_SETTLED: Final = 0.25  # seconds
_LOOK: Final = 0.01


class Leaving:
    """``places`` are those of ``connected_to``. ``mute``: connections are over TLS, and only counted."""

    def __init__(self, places: Collection[str | int], *, mute: bool = False) -> None:
        self._places = places
        self._mute = mute
        self._seen: dict[int, float] = {}  # connections by inode, and since when
        self._told: set[int] = set()

    def look(self, now: float) -> int:
        """Tell those that are to be told; how many connections there are. ``now`` is monotonic."""
        count = 0
        with contextlib.suppress(OSError):  # nobody tells which there are
            for one in connected_to(self._places):
                count += 1
                self._tell(one, os.fstat(one.fileno()).st_ino, now)
        return count

    def _tell(self, one: socket.socket, inode: int, now: float) -> None:
        settled = now - self._seen.setdefault(inode, now) >= _SETTLED
        with contextlib.suppress(OSError):  # it ends by itself
            if not self._mute and settled and inode not in self._told and not _unread(one):
                one.sendmsg([GOAWAY], [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                self._told.add(inode)


def send_away(
    leaving: Leaving,
    seconds: float,
    told: Callable[[], None] = lambda: None,
    over: Callable[[], bool] = lambda: False,
) -> bool:
    """Have all of them go, and wait for so long, or until it is ``over``; whether they are gone.

    ``told`` is called once they know: what would keep them, as streams do, is to end.
    """
    began, ending = time.monotonic(), False
    while leaving.look(now := time.monotonic()) and now - began < seconds and not over():
        if not ending and now - began > 2 * _SETTLED:
            told()
            ending = True
        time.sleep(_LOOK)
    if not ending:
        told()
    return not leaving.look(now)


def _unread(one: socket.socket) -> int:
    """Bytes that were sent and that the other side has not read."""
    waiting: int
    (waiting,) = struct.unpack("i", fcntl.ioctl(one, termios.TIOCOUTQ, b"\0" * 4))
    return waiting
