"""Streams over real sockets, in both transports: how many, how they end, what they may not disturb."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.contract.certificates import Authority
from tests.contract.faults import wait_until
from tests.contract.sds_client import Line, channel, streaming
from tests.contract.test_server import CHECK, TIMEOUT, Client, checked, client, trusting
from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.envoy.private_streams import private
from vaultauthz.envoy.rpc import (
    MESSAGE_LIMIT,
    NOT_FOUND,
    Inbox,
    RpcError,
    StreamMethod,
    collected,
)
from vaultauthz.envoy.server import GrpcServer
from vaultauthz.listening import ListenError

ECHO, COUNT, BAD = "/test.Streams/Echo", "/test.Streams/Count", "/test.Bad/Stream"


def echo(inbox: Inbox) -> Iterator[bytes]:
    """Each message comes back; two words end the stream badly."""
    for message in inbox:
        if message == b"missing":
            raise RpcError(NOT_FOUND, "no such thing")
        if message == b"broken":
            raise ValueError("hush-hush")
        yield message


def count(messages: Iterator[bytes]) -> bytes:
    """One answer, when all is read."""
    return str(sum(map(len, messages))).encode()


STREAMS = {ECHO: StreamMethod(echo), COUNT: collected(count), BAD: StreamMethod(echo)}


@pytest.fixture(params=["native", "grpcio"])
def listen(request: pytest.FixtureRequest) -> Listen:
    """Each transport."""
    return Listen("127.0.0.1:0", transport=request.param)


# Nobody, root included, makes a folder there.
NOT_WRITABLE = "/proc/self"


def echoed(server: GrpcServer, target: str = "") -> bytes:
    """What comes back for an `a`."""
    target = target or f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(target) as made, Line(made, ECHO) as line:
        line.send(b"a")
        return line.next()


def test_both_ways_at_once(listen: Listen) -> None:
    """Messages and answers in turn, and the client's end is the stream's."""
    with streaming(listen, STREAMS) as server, channel(server) as made, Line(made, ECHO) as line:
        for message in (b"a", b"b" * 100_000, b""):
            line.send(message)
            assert line.next() == message
        assert server.open_streams == 1
        line.end()
        assert line.code() == grpc.StatusCode.OK
        assert wait_until(lambda: server.open_streams == 0)


def test_one_answer_to_many_messages(listen: Listen) -> None:
    """As access logs want it, also by a client that knows only that form."""
    with streaming(listen, STREAMS) as server, channel(server) as made:
        call = made.stream_unary(COUNT, request_serializer=bytes, response_deserializer=bytes)
        assert call(iter([b"x" * 1000] * 1000), timeout=TIMEOUT) == b"1000000"


def test_how_a_stream_fails(listen: Listen, caplog: pytest.LogCaptureFixture) -> None:
    """By our own code and words; an error of ours shows nothing of itself."""
    with streaming(listen, STREAMS) as server, channel(server) as made:
        for message, code, words in (
            (b"missing", grpc.StatusCode.NOT_FOUND, "no such thing"),
            (b"broken", grpc.StatusCode.INTERNAL, "internal"),
            (b"x" * (MESSAGE_LIMIT + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, ""),
        ):
            with Line(made, ECHO) as line:
                line.send(message)
                assert line.code() == code
                assert words in line.call.details()
        with Line(made, "/test.Streams/Nothing") as line:
            assert line.code() == grpc.StatusCode.UNIMPLEMENTED
        assert wait_until(lambda: server.open_streams == 0)
    assert "a stream failed with ValueError" in caplog.text
    assert "hush" not in caplog.text


def test_one_too_many_is_refused(listen: Listen, caplog: pytest.LogCaptureFixture) -> None:
    """At once, counted, and told once a minute; a place that becomes free is given again."""
    with (
        caplog.at_level(logging.WARNING),
        streaming(listen, STREAMS, most=3) as server,
        channel(server) as made,
        contextlib.ExitStack() as open_ones,
    ):
        lines = [open_ones.enter_context(Line(made, ECHO)) for _ in range(3)]
        for line in lines:
            line.send(b"a")
            line.next()
        for _ in range(5):
            with Line(made, ECHO) as line:
                assert line.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.refused_streams == 5
        assert caplog.text.count("3 streams are open, which is the limit") == 1
        lines[0].call.cancel()
        assert wait_until(lambda: server.open_streams == 2)
        with Line(made, ECHO) as line:
            line.send(b"b")
            assert line.next() == b"b"


def test_checks_do_not_wait_for_streams(listen: Listen) -> None:
    """With many idle streams on the same connection, checks are answered."""
    with (
        streaming(listen, STREAMS, most=60) as server,
        client(f"127.0.0.1:{server.port}") as made,
        contextlib.ExitStack() as open_ones,
    ):
        for _ in range(60):
            line = open_ones.enter_context(Line(made.channel, ECHO))
            line.send(b"a")
            line.next()
        assert [made.check(checked()) for _ in range(50)] == [403] * 50


def test_a_client_that_vanishes(listen: Listen) -> None:
    """Its streams end with its connection."""
    with streaming(listen, STREAMS) as server:
        made = Client(f"127.0.0.1:{server.port}")
        with Line(made.channel, ECHO) as line:
            line.send(b"a")
            line.next()
            assert server.open_streams == 1
            made.channel.close()
            assert wait_until(lambda: server.open_streams == 0)


def test_the_end_of_the_server(listen: Listen) -> None:
    """Streams are ended at once with UNAVAILABLE, so that Envoy comes back; no thread stays."""
    with streaming(listen, STREAMS) as server, channel(server) as made, Line(made, ECHO) as line:
        line.send(b"a")
        line.next()
        stop = threading.Thread(target=server.stop, args=(60.0,))
        stop.start()
        assert line.code() == grpc.StatusCode.UNAVAILABLE
        stop.join(TIMEOUT)  # it does not wait for its grace to pass
        assert not stop.is_alive()
    assert wait_until(lambda: not stream_threads())


def stream_threads() -> list[str]:
    """The threads of streams that live."""
    return [t.name for t in threading.enumerate() if t.name.startswith("grpc-stream")]


def test_a_client_that_does_not_read(listen: Listen) -> None:
    """What is sent to it waits in its connection's window and no further; stop ends it."""
    made = 0

    def flood(inbox: Inbox) -> Iterator[bytes]:
        nonlocal made
        inbox.take()
        while True:
            made += 1
            yield b"x" * 50_000

    with (
        streaming(listen, {ECHO: StreamMethod(flood)}) as server,
        channel(server) as connection,
        Line(connection, ECHO) as line,
    ):
        line.send(b"a")
        seen = -1
        while made != seen or not made:  # until nothing moves any more
            seen = made
            threading.Event().wait(0.2)
        assert 0 < made < 400  # 20 MB; grpc's windows are some MB on loopback
        server.stop(0.5)
    assert wait_until(lambda: not stream_threads())


def test_a_client_that_sends_faster_than_it_is_heard(listen: Listen) -> None:
    """It is held back: what waits here is bounded."""
    heard, go_on = [0], threading.Event()

    def slow(inbox: Inbox) -> Iterator[bytes]:
        go_on.wait(TIMEOUT)
        heard[0] = sum(len(message) for message in inbox)
        yield b"done"

    sent = [0]

    def messages() -> Iterator[bytes]:
        for _ in range(2000):
            sent[0] += 1
            yield b"x" * 20_000

    with streaming(listen, {ECHO: StreamMethod(slow)}) as server, channel(server) as made:
        call = made.stream_stream(ECHO, request_serializer=bytes, response_deserializer=bytes)
        answers = call(messages(), timeout=3 * TIMEOUT)
        seen = -1
        while sent[0] != seen:
            seen = sent[0]
            threading.Event().wait(0.2)
        assert sent[0] < 2000
        go_on.set()
        assert list(answers) == [b"done"]
        assert heard[0] == 2000 * 20_000


def _no_place(*_: object) -> None:
    raise ListenError("no folder can be written")


@pytest.mark.parametrize("transport", ["native", "grpcio"])
@pytest.mark.parametrize("name", ["100%", "b%41b", "c#d", "e?f", "g h", "ü"])
def test_a_folder_of_any_name(
    tmp_path_factory: pytest.TempPathFactory, transport: str, name: str
) -> None:
    """To grpcio a target is a URI, and to the system a path is a path."""
    folder = tmp_path_factory.mktemp("n") / name
    folder.mkdir()
    near = folder.with_name("near")
    near.symlink_to(folder)  # for the client, which is grpcio's as well
    with streaming(Listen(f"unix://{folder}/s", transport=transport), STREAMS) as server:
        assert echoed(server, f"unix:{near}/s") == b"a"
    assert not list(folder.iterdir())


@pytest.mark.native
class TestNative:
    """The grpcio server behind the native one."""

    LISTEN = Listen("127.0.0.1:0", transport="native")

    @pytest.fixture(autouse=True)
    def folders(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """Where temporary folders are made."""
        with tempfile.TemporaryDirectory(prefix="va-", dir="/tmp") as short:
            monkeypatch.setattr(tempfile, "tempdir", short)
            yield Path(short)

    @pytest.mark.skipif(sys.platform != "linux", reason="by /proc/self/fd")
    def test_a_place_that_is_too_deep_for_a_sockets_address(
        self, folders: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As ``$TMPDIR`` may be: streams work there too, and what was left there is removed."""
        deep = folders / ("d" * 100)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        left = deep / ".vaultauthz-streams-dead"
        left.mkdir()
        os.utime(left, (1, 1))
        with streaming(self.LISTEN, STREAMS) as server:
            assert len(list(deep.iterdir())) == 1
            assert not left.exists()
            assert echoed(server) == b"a"
        assert not list(deep.iterdir())

    def test_its_socket_is_private_and_removed(self, folders: Path) -> None:
        """Only we may reach it, past which there is nobody to ask who comes."""
        with streaming(self.LISTEN, STREAMS):
            (folder,) = folders.iterdir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert folder.stat().st_uid == os.getuid()
            assert [stat.S_ISSOCK(path.stat().st_mode) for path in folder.iterdir()] == [True]
        assert not list(folders.iterdir())

    def test_what_a_killed_server_left_is_removed(self, folders: Path) -> None:
        """Old ones that nobody answers in; not a living server's, a new one's, or a stranger's."""
        names = ("streams-dead", "streams-empty", "streams-new", "streams-alive", "other")
        for name in names:
            (folders / f".vaultauthz-{name}").mkdir()
        with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as dead:
            alive.bind(str(folders / ".vaultauthz-streams-alive" / "s"))
            alive.listen()
            dead.bind(str(folders / ".vaultauthz-streams-dead" / "s"))
            for name in names:
                if name != "streams-new":
                    os.utime(folders / f".vaultauthz-{name}", (1, 1))
            with streaming(self.LISTEN, STREAMS):
                left = {path.name for path in folders.iterdir()}
        assert {f".vaultauthz-{n}" for n in ("streams-new", "streams-alive", "other")} <= left
        assert not {f".vaultauthz-{n}" for n in ("streams-dead", "streams-empty")} & left

    @pytest.mark.parametrize("deep", [0, 60], ids=["short", "deep"])
    def test_beside_the_socket_that_is_listened_on(
        self, folders: Path, monkeypatch: pytest.MonkeyPatch, deep: int
    ) -> None:
        """Its folder has to be writable, and need be the only one: a container's root is read-only."""
        monkeypatch.setattr(tempfile, "tempdir", NOT_WRITABLE)
        run = folders / ("r" * deep or "run")
        run.mkdir()
        with streaming(Listen(f"unix://{run}/grpc.sock", transport="native"), STREAMS) as server:
            names = {path.name[:19] for path in run.iterdir()}
            assert names == {"grpc.sock", ".vaultauthz-streams"}
            assert echoed(server, f"unix:{run}/grpc.sock") == b"a"
        assert not list(run.iterdir())

    def test_without_a_place_no_socket_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A start that fails behind the gateway's own socket takes that away again."""
        monkeypatch.setattr("vaultauthz.envoy.native_transport._fallback", _no_place)
        with (
            pytest.raises(ListenError, match="no folder"),
            streaming(Listen(f"unix://{tmp_path}/grpc.sock", transport="native"), STREAMS),
        ):
            pass
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(sys.platform != "linux", reason="sockets without a file are Linux's")
    def test_a_port_needs_no_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By TCP streams work where nothing is writable at all, and two servers do not meet."""
        monkeypatch.setattr(tempfile, "tempdir", NOT_WRITABLE)
        with streaming(self.LISTEN, STREAMS) as one, streaming(self.LISTEN, STREAMS) as two:
            assert echoed(one) == echoed(two) == b"a"

    def test_no_place_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is needed is said, and the address that is listened on is not blamed."""
        monkeypatch.setattr(tempfile, "tempdir", NOT_WRITABLE)
        with pytest.raises(ListenError) as told:
            private(Path(NOT_WRITABLE))
        text = str(told.value)
        assert f"{NOT_WRITABLE}: " in text
        assert "listen.grpc" not in text
        for way in ("the socket's folder writable", "TMPDIR", "listen.transport: grpcio"):
            assert way in text

    def test_nor_one_for_temporary_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As Python says it where it finds no folder that it can write."""

        def none() -> str:
            raise FileNotFoundError("No usable temporary directory found")

        monkeypatch.setattr(tempfile, "gettempdir", none)
        with pytest.raises(ListenError, match="no folder can be written"):
            private(Path(NOT_WRITABLE))

    def test_without_streams_there_is_none(self, folders: Path) -> None:
        """Who serves checks only pays for nothing else."""
        with streaming(self.LISTEN, {}) as server:
            assert not list(folders.iterdir())
            with channel(server) as made, Line(made, ECHO) as line:
                assert line.code() == grpc.StatusCode.UNIMPLEMENTED


def test_with_tls(tmp_path: Path) -> None:
    """Streams and checks share the port, and a client without a certificate gets neither."""
    authority = Authority(tmp_path)
    pair, gateway = authority.issue("localhost"), authority.issue("gateway")
    tls = ServerTls(pair.cert, pair.key, client_ca=authority.ca)
    with streaming(Listen("127.0.0.1:0", grpc_tls=tls), STREAMS) as server:
        target = f"localhost:{server.port}"
        known = trusting(authority, gateway.key, gateway.cert)
        with client(target, known) as made, Line(made.channel, ECHO) as line:
            line.send(b"a")
            assert line.next() == b"a"
            assert made.check(checked()) == 403
        with client(target, trusting(authority)) as made:
            with Line(made.channel, ECHO) as line:
                assert line.code() == grpc.StatusCode.UNAVAILABLE
            assert made.code(CHECK, checked(), 2) == grpc.StatusCode.UNAVAILABLE
