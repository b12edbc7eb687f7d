"""Takes in who has connected to a socket of systemd's while no server was there.

Neither gRPC library can listen on a socket that is open already. So while we serve, the name leads to a
socket of our own, and systemd's is kept under another name (``SocketName.borrow``); when we stop it has its name
back, and who connects then waits in it, as before the first start. Those that waited are passed on to our
socket by a thread, frame by frame (RFC 9113, 4.1), and told by a GOAWAY between two frames to come again by
themselves; so no connection stays on this way for longer than its calls last.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from pathlib import Path
from threading import BoundedSemaphore, Thread
from typing import Final

from vaultauthz.envoy.leaving import GOAWAY

_HEAD: Final = 9  # bytes of a frame before what it carries; the first three are how much that is
_READ: Final = 65_536
_SETTLED: Final = 0.25  # seconds until GOAWAY: the calls that were waiting have come by then
_MOST: Final = 256  # connections at once
_LOOK_MS: Final = 200


class WaitingGateways:
    """Passes on who waits at ``given`` to the server at ``path``, from ``start`` to ``stop``."""

    def __init__(self, given: socket.socket, path: Path) -> None:
        self._given = given
        self._path = path
        self._room = BoundedSemaphore(_MOST)
        self._stopping = False
        self._thread = Thread(target=self._run, name="activation", daemon=True)

    def start(self) -> None:
        """Begin; the server has to answer by now."""
        self._given.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """Take in no more: who comes from now on waits for the next server."""
        self._stopping = True
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._given, select.POLLIN)
        while not self._stopping:
            if poll.poll(_LOOK_MS):
                with contextlib.suppress(OSError):  # it has gone again
                    client, _ = self._given.accept()
                    self._take_in(client)

    def _take_in(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._path))
        except OSError:
            there = False
        else:
            there = self._room.acquire(blocking=False)
        if not there:
            server.close()
            client.close()
            return
        Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        calls = Thread(target=_calls, args=(client, server), daemon=True)
        calls.start()
        with contextlib.suppress(OSError):
            _answers(server, client)
        for one in (client, server):
            _end(one)  # which wakes the other thread
        calls.join()
        client.close()
        server.close()
        self._room.release()


class FrameCutter:
    """Cuts a stream at the ends of HTTP/2's frames; ``count`` is how many went by."""

    def __init__(self) -> None:
        self.count = 0
        self._rest = b""

    def whole(self, data: bytes) -> bytes:
        """The whole frames that are there after ``data``, which comes next."""
        data = self._rest + data
        end = 0
        while len(data) - end >= _HEAD:
            length = _HEAD + int.from_bytes(data[end : end + 3])
            if len(data) - end < length:
                break
            end += length
            self.count += 1
        self._rest = data[end:]
        return data[:end]


def _answers(server: socket.socket, client: socket.socket) -> None:
    """From the server to the client, whole frames at a time. Raises OSError."""
    frames, began, told = FrameCutter(), time.monotonic(), False
    poll = select.poll()
    poll.register(server, select.POLLIN)
    while True:
        if poll.poll(1000 * _SETTLED):
            if not (data := server.recv(_READ)):
                return
            client.sendall(frames.whole(data))
        if not told and frames.count and time.monotonic() - began >= _SETTLED:
            client.sendall(GOAWAY)
            told = True


def _calls(client: socket.socket, server: socket.socket) -> None:
    """From the client to the server, as it comes."""
    with contextlib.suppress(OSError):
        while data := client.recv(_READ):
            server.sendall(data)
    _end(server)


def _end(one: socket.socket) -> None:
    """Both directions."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
