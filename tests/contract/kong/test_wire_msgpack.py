"""MsgPack:1 with answers that no plugin server should give: which are passed over, and which are a 500."""

from __future__ import annotations

import json
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped] # ships no types
import pytest

from tests.contract.kong.answer import Answer, Verdict
from tests.contract.kong.kong import Kong
from tests.contract.kong.routes import Route, Server, Settings

Reply = Callable[[int], list[bytes]]  # from the call's id: what is sent; the empty one hangs up
INFO = [{"Name": "raw", "Phases": ["access"], "Priority": 1, "Version": "1"}]
SCHEMA = {"fields": [{"config": {"type": "record", "fields": []}}]}


def packed(*message: Any) -> bytes:
    data: bytes = msgpack.packb(list(message))
    return data


class RawServer:
    """Answers StartInstance, and every other call with `reply`."""

    def __init__(self, folder: Path) -> None:
        dump = json.dumps([{**INFO[0], "Schema": SCHEMA}])
        self.server = Server(folder / "raw.socket", f"printf %s {shlex.quote(dump)}")
        self.reply: Reply = lambda number: [packed(1, number, None, {"EventId": 1, "Data": "ret"})]
        self.calls: list[list[Any]] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.server.socket))
        self.listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        unpacker = msgpack.Unpacker(strict_map_key=False)
        with connection:
            while data := connection.recv(65536):
                unpacker.feed(data)
                for call in unpacker:
                    self.calls.append(call)
                    if not self._answer(connection, call):
                        return

    def _answer(self, connection: socket.socket, call: list[Any]) -> bool:
        started = packed(1, call[1], None, {"Id": 7, "Config": {}})
        replies = [started] if call[2] == "plugin.StartInstance" else self.reply(call[1])
        for reply in replies:
            if reply == b"":
                return False
            connection.sendall(reply)
        return True


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[RawServer]:
    server = RawServer(tmp_path)
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()


@pytest.fixture
def kong(raw: RawServer) -> Iterator[Kong]:
    with Kong(raw.server, [Route("r", "/", {})], workers=1, settings=Settings(timeout=2)) as kong:
        yield kong


def ask(kong: Kong, raw: RawServer, reply: Reply) -> Answer:
    raw.reply = reply
    return kong.request()


PASSED_OVER: dict[str, tuple[Reply, str | None]] = {
    "a hang-up": (lambda n: [b""], "no data"),
    "silence": (lambda n: [], "no data"),
    "an error": (lambda n: [packed(1, n, "it broke", None)], "it broke"),
    "no result and no error": (lambda n: [packed(1, n, None, None)], None),
}
FAILED: dict[str, tuple[Reply, str]] = {
    "another call's answer": (lambda n: [packed(1, n - 1, None, {})], "unexpected RPC response ID"),
    "no answer at all": (lambda n: [packed(0, n, None, {})], "RPC response expected"),
    "half an answer": (lambda n: [packed(1, n, None, {"Data": "ret"})[:-2], b""], "missing bytes"),
    "half an answer and silence": (lambda n: [packed(1, n)[:1]], "missing bytes"),
    "bytes without sense": (lambda n: [b"\xc1"], "unpack"),
    "a number": (lambda n: [b"\x05"], "attempt to index"),
    "an error that is no text": (lambda n: [packed(1, n, 5, None)], "lower"),
    "a step without a method": (lambda n: [packed(1, n, None, {"EventId": 1})], "attempt to index"),
}


@pytest.mark.parametrize("case", PASSED_OVER)
def test_what_is_passed_over(kong: Kong, raw: RawServer, case: str) -> None:
    """Errors that Lua returns are logged, and the request goes to the service without the plugin."""
    reply, error = PASSED_OVER[case]
    answer = ask(kong, raw, reply)
    assert (answer.verdict, answer.error) == (Verdict.PROXIED, error)


@pytest.mark.parametrize("case", FAILED)
def test_what_is_a_500(kong: Kong, raw: RawServer, case: str) -> None:
    """Errors that are raised in Lua end the request with 500; a connection in mid-answer is closed."""
    reply, error = FAILED[case]
    answer = ask(kong, raw, reply)
    assert (answer.verdict, answer.status) == (Verdict.FAILED, 500)
    assert error in str(answer.error)
    assert kong.workers[0].pool.idle == (1 if case == "a step without a method" else 0)


def test_an_unknown_instance_without_end(kong: Kong, raw: RawServer) -> None:
    """A server that never knows an instance keeps Kong starting new ones."""
    answer = ask(kong, raw, lambda n: [packed(1, n, "No plugin instance 7", None)])
    assert (answer.verdict, answer.access.retries) == (Verdict.ENDLESS, kong.settings.max_retries)


def test_the_bytes_of_a_call(kong: Kong, raw: RawServer) -> None:
    """A call is [0, id, method, [argument]], and the configuration is JSON text with Kong's own keys."""
    kong.request()
    start, event = raw.calls
    assert (start[0], start[2], start[3][0]["Name"]) == (0, "plugin.StartInstance", "raw")
    config = json.loads(start[3][0]["Config"])
    assert set(config) == {"__key__", "__seq__", "__ws_id", "__plugin_id", "route_id"}
    assert event == [0, 2, "plugin.HandleEvent", [{"InstanceId": 7, "EventName": "access"}]]


def test_nil_is_left_out_of_a_step(kong: Kong, raw: RawServer) -> None:
    """A result of nil leaves `Data` out; a consumer comes in a step of its own name; an empty map stays a map."""
    asked = iter(["kong.client.get_consumer", "kong.request.get_query", "kong.nginx.get_ctx"])

    def reply(number: int) -> list[bytes]:
        method = next(asked, None)
        data: Any = {"Method": method, "Args": []} if method else "ret"
        return [packed(1, number, None, {"EventId": 9, "Data": data})]

    assert ask(kong, raw, reply).error is None
    steps = [(call[2], call[3]) for call in raw.calls[2:]]
    assert steps == [
        ("plugin.StepConsumer", [{"EventId": 9}]),
        ("plugin.StepMultiMap", [{"EventId": 9, "Data": {}}]),
        ("plugin.Step", [{"EventId": 9}]),
    ]


def test_notifications_come_before_answers(kong: Kong, raw: RawServer) -> None:
    """A new `serverPid` makes the worker forget its instances."""
    ret = {"EventId": 1, "Data": "ret"}
    for pid in (100, 100, 200):
        known = ask(kong, raw, lambda n: [packed(2, "serverPid", pid) + packed(1, n, None, ret)])  # noqa: B023 - asked at once
        assert known.error is None
    assert kong.workers[0].instances.known == {}


def test_what_follows_an_answer_is_dropped(kong: Kong, raw: RawServer) -> None:
    """Bytes that arrive together with the answer are lost without a word."""
    ret = {"EventId": 1, "Data": "ret"}
    for _ in range(2):
        assert ask(kong, raw, lambda n: [packed(1, n, None, ret) + b"\xc1more"]).error is None
    assert kong.workers[0].pool.opened == 1
