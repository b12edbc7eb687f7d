"""Somebody who is not Kong on the plugin server's socket: stalls, wrong lengths, bytes without sense.

A server has to bear all of it: no effect on anybody's request, no memory for a length that was only claimed.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

import msgpack  # type: ignore[import-untyped] # ships no types

from tests.contract.kong.wire_protobuf import LENGTH
from tests.patience import PATIENCE
from vaultauthz._pb import kong_pb2 as pb

NOISE = random.Random(7).randbytes(4096)


def frame(message: bytes) -> bytes:
    """A whole frame of ProtoBuf:1."""
    return LENGTH.pack(len(message)) + message


def event(number: int, phase: str = "access", sequence: int = 2) -> bytes:
    """A frame that asks for an event of this instance."""
    command = pb.CmdHandleEvent(instance_id=number, event_name=phase)
    return frame(pb.RpcCall(sequence=sequence, cmd_handle_event=command).SerializeToString())


PROTOBUF: dict[str, bytes] = {
    "nothing": b"",
    "half a length": b"\x10\x00",
    "a length and no message": LENGTH.pack(100),
    "half a message": frame(b"x" * 100)[:40],
    "the longest length": b"\xff\xff\xff\xff",
    "a length of 2 GiB and some of it": LENGTH.pack(2**31) + NOISE,
    "an empty frame": frame(b""),
    "no command": frame(pb.RpcCall(sequence=2).SerializeToString()),
    "bytes that are no message": frame(b"\xff\xff\xff\xff"),
    "noise in a frame": frame(NOISE),
    "noise": NOISE,
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an event of no instance": event(-1),
    "an event of no phase": event(0, "no_such_phase"),
    "a config that is no JSON": frame(
        pb.RpcCall(
            sequence=2, cmd_start_instance=pb.CmdStartInstance(name="x", config=b"{\xff")
        ).SerializeToString()
    ),
    "many events at once": event(0) * 50,
}
MSGPACK: dict[str, bytes] = {
    "nothing": b"",
    "half a message": msgpack.packb([0, 1, "plugin.HandleEvent", [{"InstanceId": 0}]])[:9],
    "a list that is too short": msgpack.packb([0, 1]),
    "a method of no namespace": msgpack.packb([0, 1, "HandleEvent", []]),
    "an unknown method": msgpack.packb([0, 1, "plugin.NoSuchThing", []]),
    "a step of no event": msgpack.packb([0, 1, "plugin.Step", [{"EventId": 10**9, "Data": 1}]]),
    "text that is not UTF-8": b"\x94\x00\x01\xa5\xff\xff\xff\xff\xff\x90",
    "a string of 4 GiB": b"\x94\x00\x01\xdb\xff\xff\xff\xff" + NOISE,
    "noise": NOISE,
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


class Intruder:
    """A raw connection to the server, left open until the end of the `with` block."""

    def __init__(self, path: Path, data: bytes = b"", *, timeout: float = PATIENCE) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self.send(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Send bytes; False when the server has hung up."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def finish(self) -> None:
        """Say that nothing more will come, and go on listening."""
        self._socket.shutdown(socket.SHUT_WR)

    def hear(self, most: int = 65536) -> bytes | None:
        """What the server says; b"" when it has hung up, None when it says nothing in time."""
        try:
            return self._socket.recv(most)
        except TimeoutError:
            return None
        except OSError:
            return b""
