"""Kong's side of both plugin-server protocols, with nothing of Kong behind it.

A slot is one of Kong's coroutines: it sends a request's access phase, answers the PDK calls with
what the stand-in in tests/contract/kong answers, looks at the credential, and then sends the log
phase. All slots are driven by one thread, so the client costs little and the same for both.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgpack  # type: ignore[import-untyped] # ships no types

from tests.contract.kong import protobuf_values
from vaultauthz._pb import kong_pb2 as pb
from vaultauthz.kong.calls import frame
from vaultauthz.kong.connection import Frames

SET = "kong.service.request.set_headers"
CONFIG = json.dumps({"upstream": "bearer", "__seq__": 1, "__plugin_id": "1"})


class WrongError(Exception):
    """The server has answered what no Kong could go on with."""


@dataclass
class Tally:
    """What was seen: seconds of each access phase, and PDK calls."""

    wanted: str
    seconds: list[float] = field(default_factory=list)
    pdk_calls: int = 0


class Client:
    """The PDK's answers for one slot; `credential` is what the plugin has set in this request."""

    def __init__(self, number: int, tally: Tally) -> None:
        self._requests = itertools.count()
        self._number = number
        self.tally = tally
        self.began = 0.0
        self.id = ""
        self.credential = ""

    def begin(self) -> None:
        """The next request."""
        self.id = f"{self._number:08x}{next(self._requests):024x}"
        self.credential = ""
        self.began = time.perf_counter()

    def call(self, name: str, arguments: list[Any]) -> Any:
        """What Kong answers."""
        self.tally.pdk_calls += 1
        if name == "kong.nginx.get_var":
            return {"kong_request_id": self.id, "request": "GET /bearer/1?a=1 HTTP/1.1"}[
                arguments[0]
            ]
        if name in _ANSWERS:
            return _ANSWERS[name]
        if name == SET:
            self.credential = arguments[0].get("authorization", "")
            return None
        if name == "kong.log.serialize":
            return _SERIALIZED.replace("@", self.id)
        raise WrongError(name)

    def proxied(self) -> None:
        """The access phase is over: the credential has to be there."""
        if self.credential != self.tally.wanted:
            raise WrongError("a request without its credential")
        self.tally.seconds.append(time.perf_counter() - self.began)


_ANSWERS = {"kong.request.get_host": "api.test", "kong.client.get_consumer": None}
_SERIALIZED = json.dumps(
    {
        "request": {"id": "@", "headers": {f"x-header-{n}": "v" * 40 for n in range(12)}},
        "upstream_status": "200",
        "response": {"status": 200, "headers": {f"x-answer-{n}": "v" * 40 for n in range(8)}},
        "latencies": {"kong": 1, "proxy": 2, "request": 3},
        "route": {"id": "1", "name": "bearer", "paths": ["/bearer"]},
    }
)


class Slot(Protocol):
    """One connection's state; bytes come by `take`, `begin` sends the first."""

    def begin(self) -> None:
        """Start the instance."""

    def take(self, data: bytes) -> None:
        """Go on."""


class ProtoBuf:
    """ProtoBuf:1. Length and message go out in two pieces, as from Kong."""

    def __init__(self, sock: socket.socket, client: Client) -> None:
        self._sock, self._client = sock, client
        self._frames = Frames()
        self._sequence = 0
        self._instance = 0
        self._phase = ""
        self._method: str | None = None
        self._ended = False

    def begin(self) -> None:
        """See ``Slot``."""
        start = pb.CmdStartInstance(name="vault-authz", config=CONFIG.encode())
        self._send(pb.RpcCall(sequence=self._next(), cmd_start_instance=start).SerializeToString())

    def take(self, data: bytes) -> None:
        """See ``Slot``."""
        for message in self._frames.feed(data):
            self._take(message or b"")

    def _take(self, message: bytes) -> None:
        if not self._phase:
            self._instance = pb.RpcReturn.FromString(message).instance_status.instance_id
            self._event("access")
        elif self._ended:
            if pb.RpcReturn.FromString(message).sequence != self._sequence:
                raise WrongError("another call's RpcReturn")
            self._next_phase()
        elif self._method is None:
            self._method = message.decode()
            if not message:
                self._method, self._ended = None, True
        else:
            name, self._method = self._method, None
            result = self._client.call(name, protobuf_values.decoded(name, message))
            self._send(protobuf_values.encoded(name, result))

    def _next_phase(self) -> None:
        if self._phase == "access":
            self._client.proxied()
        self._event("log" if self._phase == "access" else "access")

    def _event(self, phase: str) -> None:
        self._phase, self._ended = phase, False
        if phase == "access":
            self._client.begin()
        event = pb.CmdHandleEvent(instance_id=self._instance, event_name=phase)
        call = pb.RpcCall(sequence=self._next(), cmd_handle_event=event)
        self._send(call.SerializeToString())

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _send(self, message: bytes) -> None:
        whole = frame(message)
        self._sock.send(whole[:4])
        if message:
            self._sock.send(whole[4:])


class MsgPack:
    """MsgPack:1."""

    def __init__(self, sock: socket.socket, client: Client) -> None:
        self._sock, self._client = sock, client
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        self._number = 0
        self._instance: int | None = None
        self._phase = "access"

    def begin(self) -> None:
        """See ``Slot``."""
        self._call("plugin.StartInstance", {"Name": "vault-authz", "Config": CONFIG})

    def take(self, data: bytes) -> None:
        """See ``Slot``."""
        self._unpacker.feed(data)
        for _, number, error, result in self._unpacker:
            if number != self._number or error is not None:
                raise WrongError(error)
            self._take(result)

    def _take(self, result: dict[str, Any]) -> None:
        if self._instance is None:
            self._instance = result["Id"]
            self._event("access")
        elif result["Data"] == "ret":
            if self._phase == "access":
                self._client.proxied()
            self._event("log" if self._phase == "access" else "access")
        else:
            call = result["Data"]
            answer = {
                "EventId": result["EventId"],
                "Data": self._client.call(call["Method"], call["Args"]),
            }
            self._call("plugin.Step", {k: v for k, v in answer.items() if v is not None})

    def _event(self, phase: str) -> None:
        self._phase = phase
        if phase == "access":
            self._client.begin()
        self._call("plugin.HandleEvent", {"InstanceId": self._instance, "EventName": phase})

    def _call(self, method: str, argument: dict[str, Any]) -> None:
        self._number += 1
        self._sock.send(msgpack.packb([0, self._number, method, [argument]]))


def drive(
    path: Path, protocol: type[ProtoBuf | MsgPack], slots: int, tally: Tally, seconds: float
) -> float:
    """Requests on so many connections for so long; how long it was.

    Raises:
        WrongError: a wrong answer, or none.
    """
    with selectors.DefaultSelector() as selector:
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(slots)]
        try:
            for number, sock in enumerate(sockets):
                sock.connect(str(path))
                slot = protocol(sock, Client(number, tally))
                selector.register(sock, selectors.EVENT_READ, slot)
                slot.begin()
            return _serve(selector, seconds)
        finally:
            for sock in sockets:
                sock.close()


def _serve(selector: selectors.BaseSelector, seconds: float) -> float:
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        ready = selector.select(5)
        if not ready:
            raise WrongError("the server has stopped answering")
        for key, _ in ready:
            data = key.fileobj.recv(65_536)  # type: ignore[union-attr] # a socket
            if not data:
                raise WrongError("the server has hung up")
            key.data.take(data)
    return took
