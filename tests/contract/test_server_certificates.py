"""The gRPC port over TLS while its files are replaced, and the names of clients that may ask."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import grpc
import pytest

from tests.contract.certificates import Authority, Pair
from tests.contract.faults import wait_until
from tests.contract.sds_client import Line, streaming
from tests.contract.test_sds_streams import ECHO, STREAMS
from tests.contract.test_server import CHECK, Client, checked, client, trusting
from tests.unit.test_server_tls import NOT_SERVED, SERVED
from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.envoy.server import GrpcServer
from vaultauthz.listening import ListenError
from vaultauthz.server_tls import FollowedTls

DENIED = grpc.StatusCode.PERMISSION_DENIED
SERVING = 1


class Files:
    """A server's files; its certificate is for localhost."""

    def __init__(self, folder: Path, authority: Authority, clients: Authority) -> None:
        self.folder = folder
        self.put(authority.issue("localhost"), clients)

    def put(self, pair: Pair, clients: Authority) -> None:
        """Write over them, one after the other."""
        for file, name in ((pair.cert, "tls.crt"), (pair.key, "tls.key"), (clients.ca, "ca.crt")):
            shutil.copyfile(file, self.folder / name)

    def tls(self, *names: str) -> ServerTls:
        """What the configuration says of them."""
        here = self.folder
        return ServerTls(here / "tls.crt", here / "tls.key", here / "ca.crt", names)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs at first."""
    return Authority(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    """Who signs afterwards."""
    (tmp_path / "other").mkdir()
    return Authority(tmp_path / "other")


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    """Signed by ``authority``, as are its clients'."""
    return Files(tmp_path, authority, authority)


def known(servers: Authority, signed: Authority, name: str = "gateway") -> grpc.ChannelCredentials:
    """Credentials of a client that trusts ``servers``, and that has a certificate."""
    pair = signed.issue(name)
    return trusting(servers, pair.key, pair.cert)


def followed(server: GrpcServer) -> FollowedTls:
    """What the server follows."""
    assert server.tls
    return server.tls


class TestReplaced:
    def test_all_three(self, files: Files, authority: Authority, other: Authority) -> None:
        """Old connections go on, with their streams; new ones get the new, and want the new."""
        before, after = known(authority, authority), known(other, other)
        with streaming(Listen("127.0.0.1:0", grpc_tls=files.tls()), STREAMS) as server:
            target = f"localhost:{server.port}"
            with client(target, before) as old, Line(old.channel, ECHO) as line:
                line.send(b"a")
                assert line.next() == b"a"
                files.put(other.issue("localhost"), other)
                assert wait_until(lambda: followed(server).taken == 1)
                with client(target, after) as new:
                    assert new.check(checked()) == 403
                with client(target, before) as late:
                    assert late.code(CHECK, checked()) == grpc.StatusCode.UNAVAILABLE
                # Its own certificate is of the new authority, its trust too: the server's alone differs.
                with client(target, known(authority, other)) as late:
                    assert late.code(CHECK, checked()) == grpc.StatusCode.UNAVAILABLE
                assert old.check(checked()) == 403
                line.send(b"b")
                assert line.next() == b"b"

    def test_many_times(self, files: Files, authority: Authority) -> None:
        """Each new connection is shown the last one."""
        credentials = known(authority, authority)
        with streaming(Listen("127.0.0.1:0", grpc_tls=files.tls()), STREAMS) as server:
            for number in range(1, 4):
                files.put(authority.issue("localhost"), authority)
                assert wait_until(lambda n=number: followed(server).taken == n)  # type: ignore[misc]
                with client(f"localhost:{server.port}", credentials) as new:
                    assert new.check(checked()) == 403

    def test_what_is_refused(
        self, files: Files, authority: Authority, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The old one is shown to new connections, and the log says why."""
        credentials = known(authority, authority)
        with streaming(Listen("127.0.0.1:0", grpc_tls=files.tls()), STREAMS) as server:
            files.put(authority.issue("localhost", hours=-0.5), authority)
            assert wait_until(lambda: followed(server).refused == 1)
            assert wait_until(lambda: "tls.crt has ended" in caplog.text)
            with client(f"localhost:{server.port}", credentials) as new:
                assert new.check(checked()) == 403

    @pytest.mark.parametrize("kind", [*SERVED, *NOT_SERVED])
    def test_keys_that_can_be_served_with(
        self, files: Files, authority: Authority, kind: str
    ) -> None:
        """What is told to be in use is what a new connection is shown; the rule is gRPC's own."""
        credentials = known(authority, authority)
        made = {**SERVED, **NOT_SERVED}[kind]()
        with streaming(Listen("127.0.0.1:0", grpc_tls=files.tls()), STREAMS) as server:
            before = followed(server).identity.cert
            files.put(authority.issue("localhost", key=made), authority)
            assert wait_until(lambda: followed(server).taken + followed(server).refused == 1)
            assert (followed(server).taken == 1) is (kind in SERVED)
            assert (followed(server).identity.cert == before) is (kind not in SERVED)
            with client(f"localhost:{server.port}", credentials) as new:
                if kind == "p521":  # gRPC's client, as Envoy, has to be told to take its signature
                    assert new.code(CHECK, checked()) == grpc.StatusCode.UNAVAILABLE
                else:
                    assert new.check(checked()) == 403

    def test_a_start_with_a_key_that_cannot(self, files: Files, authority: Authority) -> None:
        """The error is about the file, and not about the address."""
        files.put(authority.issue("localhost", key=NOT_SERVED["secp256k1"]()), authority)
        with (
            pytest.raises(ListenError, match=r"tls\.crt has a key of a kind that gRPC"),
            streaming(Listen("127.0.0.1:0", grpc_tls=files.tls()), STREAMS),
        ):
            pass


class TestNames:
    def answers(self, made: Client) -> tuple[object, object, int]:
        """What a client gets: of a check, of a stream, of the health service."""
        with Line(made.channel, ECHO) as line:
            line.send(b"a")
            try:
                stream: object = line.next()
            except grpc.RpcError as exc:
                stream = exc.code()
        try:
            check: object = made.check(checked())
        except grpc.RpcError as exc:
            check = exc.code()
        return check, stream, made.health()

    def test_on_every_service(
        self, files: Files, authority: Authority, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One of the names is answered; another certificate of the authority learns our health only."""
        caplog.set_level(logging.WARNING)
        tls = files.tls("front.internal", "gateway.internal")
        with streaming(Listen("127.0.0.1:0", grpc_tls=tls), STREAMS) as server:
            target = f"localhost:{server.port}"
            with client(target, known(authority, authority, "Gateway.internal")) as made:
                assert self.answers(made) == (403, b"a", SERVING)
            assert server.clients_refused == {}
            with client(target, known(authority, authority, "reports.internal")) as made:
                assert self.answers(made) == (DENIED, DENIED, SERVING)
            assert sum(server.clients_refused.values()) == 2
            assert len(server.clients_refused) == 2
            (line,) = caplog.messages
            assert "reports.internal" in line

    def test_an_address_is_no_name(self, files: Files, authority: Authority) -> None:
        """A certificate for an IP address has no name that could be listed."""
        tls = files.tls("gateway.internal")
        with (
            streaming(Listen("127.0.0.1:0", grpc_tls=tls), STREAMS) as server,
            client(f"localhost:{server.port}", known(authority, authority, "10.0.0.1")) as made,
        ):
            assert self.answers(made)[0] == DENIED

    def test_a_name_with_a_nul_is_another(self, files: Files, authority: Authority) -> None:
        """To whom it ends there, and gRPC's Python does, it would be the one before the NUL."""
        tls = files.tls("gateway.internal")
        pair = authority.issue("gateway.internal\0.evil.test", file="evil")
        credentials = trusting(authority, pair.key, pair.cert)
        with (
            streaming(Listen("127.0.0.1:0", grpc_tls=tls), STREAMS) as server,
            client(f"localhost:{server.port}", credentials) as made,
        ):
            assert self.answers(made) == (DENIED, DENIED, SERVING)

    def test_none_are_listed(self, files: Files, authority: Authority) -> None:
        """Then whoever has a certificate of the authority is answered."""
        with (
            streaming(Listen("127.0.0.1:0", grpc_tls=files.tls()), STREAMS) as server,
            client(f"localhost:{server.port}", known(authority, authority, "reports")) as made,
        ):
            assert self.answers(made) == (403, b"a", SERVING)
