"""The gRPC server over real sockets: both transports, unix and TCP, in clear and with TLS."""

import contextlib
import json
import random
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.contract.certificates import Authority
from tests.contract.faults import wait_until
from tests.patience import PATIENCE
from vaultauthz._pb.ext_authz_pb2 import AttributeContext, CheckRequest, CheckResponse
from vaultauthz._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.core.decision import Allowed, Decision, Denied, Reason
from vaultauthz.core.request import Request
from vaultauthz.envoy.rpc import MESSAGE_LIMIT
from vaultauthz.envoy.server import GrpcServer
from vaultauthz.listening import ListenError

CHECK = "/envoy.service.auth.v3.Authorization/Check"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
TIMEOUT = PATIENCE

TRANSPORTS = ("native", "grpcio")
KINDS = [f"{transport}-{place}" for transport in TRANSPORTS for place in ("tcp", "unix")]


def checked(path: str = "/", **headers: bytes) -> bytes:
    """The bytes of a CheckRequest."""
    http = AttributeContext.HttpRequest(
        method=b"GET", path=path.encode(), host=b"h", headers=headers, id="1"
    )
    return CheckRequest(
        attributes=AttributeContext(request=AttributeContext.Request(http=http))
    ).SerializeToString()


def allow(_: Request) -> Decision:
    """A check that lets everything through."""
    return Allowed("u", "s", None)


class Client:
    """A gRPC client that sends and receives bytes."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
        ]
        self.channel = (
            grpc.secure_channel(target, credentials, options=options)
            if credentials
            else grpc.insecure_channel(target, options=options)
        )

    def unary(self, method: str) -> Any:
        """The method, to call or to start; bytes in and out."""
        return self.channel.unary_unary(
            method, request_serializer=bytes, response_deserializer=bytes
        )

    def call(self, method: str, data: bytes, timeout: float = TIMEOUT) -> bytes:
        """Make one call; raises grpc.RpcError."""
        answer: bytes = self.unary(method)(data, timeout=timeout)
        return answer

    def check(self, data: bytes) -> int:
        """The HTTP status that Envoy would answer with; 200 for a request let through."""
        response = CheckResponse.FromString(self.call(CHECK, data))
        return 200 if response.HasField("ok_response") else response.denied_response.status.code

    def health(self, service: str = "") -> int:
        """The serving status."""
        data = HealthCheckRequest(service=service).SerializeToString()
        return HealthCheckResponse.FromString(self.call(HEALTH, data)).status

    def code(self, method: str, data: bytes, timeout: float = TIMEOUT) -> grpc.StatusCode:
        """How a call that must fail fails."""
        with pytest.raises(grpc.RpcError) as raised:
            self.call(method, data, timeout)
        code: grpc.StatusCode = raised.value.code()
        return code


@contextlib.contextmanager
def client(target: str, credentials: grpc.ChannelCredentials | None = None) -> Iterator[Client]:
    """A client whose channel is closed afterwards."""
    made = Client(target, credentials)
    with made.channel:
        yield made


@pytest.fixture(params=KINDS)
def listen(request: pytest.FixtureRequest, tmp_path: Path) -> Listen:
    """Each transport on each kind of address."""
    transport, place = request.param.split("-")
    address = "127.0.0.1:0" if place == "tcp" else f"unix://{tmp_path}/grpc.sock"
    return Listen(grpc=address, transport=transport)


def target_of(listen: Listen, server: GrpcServer) -> str:
    """Where a client finds the server."""
    if listen.grpc.startswith("unix://"):
        return listen.grpc
    return f"127.0.0.1:{server.port}"


@contextlib.contextmanager
def serving(
    listen: Listen, check: Callable[[Request], Decision] = allow, *, backlog: int = 4096
) -> Iterator[tuple[GrpcServer, Client]]:
    """A server and a client of it."""
    server = GrpcServer(listen, check, lambda: True, backlog=backlog)
    server.start()
    try:
        with client(target_of(listen, server)) as made:
            yield server, made
    finally:
        server.stop(1.0)


class TestAnyBytes:
    def test_a_truncated_request_at_each_length(self, listen: Listen) -> None:
        """Every prefix of a CheckRequest is answered, and a whole one afterwards as always."""
        whole = checked("/v1/x", cookie=b"a=1")
        with serving(listen) as (_, made):
            statuses = {made.check(whole[:length]) for length in range(len(whole))}
            assert statuses <= {200, 400}
            assert 400 in statuses
            assert made.check(whole) == 200

    def test_random_bytes(self, listen: Listen) -> None:
        """Garbage of many lengths is denied as a bad request."""
        dice = random.Random(7)
        with serving(listen) as (_, made):
            for _ in range(300):
                assert made.check(b"\xff" + dice.randbytes(dice.randrange(400))) == 400
            assert made.check(checked()) == 200

    @pytest.mark.parametrize("size", [1 << 20, MESSAGE_LIMIT - 1000])
    def test_a_big_request(self, listen: Listen, size: int) -> None:
        """A megabyte of garbage is a bad request; one of header is a request."""
        with serving(listen) as (_, made):
            assert made.check(b"\xff" * size) == 400
            assert made.check(checked(big=b"x" * size)) == 200

    def test_a_request_above_the_limit(self, listen: Listen) -> None:
        """More than the limit fails that call alone, and says why."""
        with serving(listen) as (_, made):
            code = made.code(CHECK, b"\xff" * (MESSAGE_LIMIT + 1))
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert made.check(checked()) == 200

    @pytest.mark.parametrize("size", [MESSAGE_LIMIT + 1, 5 << 20, 17 * MESSAGE_LIMIT])
    def test_what_is_not_read_is_told(
        self, listen: Listen, size: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Counted each time; the log names the setting of Envoy's, once in a while."""
        with serving(listen) as (server, made):
            assert made.check(checked()) == 200
            assert sum(server.unread.values()) == 0
            for _ in range(2):
                code = made.code(CHECK, b"\xff" * size)
                assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert wait_until(lambda: sum(server.unread.values()) == 2)
            if server.unread["too_large"]:
                assert server.unread["too_large"] == 2
                told = [r.getMessage() for r in caplog.records if r.name.endswith("refused_calls")]
                (line,) = told
                assert f"a check of {size / (1 << 20):.1f} MiB was refused, the most is 4" in line
                assert "max_request_bytes of with_request_body" in line
            else:  # grpcio has refused it unread
                assert size == 17 * MESSAGE_LIMIT

    def test_a_connection_that_does_not_speak_http2(self, listen: Listen) -> None:
        """Bytes that are no HTTP/2 cost only their own connection."""
        with serving(listen) as (server, made):
            for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00", b"", b"\0" * 5000):
                with connected(listen, server) as sock:
                    sock.sendall(junk)
            assert made.check(checked()) == 200


@contextlib.contextmanager
def connected(listen: Listen, server: GrpcServer) -> Iterator[socket.socket]:
    """A plain connection to the server."""
    unix = listen.grpc.startswith("unix://")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as sock:
        sock.settimeout(TIMEOUT)
        place = listen.grpc.removeprefix("unix://")
        sock.connect(place if unix else ("127.0.0.1", server.port))
        yield sock


class TestCalls:
    def test_a_deadline_passes(self, listen: Listen) -> None:
        """A call that is answered too late fails at its deadline, and the next one works."""
        slow = threading.Event()

        def check(request: Request) -> Decision:
            if request.path == "/slow":
                slow.wait(TIMEOUT)
            return Allowed("u", "s", None)

        with serving(listen, check) as (_, made):
            code = made.code(CHECK, checked("/slow"), timeout=0.1)
            assert code == grpc.StatusCode.DEADLINE_EXCEEDED
            slow.set()
            assert made.check(checked()) == 200

    def test_cancelled_calls(self, listen: Listen) -> None:
        """A client that hangs up on all its calls costs at most its own connection.

        The native transport closes one on which some twenty streams were reset before it
        got to see them: its guard against HTTP/2 rapid reset (CVE-2023-44487).
        """
        with serving(listen) as (server, made):
            for _ in range(50):
                future = made.unary(CHECK).future(checked(), timeout=TIMEOUT)
                future.cancel()
            with client(target_of(listen, server)) as other:
                assert other.check(checked()) == 200

    def test_two_hundred_at_once(self, listen: Listen) -> None:
        """Each of 200 concurrent calls gets its own answer."""

        def check(request: Request) -> Decision:
            return Denied(Reason.CALLER_DENIED, request.path)

        with serving(listen, check) as (_, made):
            call = made.unary(CHECK)
            futures = {str(n): call.future(checked(str(n)), timeout=TIMEOUT) for n in range(200)}
            answers = {name: CheckResponse.FromString(f.result()) for name, f in futures.items()}
        upstreams = {
            n: a.dynamic_metadata.fields["upstream"].string_value for n, a in answers.items()
        }
        assert upstreams == {name: name for name in futures}

    def test_a_failing_check_is_an_answer(self, listen: Listen) -> None:
        """An exception is denied as internal; the call itself succeeds."""

        def check(_: Request) -> Decision:
            raise RuntimeError("secret")

        with serving(listen, check) as (_, made):
            response = CheckResponse.FromString(made.call(CHECK, checked()))
        assert json.loads(response.denied_response.body)["error"] == "internal"

    def test_an_unknown_method(self, listen: Listen) -> None:
        """It is unimplemented, also the health service's Watch."""
        with serving(listen) as (_, made):
            assert made.code("/a.B/C", b"") == grpc.StatusCode.UNIMPLEMENTED
            watch: Any = made.channel.unary_stream(
                WATCH, request_serializer=bytes, response_deserializer=bytes
            )
            with pytest.raises(grpc.RpcError) as raised:
                next(watch(b"", timeout=TIMEOUT))
            assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED

    def test_too_many_are_refused_at_once(self, listen: Listen) -> None:
        """While the backlog is full, further checks are denied `overloaded`, then all is well."""
        opened = threading.Event()
        entered = 0

        def check(_: Request) -> Decision:
            nonlocal entered
            entered += 1
            opened.wait(TIMEOUT)
            return Allowed("u", "s", None)

        with serving(listen, check, backlog=8) as (_, made):
            call = made.unary(CHECK)
            futures = [call.future(checked(), timeout=TIMEOUT)]
            assert wait_until(lambda: entered == 1)  # is being answered when the others come
            futures += [call.future(checked(), timeout=TIMEOUT) for _ in range(14)]
            # The native transport reads them when the first is answered: they are under way by then.
            wait_until(lambda: sum(future.done() for future in futures) >= 3, 2.0)
            opened.set()
            answers = [CheckResponse.FromString(future.result()) for future in futures]
            refused = [a for a in answers if a.HasField("denied_response")]
            # grpcio answers on a few threads, each of which takes one from the backlog.
            assert 3 <= len(refused) <= 6
            assert {a.denied_response.status.code for a in refused} == {503}
            assert made.check(checked()) == 200


class TestHealth:
    def test_it_follows_ready_and_drain(self, listen: Listen) -> None:
        """SERVING when ready; NOT_SERVING when not, and once it drains, while checks go on."""
        ready = threading.Event()
        server = GrpcServer(listen, allow, ready.is_set)
        server.start()
        with client(target_of(listen, server)) as made:
            assert made.health() == HealthCheckResponse.NOT_SERVING
            ready.set()
            assert made.health("envoy.service.auth.v3.Authorization") == HealthCheckResponse.SERVING
            server.drain()
            assert made.health() == HealthCheckResponse.NOT_SERVING
            assert made.check(checked()) == 200
        server.stop(1.0)

    def test_errors(self, listen: Listen) -> None:
        """An unknown service is not found, and bytes that do not parse are invalid."""
        with serving(listen) as (_, made):
            unknown = HealthCheckRequest(service="x").SerializeToString()
            assert made.code(HEALTH, unknown) == grpc.StatusCode.NOT_FOUND
            assert made.code(HEALTH, b"\xff") == grpc.StatusCode.INVALID_ARGUMENT


class TestStop:
    def test_a_call_in_flight_is_answered(self, listen: Listen) -> None:
        """stop() waits for the check that is being made, and its answer arrives."""
        entered = threading.Event()

        def check(_: Request) -> Decision:
            entered.set()
            time.sleep(0.3)  # so that the stop has to wait
            return Allowed("u", "s", None)

        with serving(listen, check) as (server, made):
            future = made.unary(CHECK).future(checked(), timeout=TIMEOUT)
            assert entered.wait(TIMEOUT)
            server.stop(TIMEOUT)
            assert CheckResponse.FromString(future.result()).HasField("ok_response")
            assert made.code(CHECK, checked()) == grpc.StatusCode.UNAVAILABLE

    def test_it_does_not_wait_for_ever(self, listen: Listen) -> None:
        """A check that hangs does not hold up the stop for longer than its grace."""
        release, entered, over = threading.Event(), threading.Event(), threading.Event()

        def check(_: Request) -> Decision:
            entered.set()
            release.wait(TIMEOUT)
            over.set()
            return Allowed("u", "s", None)

        server = GrpcServer(listen, check, lambda: True)
        server.start()
        with client(target_of(listen, server)) as made:
            future = made.unary(CHECK).future(checked(), timeout=TIMEOUT)
            assert entered.wait(TIMEOUT)
            server.stop(0.3)
            assert not over.is_set()  # nobody waited for the check
            assert future.exception() is not None
        release.set()

    def test_under_load_no_answer_is_lost(self, listen: Listen) -> None:
        """Every call is either answered in full or told that the server is gone."""
        answered = 0
        with serving(listen) as (server, made), ThreadPoolExecutor(8) as pool:

            def hammer() -> set[object]:
                nonlocal answered
                outcomes: set[object] = set()
                for _ in range(2000):
                    try:
                        outcomes.add(made.check(checked()))
                        answered += 1
                    except grpc.RpcError as exc:
                        outcomes.add(exc.code())
                        break
                return outcomes

            running = [pool.submit(hammer) for _ in range(8)]
            assert wait_until(lambda: answered > 50)
            server.stop(TIMEOUT)
            seen = set().union(*(r.result(TIMEOUT) for r in running))
        assert seen <= {200, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

    def test_stopping_twice_and_without_start(self, listen: Listen) -> None:
        """Neither is an error."""
        GrpcServer(listen, allow, lambda: True).stop(0.1)
        with serving(listen) as (server, _):
            server.stop(0.1)


@pytest.mark.parametrize("transport", TRANSPORTS)
class TestPlace:
    def test_a_stale_socket_is_replaced(self, transport: str, tmp_path: Path) -> None:
        """The file that a killed server left behind does not keep the next from starting."""
        path = tmp_path / "grpc.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        with serving(Listen(f"unix://{path}", transport=transport)) as (_, made):
            assert made.check(checked()) == 200
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert list(tmp_path.iterdir()) == []

    def test_a_live_socket_is_refused(self, transport: str, tmp_path: Path) -> None:
        """A second server on the same socket says so, and the first goes on undisturbed."""
        listen = Listen(f"unix://{tmp_path}/grpc.sock", transport=transport)
        with serving(listen) as (_, made):
            with pytest.raises(ListenError, match=r"grpc\.sock.*another server answers"):
                GrpcServer(listen, allow, lambda: True).start()
            assert made.check(checked()) == 200

    def test_a_file_that_is_no_socket_is_left_alone(self, transport: str, tmp_path: Path) -> None:
        """It is refused, not deleted."""
        path = tmp_path / "notes.txt"
        path.write_text("mine")
        with pytest.raises(ListenError, match="not a socket"):
            GrpcServer(Listen(f"unix://{path}", transport=transport), allow, lambda: True).start()
        assert path.read_text() == "mine"

    def test_a_missing_folder_is_named(self, transport: str, tmp_path: Path) -> None:
        """The error says which folder to create."""
        listen = Listen(f"unix://{tmp_path}/no/grpc.sock", transport=transport)
        with pytest.raises(ListenError, match=rf"folder {tmp_path}/no does not exist"):
            GrpcServer(listen, allow, lambda: True).start()

    def test_a_socket_of_another_server_is_not_removed(
        self, transport: str, tmp_path: Path
    ) -> None:
        """A server that stops late does not take its successor's socket along."""
        place = f"unix://{tmp_path}/grpc.sock"
        first = GrpcServer(Listen(place, transport=transport), allow, lambda: True)
        first.start()
        (tmp_path / "grpc.sock").unlink()  # as when somebody cleans the folder
        with serving(Listen(place, transport=transport)) as (_, made):
            first.stop(0.1)
            assert made.check(checked()) == 200
            with client(place) as late:
                assert late.check(checked()) == 200

    @pytest.mark.parametrize("other", TRANSPORTS)
    def test_a_port_in_use_is_refused(self, transport: str, other: str) -> None:
        """Two servers never share a port, whichever transport each has."""
        with serving(Listen("127.0.0.1:0", transport=other)) as (first, made):
            listen = Listen(f"127.0.0.1:{first.port}", transport=transport)
            with pytest.raises(ListenError, match=rf"{first.port}: Address already in use"):
                GrpcServer(listen, allow, lambda: True).start()
            assert made.check(checked()) == 200

    @pytest.mark.parametrize("address", ["203.0.113.1:7000", "no-such-host.invalid:7000"])
    def test_an_address_that_is_not_ours(self, transport: str, address: str) -> None:
        """The error names it."""
        with pytest.raises(ListenError, match=address):
            GrpcServer(Listen(address, transport=transport), allow, lambda: True).start()

    def test_restarting_on_the_same_port(self, transport: str) -> None:
        """A port that was served a moment ago is free again."""
        with serving(Listen("127.0.0.1:0", transport=transport)) as (first, made):
            port = first.port
            assert made.check(checked()) == 200
        with serving(Listen(f"127.0.0.1:{port}", transport=transport)) as (_, made):
            assert made.check(checked()) == 200

    def test_ipv6(self, transport: str) -> None:
        """An address in brackets works."""
        server = GrpcServer(Listen("[::1]:0", transport=transport), allow, lambda: True)
        server.start()
        with client(f"[::1]:{server.port}") as made:
            assert made.check(checked()) == 200
        server.stop(0.1)


class TestTls:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        """Who signs the certificates of a test."""
        return Authority(tmp_path)

    def test_tls(self, authority: Authority) -> None:
        """With a certificate, a client that trusts its authority is answered, one in clear not."""
        pair = authority.issue("localhost")
        listen = Listen("127.0.0.1:0", grpc_tls=ServerTls(pair.cert, pair.key))
        with serving(listen) as (server, in_clear):
            with client(f"localhost:{server.port}", trusting(authority)) as made:
                assert made.check(checked()) == 200
            assert in_clear.code(CHECK, checked(), 2) == grpc.StatusCode.UNAVAILABLE

    def test_mutual_tls(self, authority: Authority, tmp_path: Path) -> None:
        """With a client_ca, only clients that it vouches for get in."""
        pair, gateway = authority.issue("localhost"), authority.issue("gateway")
        (tmp_path / "other").mkdir()
        stranger = Authority(tmp_path / "other").issue("stranger")
        tls = ServerTls(pair.cert, pair.key, client_ca=authority.ca)
        with serving(Listen("127.0.0.1:0", grpc_tls=tls)) as (server, _):
            target = f"localhost:{server.port}"
            known = trusting(authority, gateway.key, gateway.cert)
            with client(target, known) as made:
                assert made.check(checked()) == 200
            unknown = (trusting(authority), trusting(authority, stranger.key, stranger.cert))
            for credentials in unknown:
                with client(target, credentials) as made:
                    assert made.code(CHECK, checked(), 2) == grpc.StatusCode.UNAVAILABLE

    def test_byte_order_marks(self, authority: Authority) -> None:
        """One before a certificate or a key, which the library does not read past, is left out."""
        pair, gateway = authority.issue("localhost"), authority.issue("gateway")
        known = trusting(authority, gateway.key, gateway.cert)
        for file in (pair.cert, pair.key, authority.ca):
            file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        tls = ServerTls(pair.cert, pair.key, client_ca=authority.ca)
        listen = Listen("127.0.0.1:0", grpc_tls=tls)
        with serving(listen) as (server, _), client(f"localhost:{server.port}", known) as made:
            assert made.check(checked()) == 200

    def test_native_has_no_tls(self, authority: Authority) -> None:
        """Asking for both is an error before anything listens."""
        pair = authority.issue("localhost")
        tls = ServerTls(pair.cert, pair.key)
        with pytest.raises(ListenError, match="plaintext only"):
            GrpcServer(Listen("127.0.0.1:0", grpc_tls=tls, transport="native"), allow, lambda: True)

    def test_a_missing_key_is_named(self, authority: Authority, tmp_path: Path) -> None:
        """The error says which file."""
        tls = ServerTls(authority.issue("localhost").cert, tmp_path / "no.key")
        with pytest.raises(ListenError, match=r"cannot read .*no\.key"):
            GrpcServer(Listen("127.0.0.1:0", grpc_tls=tls), allow, lambda: True)

    def test_a_key_that_does_not_fit(self, authority: Authority) -> None:
        """The error names the place, and nothing listens."""
        tls = ServerTls(authority.issue("localhost").cert, authority.ca)
        with pytest.raises(ListenError, match="127"):
            GrpcServer(Listen("127.0.0.1:0", grpc_tls=tls), allow, lambda: True).start()


def trusting(
    authority: Authority, key: Path | None = None, cert: Path | None = None
) -> grpc.ChannelCredentials:
    """A client's credentials."""
    return grpc.ssl_channel_credentials(
        authority.ca.read_bytes(),
        None if key is None else key.read_bytes(),
        None if cert is None else cert.read_bytes(),
    )


class TestWithoutTheWheel:
    @pytest.fixture(autouse=True)
    def no_wheel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine for which pygrpc-native has no wheel."""
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    def test_auto_falls_back(self) -> None:
        """`auto` serves with grpcio."""
        with serving(Listen("127.0.0.1:0")) as (_, made):
            assert made.check(checked()) == 200

    def test_native_says_what_is_missing(self) -> None:
        """`native` is an error that names the package."""
        with pytest.raises(ListenError, match="pygrpc-native"):
            GrpcServer(Listen("127.0.0.1:0", transport="native"), allow, lambda: True)
