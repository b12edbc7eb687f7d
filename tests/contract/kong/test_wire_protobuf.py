"""ProtoBuf:1 against the tiny server: the bytes, the values, and what is a 500."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract.kong.adversary import PROTOBUF, Intruder, frame
from tests.contract.kong.answer import Answer, Verdict
from tests.contract.kong.kong import Kong
from tests.contract.kong.process import wait_until
from tests.contract.kong.routes import Consumer, Route, Settings
from tests.contract.kong.tiny import Event, HangUp, HungUp, TinyServer
from vaultauthz._pb import kong_pb2 as pb

Script = Callable[[Event], object]
EXIT = "kong.response.exit"
LENGTH = struct.Struct("<I")


def text(value: str) -> pb.Value:
    return pb.Value(string_value=value.encode())


def table(**values: pb.Value) -> pb.Struct:
    entries = [
        pb.Struct.Entry(key=k.replace("_", "-").encode(), value=v) for k, v in values.items()
    ]
    return pb.Struct(fields=entries)


def inject(event: Event) -> None:
    """What a plugin should do: hang up for an instance it does not know, else set the credential."""
    if event.config is None:
        raise HangUp
    if event.phase != "access":
        return
    credential = event.config["credential"]
    event.call(
        "kong.service.request.set_headers", table(Authorization=text(f"Bearer {credential}"))
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[TinyServer]:
    with TinyServer(tmp_path, inject, phases=("access", "log")) as server:
        yield server


@pytest.fixture
def kong(tiny: TinyServer) -> Iterator[Kong]:
    routes = [Route(name, f"/{name}", {"credential": name}) for name in ("pay", "geo")]
    with Kong(tiny.server, routes, workers=1, settings=Settings(timeout=2)) as running:
        yield running


def ask(kong: Kong, tiny: TinyServer, script: Script, **sent: object) -> Answer:
    """One request whose access phase runs the script; the log phase does nothing."""
    tiny.script = lambda event: script(event) if event.phase == "access" else None
    answer = kong.request(path="/pay", **sent)  # type: ignore[arg-type] # the keywords of Kong.request
    answer.log.wait()
    return answer


def test_each_route_gets_its_own_credential(kong: Kong) -> None:
    """Two routes, two instances, n + 1 round trips, one connection for all of it."""
    for name in ("pay", "geo", "pay"):
        answer = kong.request(path=f"/{name}")
        assert answer.upstream.header("Authorization") == f"Bearer {name}"
        assert answer.access.round_trips == 2
        answer.log.wait()
    assert kong.workers[0].instances.starts == 2
    assert kong.workers[0].pool.opened == 1


def test_the_bytes_of_a_call(kong: Kong, tiny: TinyServer) -> None:
    """StartInstance carries the config as JSON, HandleEvent the id; sequences begin at 2; nil is an empty frame."""
    ask(kong, tiny, lambda event: event.call("kong.client.get_consumer"))
    start, event, nothing = tiny.heard[:3]
    started = pb.RpcCall.FromString(start)
    assert (started.sequence, started.cmd_start_instance.name) == (2, "tiny")
    config = json.loads(started.cmd_start_instance.config)
    assert set(config) - {"credential"} == {
        "__key__",
        "__seq__",
        "__ws_id",
        "__plugin_id",
        "route_id",
    }
    assert event == b"\x08\x03" + b"\xa2\x02\x0b" + b"\x08\xe8\x07" + b"\x12\x06access"
    assert nothing == b""


def test_what_the_pdk_gives(kong: Kong, tiny: TinyServer) -> None:
    """A client's bytes come as they are; groups are a list; what is not there is no bytes."""
    got: dict[str, object] = {}

    def script(event: Event) -> None:
        got["consumer"] = pb.Consumer.FromString(event.call("kong.client.get_consumer")).username
        header = event.call("kong.request.get_header", pb.String(v=b"X-Odd"))
        got["header"] = pb.String.FromString(header).v
        groups = event.call("kong.nginx.get_ctx", pb.String(v=b"authenticated_groups"))
        got["groups"] = [v.string_value for v in pb.Value.FromString(groups).list_value.values]
        shared = event.call("kong.ctx.shared.get", pb.String(v=b"no_such_key"))
        got["nil"] = (shared, pb.Value.FromString(shared).null_value)
        headers = pb.Struct.FromString(event.call("kong.request.get_headers", pb.Int(v=100)))
        got["names"] = {entry.key for entry in headers.fields}
        got["body"] = pb.RawBodyResult.FromString(event.call("kong.request.get_raw_body")).content

    who = Consumer("shop", groups=("partners",))
    answer = ask(kong, tiny, script, headers=[("X-Odd", b"\xe9")], consumer=who, body=b"\x00\xff")
    assert answer.verdict is Verdict.PROXIED
    names = got.pop("names")
    assert isinstance(names, set)
    assert {b"x-odd", b"host", b"x-consumer-username"} <= names
    assert got == {
        "consumer": "shop",
        "header": b"\xe9",
        "groups": [b"partners"],
        "nil": (b"\x08\x01", 1),
        "body": b"\x00\xff",
    }


def test_exit_ends_the_event(kong: Kong, tiny: TinyServer) -> None:
    """The client gets status, body and headers; Kong answers nothing and closes the connection."""
    seen: list[str] = []

    def script(event: Event) -> None:
        arguments = pb.ExitArgs(status=503, headers=table(Retry_After=text("2")))
        try:
            event.call(EXIT, arguments)
        except HungUp:
            seen.append("hung up")
            raise

    answer = ask(kong, tiny, script)
    assert (answer.verdict, answer.status, answer.body) == (Verdict.ANSWERED, 503, b"")
    assert answer.header("Retry-After") == "2"
    assert answer.received is None
    wait_until(lambda: seen == ["hung up"], "the server has noticed")
    assert kong.workers[0].pool.opened == 2  # the log phase needed another connection
    assert answer.log.serialized["upstream_status"] == ""
    assert answer.log.serialized["source"] == "kong"


def test_an_instance_that_is_not_known(kong: Kong, tiny: TinyServer) -> None:
    """Hanging up makes Kong start its instances anew: one more try, and the right credential."""
    for name in ("pay", "geo"):
        kong.request(path=f"/{name}").log.wait()
    tiny.instances.clear()  # as in a new process
    answer = kong.request(path="/pay")
    assert (answer.access.retries, answer.upstream.header("Authorization")) == (1, "Bearer pay")


def test_hanging_up_on_every_event_never_ends(kong: Kong, tiny: TinyServer) -> None:
    """Whoever closes a live connection because something went wrong is asked again, for ever."""

    def script(event: Event) -> None:
        raise HangUp

    answer = ask(kong, tiny, script)
    assert (answer.verdict, answer.access.retries) == (Verdict.ENDLESS, kong.settings.max_retries)


def test_a_server_that_is_down_is_a_500(kong: Kong, tiny: TinyServer) -> None:
    """With an instance or without: nothing is passed over in this protocol."""
    kong.request(path="/pay").log.wait()
    tiny.__exit__(None, None, None)
    for name in ("pay", "geo"):
        answer = kong.request(path=f"/{name}")
        assert (answer.verdict, answer.status) == (Verdict.FAILED, 500)
        assert "connection refused" in str(answer.error)
        assert answer.received is None


def _raw(data: bytes) -> Script:
    return lambda event: event.wire.send(data)


def _calls(name: str, argument: pb.Int | pb.Struct | pb.String | None = None) -> Script:
    return lambda event: event.call(name, argument)


def _silent(event: Event) -> None:
    event.wire.read()  # Kong sends nothing before it has an answer


def _too_short(event: Event) -> None:
    event.wire.send(LENGTH.pack(99) + b"kong.")
    event.wire.read()


FAILED: dict[str, tuple[Script, str]] = {
    "silence": (_silent, "timeout"),
    "a longer frame than was sent": (_too_short, "timeout"),
    "another call's answer": (_raw(frame(b"") + frame(b"\x08\x63")), "assertion failed"),
    "an answer that is empty": (_raw(frame(b"") + frame(b"")), "assertion failed"),
    "an answer that is no message": (_raw(frame(b"") + frame(b"\xff\xff")), "pb.decode"),
    "a method that is not there": (_calls("kong.response.error"), "not found"),
    "a limit that is left out": (_calls("kong.request.get_headers", pb.Int()), "must be >= 1"),
    "an argument without a value": (
        _calls("kong.request.get_query_arg", pb.String(v=b"flag")),
        "pb.encode",
    ),
    "a header that is a table": (
        _calls(
            "kong.service.request.set_headers",
            table(X=pb.Value(struct_value=table(a=text("b")))),
        ),
        "invalid header value",
    ),
    "an exit of no status": (_calls(EXIT), "code must be a number between"),
}


@pytest.mark.parametrize("case", FAILED)
def test_what_is_a_500(kong: Kong, tiny: TinyServer, case: str) -> None:
    """Every failure of the server, and every argument that Lua does not like, ends the request."""
    script, error = FAILED[case]
    tiny.script = script
    answer = kong.request(path="/pay?flag")
    assert (answer.verdict, answer.status) == (Verdict.FAILED, 500)
    assert error in str(answer.error)
    assert answer.received is None


def test_a_null_is_a_word_and_false_is_nothing(kong: Kong, tiny: TinyServer) -> None:
    """Kong's conversion makes the text NULL_VALUE of a null, and loses a false."""
    headers = table(
        X_Null=pb.Value(null_value=0), X_False=pb.Value(bool_value=False), X_Empty=text("")
    )
    answer = ask(kong, tiny, _calls("kong.service.request.set_headers", headers))
    assert answer.upstream.header("X-Null") == "NULL_VALUE"
    assert answer.upstream.header("X-False") is None
    assert answer.upstream.header("X-Empty") == " "


def test_setting_replaces_every_copy(kong: Kong, tiny: TinyServer) -> None:
    """A client's copies go, in any letter case; the same name with underscores is another header."""
    sent = [("authorization", "a"), ("AUTHORIZATION", "b"), ("X_Api_Key", "mine")]
    headers = table(Authorization=text("Bearer x"), X_Api_Key=text("ours\r\nX-More: 1"))
    answer = ask(kong, tiny, _calls("kong.service.request.set_headers", headers), headers=sent)
    assert answer.upstream.values("authorization") == ["Bearer x"]
    assert answer.upstream.header("X_Api_Key") == "mine"
    assert answer.upstream.header("X-Api-Key") == "ours%0D%0AX-More: 1"


def test_the_query_can_be_set(kong: Kong, tiny: TinyServer) -> None:
    """`set_raw_query` takes it as it is; the log phase sees what the service got."""

    def script(event: Event) -> None:
        was = pb.String.FromString(event.call("kong.request.get_raw_query")).v
        event.call("kong.service.request.set_raw_query", pb.String(v=was + b"&key=s%20t"))

    tiny.script = lambda event: script(event) if event.phase == "access" else None
    answer = kong.request(path="/pay?a=1")
    assert answer.upstream.arguments == [("a", "1"), ("key", "s t")]
    assert answer.log.serialized["request"]["querystring"] == {"a": "1", "key": "s t"}


def test_a_failing_log_phase_is_only_logged(kong: Kong, tiny: TinyServer) -> None:
    """The client has its answer; what needs nginx's request raises, and so does Kong's own 500."""

    def script(event: Event) -> None:
        if event.phase == "log":
            event.call("kong.request.get_host")

    tiny.script = script
    answer = kong.request(path="/pay")
    assert answer.status == 200
    assert "API disabled" in str(answer.log.wait().error)
    tiny.script = lambda event: _silent(event) if event.phase == "log" else None
    quiet = kong.request(path="/pay").log.wait()
    assert [line.message for line in quiet.lines] == [
        "pluginserver error: timeout",
        "function cannot be called in log phase: kong.response.error",
    ]


@pytest.mark.parametrize("attack", PROTOBUF)
def test_an_intruder(kong: Kong, attack: str) -> None:
    """Whatever somebody else sends, Kong's own requests are answered."""
    with Intruder(kong.server.socket, PROTOBUF[attack]):
        assert kong.request(path="/pay").upstream.header("Authorization") == "Bearer pay"


def test_many_requests_at_once(kong: Kong) -> None:
    """Each request of eight threads gets its own route's credential, and the counts add up."""
    names = ["pay", "geo"] * 100

    def send(name: str) -> tuple[str, str | None]:
        answer = kong.request(path=f"/{name}")
        answer.log.wait()
        return name, answer.upstream.header("Authorization")

    with ThreadPoolExecutor(8) as threads:
        assert all(got == f"Bearer {name}" for name, got in threads.map(send, names))
    assert set(kong.routes["pay"].service.seen("Authorization")) == {"Bearer pay"}
    counted = {
        name: kong.counts[name] for name in ("proxied", "pdk calls", "round trips", "log events")
    }
    assert counted == {"proxied": 200, "pdk calls": 200, "round trips": 400, "log events": 200}
