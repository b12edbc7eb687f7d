"""How two servers talk while one takes over from the other: JSON objects by line, descriptors beside them."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Collection
from typing import Any, Final

_LONGEST: Final = 1 << 24  # bytes: ten thousand upstreams are half a megabyte
_MOST: Final = 16  # descriptors


class Talk:
    """A line on which each side says one JSON object at a time, with descriptors beside it."""

    def __init__(self, line: socket.socket, patience: float) -> None:
        line.settimeout(patience)
        self.line = line
        self.sockets: list[socket.socket] = []
        self.rest = b""  # read already, of what comes next
        self._patience = patience

    def say(self, what: dict[str, Any], sockets: Collection[socket.socket] = ()) -> None:
        """Send it. Raises OSError."""
        data = json.dumps(what).encode() + b"\n"
        fds = array.array("i", [one.fileno() for one in sockets])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
        if rest := data[self.line.sendmsg([data], rights) :]:
            self.line.sendall(rest)

    def hear(self, seconds: float | None = None) -> dict[str, Any]:
        """What the other side says within so many seconds.

        Raises:
            OSError: it has ended, says nothing, or nothing that can be read.
        """
        self.line.settimeout(self._patience if seconds is None else seconds)
        try:
            while b"\n" not in self.rest:
                data = self._received()
                if not data or len(self.rest) > _LONGEST:
                    raise ConnectionError("it has ended")
                self.rest += data
        finally:
            self.line.settimeout(self._patience)
        text, _, self.rest = self.rest.partition(b"\n")
        with contextlib.suppress(ValueError):
            if isinstance(told := json.loads(text), dict):
                return told
        raise ConnectionError("it says what is no JSON object")

    def _received(self) -> bytes:
        data, fds, _, _ = socket.recv_fds(self.line, 65_536, _MOST)
        for fd in fds:
            os.set_inheritable(fd, False)
            self.sockets.append(socket.socket(fileno=fd))
        return data
