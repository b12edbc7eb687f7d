"""The smallest server that speaks ProtoBuf:1, in threads of the test: what it does in an event, the test says.

It is there to test the stand-in, and to show in one place what a server has to do.
"""

from __future__ import annotations

import itertools
import json
import shlex
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import DecodeError, Message

from tests.contract.kong.adversary import frame
from tests.contract.kong.routes import Server
from tests.contract.kong.wire_protobuf import LENGTH
from tests.patience import PATIENCE
from vaultauthz._pb import kong_pb2 as pb

SCHEMA = {
    "name": "tiny",
    "fields": [{"config": {"type": "record", "fields": [{"credential": {"type": "string"}}]}}],
}


MOST = 1 << 20  # bytes of a frame


class HungUp(Exception):  # noqa: N818 - Kong has closed the connection
    """The other side has closed."""


class HangUp(Exception):  # noqa: N818 - what a script raises to close the connection
    """Close the connection without an answer."""


@dataclass
class Event:
    """One event, as a script sees it."""

    config: dict[str, Any] | None  # None: no such instance
    phase: str
    wire: Wire

    def call(self, name: str, argument: Message | None = None) -> bytes:
        """A PDK call: two frames there, one back. Raises HungUp after `kong.response.exit`."""
        self.wire.send(frame(name.encode()))
        self.wire.send(frame(argument.SerializeToString() if argument is not None else b""))
        return self.wire.read()


class Wire:
    """A connection from Kong; `heard` gets every frame."""

    def __init__(self, connection: socket.socket, heard: list[bytes]) -> None:
        self._connection = connection
        self._heard = heard

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._connection.sendall(data)

    def read(self) -> bytes:
        """The next frame's message. Raises HungUp."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        if length > MOST:
            raise HangUp
        message = self._exactly(length)
        self._heard.append(message)
        return message

    def _exactly(self, size: int) -> bytes:
        data = self._connection.recv(size, socket.MSG_WAITALL) if size else b""
        if len(data) < size:
            raise HungUp
        return data


class TinyServer:
    """The server; `script` runs in each event. A context manager."""

    def __init__(
        self, folder: Path, script: Callable[[Event], object], phases: tuple[str, ...] = ("access",)
    ) -> None:
        plugin = {
            "Name": "tiny",
            "Phases": phases,
            "Priority": 900,
            "Version": "1",
            "Schema": SCHEMA,
        }
        dump = json.dumps({"Protocol": "ProtoBuf:1", "Plugins": [plugin]})
        self.server = Server(folder / "tiny.socket", f"printf %s {shlex.quote(dump)}")
        self.script = script
        self.heard: list[bytes] = []  # every frame from Kong
        self.connections = 0
        self.instances: dict[int, dict[str, Any]] = {}
        self._ids = itertools.count(1000)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self.server.socket.unlink(missing_ok=True)
        self._listener.bind(str(self.server.socket))
        self._listener.listen(128)
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in [self._listener, *self._open]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(PATIENCE)
        for one in [self._listener, *self._open]:
            one.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc] # bound now

    def _serve(self, connection: socket.socket) -> None:
        wire = Wire(connection, self.heard)
        try:
            while True:
                call = pb.RpcCall.FromString(wire.read())
                wire.send(frame(self._answer(wire, call).SerializeToString()))
        except (HungUp, HangUp, OSError, ValueError, DecodeError):
            connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, wire: Wire, call: pb.RpcCall) -> pb.RpcReturn:
        answer = pb.RpcReturn(sequence=call.sequence)
        if call.HasField("cmd_start_instance"):
            number = next(self._ids)
            self.instances[number] = json.loads(call.cmd_start_instance.config)
            answer.instance_status.instance_id = number
        elif call.HasField("cmd_handle_event"):
            event = call.cmd_handle_event
            config = self.instances.get(event.instance_id)
            self.script(Event(config, event.event_name, wire))
            wire.send(frame(b""))
        else:
            self.instances.pop(call.cmd_close_instance.instance_id, None)
        return answer
