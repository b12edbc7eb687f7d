"""`vaultauthz serve` as a process, on a real OpenBao: its doors, its start, its end."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import trustme
from hvac.exceptions import InvalidRequest

from tests.integration.served import Login, Served, asking, check_request
from vaultauthz.demo.parts import OpenBao, free_port
from vaultauthz.observe.chain import verify

pytestmark = pytest.mark.integration

KEY = "kv-key-0123456789"
POLICY = 'path "serve/*" { capabilities = ["read"] }'
UPSTREAMS = """
upstreams:
  geo:
    secret: {kv: serve/geo}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
routes: [{host: geo.test, upstream: geo}]
"""
NOBODY = Login("http://127.0.0.1:1", "nobody", "nothing")  # a Vault that is down


def login_at(bao: OpenBao) -> Login:
    """A login that may read the key of `geo`."""
    bao.put_kv("serve/geo", {"api_key": KEY})
    return Login(bao.address, *bao.enable_approle("serve", POLICY))


@pytest.fixture(scope="module")
def login(bao: OpenBao) -> Login:
    """A login at the OpenBao that all tests share."""
    return login_at(bao)


@pytest.fixture(scope="module")
def own_bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """An OpenBao for the tests that stop it; each leaves it running."""
    with OpenBao(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(scope="module")
def served(login: Login, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A ready server for the tests that neither stop nor configure it."""
    with Served(tmp_path_factory.mktemp("served"), login, UPSTREAMS) as server:
        server.wait_ready()
        yield server


def running(bao: OpenBao) -> bool:
    """Whether somebody listens at its address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", bao.port)) == 0


def token_alive(bao: OpenBao, accessor: str) -> bool:
    """Whether Vault knows the token."""
    try:
        bao.client().auth.token.lookup_accessor(accessor)
    except InvalidRequest:  # "invalid accessor"
        return False
    return True


def speaks(place: str | Path, tls: grpc.ChannelCredentials | None = None) -> None:
    """Health, an allowed and a denied check at this door."""
    with asking(place, tls) as gateway:
        assert gateway.serving()
        answer = gateway.check("geo")
        assert (answer.status, answer.headers["x-api-key"]) == (200, KEY)
        assert gateway.check(host="geo.test:443").headers["x-api-key"] == KEY
        unknown = gateway.check(host="other.test")
        assert (unknown.status, unknown.error) == (403, "no_upstream")


class TestDoors:
    @pytest.mark.parametrize("transport", ["native", "grpcio"])
    def test_unix_socket(self, transport: str, login: Login, tmp_path: Path) -> None:
        """Either transport serves checks and health on a unix socket."""
        place = tmp_path / "g.sock"
        listen = f"grpc: unix://{place}\n  transport: {transport}"
        with Served(tmp_path, login, UPSTREAMS, listen) as server:
            server.wait_ready()
            speaks(place)

    @pytest.mark.parametrize("transport", ["native", "grpcio"])
    def test_port(self, transport: str, login: Login, tmp_path: Path) -> None:
        """Either transport serves on host:port."""
        place = f"127.0.0.1:{free_port()}"
        listen = f"grpc: {place}\n  transport: {transport}"
        with Served(tmp_path, login, UPSTREAMS, listen) as server:
            server.wait_ready()
            speaks(place)

    def test_tls_and_mutual_tls(self, login: Login, tmp_path: Path) -> None:
        """With `client_ca` only a gateway that it vouches for gets in; both sides check."""
        ours, other = trustme.CA(), trustme.CA()
        place = f"localhost:{free_port()}"
        listen = f"grpc: {place}\n  grpc_tls: {tls_files(tmp_path, ours, mutual=True)}"
        with Served(tmp_path, login, UPSTREAMS, listen) as server:
            server.wait_ready()
            speaks(place, credentials(ours, shows=ours.issue_cert("envoy.test")))
            refused(place, credentials(ours))
            refused(place, credentials(ours, shows=other.issue_cert("envoy.test")))
            refused(place, credentials(other, shows=ours.issue_cert("envoy.test")))
            refused(place, None)

    def test_tls_alone(self, login: Login, tmp_path: Path) -> None:
        """On loopback TLS does without certificates of clients; one in clear is not answered."""
        authority = trustme.CA()
        place = f"localhost:{free_port()}"
        listen = f"grpc: {place}\n  grpc_tls: {tls_files(tmp_path, authority, mutual=False)}"
        with Served(tmp_path, login, UPSTREAMS, listen) as server:
            server.wait_ready()
            speaks(place, credentials(authority))
            refused(place, None)


def tls_files(folder: Path, authority: trustme.CA, *, mutual: bool) -> str:
    """The server's certificate as files; the YAML that names them."""
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "key.pem").touch(0o600)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return f"{{cert: cert.pem, key: key.pem{', client_ca: ca.pem' if mutual else ''}}}"


def credentials(
    trusted: trustme.CA, shows: trustme.LeafCert | None = None
) -> grpc.ChannelCredentials:
    """Those of a gateway."""
    return grpc.ssl_channel_credentials(
        trusted.cert_pem.bytes(),
        shows.private_key_pem.bytes() if shows else None,
        shows.cert_chain_pems[0].bytes() if shows else None,
    )


def refused(place: str, tls: grpc.ChannelCredentials | None) -> None:
    """No check is answered to this gateway."""
    with asking(place, tls) as gateway, pytest.raises(grpc.RpcError) as raised:
        gateway.check("geo")
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


class TestAudit:
    def test_standard_output_is_the_audit_log(self, served: Served) -> None:
        """Every line there is a record, chained to the one before; logs go to standard error."""
        with asking(served.socket) as gateway:
            gateway.check("geo")
            gateway.check("gone")
        allowed, denied = served.audited("request.allowed"), served.audited("request.denied")
        events = [line["event"] for line in served.audit()]
        assert events[:2] == ["login", "lease.issued"]
        assert (allowed["upstream"], allowed["decision"]) == ("geo", "allowed")
        assert allowed["credential_id"] == served.audited("lease.issued")["credential_id"]
        assert (denied["upstream"], denied["reason"]) == ("gone", "no_upstream")
        assert list(verify(served.stdout.encode().splitlines())) == []
        ready = "ready: every upstream has its credential"
        served.wait(lambda: ready in served.stderr, "it does not say that it is ready")

    def test_no_secret_is_told(self, served: Served, login: Login) -> None:
        """Neither the key nor the secret_id is in its output or on its admin pages."""
        pages = [
            str(served.admin(path)) for path in ("/", "/leases", "/overview", "/metrics", "/readyz")
        ]
        told = "".join([served.stdout, served.stderr, *pages])
        assert "geo" in told
        assert KEY not in told
        assert login.secret_id not in told


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_in_order(
        self, number: signal.Signals, bao: OpenBao, login: Login, tmp_path: Path
    ) -> None:
        """Status 0 within five seconds; its token is revoked and its socket files are gone."""
        with Served(tmp_path, login, UPSTREAMS) as server:
            server.wait_ready()
            accessor = server.audited("login")["lease_id"]
            assert token_alive(bao, accessor)
            server.ask(number)
            assert server.ended() == 0
            assert not token_alive(bao, accessor)
            assert not server.socket.exists()
            assert not server.admin_socket.exists()
            assert server.audit()[-1]["event"] == "token.revoked"

    @pytest.mark.parametrize("transport", ["native", "grpcio"])
    def test_it_drains_first(self, transport: str, login: Login, tmp_path: Path) -> None:
        """For `drain` health checks and /readyz turn gateways away, and whoever asks is answered.

        A second signal ends that time and nothing else: what is leased is revoked.
        """
        listen = f"grpc: unix://{tmp_path}/grpc.sock\n  transport: {transport}\n  drain: 10m"
        with Served(tmp_path, login, UPSTREAMS, listen) as server:
            server.wait_ready()
            with asking(server.socket) as gateway:
                speaks(server.socket)
                server.ask(signal.SIGTERM)
                server.wait(lambda: not gateway.serving(), "it does not turn gateways away")
                reply = server.admin("/readyz")
                assert (reply.status, reply.body["stopping"]) == (503, "gateways are turned away")
                assert gateway.check("geo").headers["x-api-key"] == KEY
            with asking(server.socket) as late:
                assert late.check("geo").status == 200
            assert "token.revoked" not in [line["event"] for line in server.audit()]
            server.ask(signal.SIGHUP)
            server.ask(signal.SIGTERM)
            assert server.ended() == 0
            assert server.audit()[-1]["event"] == "token.revoked"

    def test_a_vault_that_hangs_does_not_hold_it_up(self, own_bao: OpenBao, tmp_path: Path) -> None:
        """With a Vault that does not answer it still ends, in time and with status 1."""
        with Served(tmp_path, login_at(own_bao), UPSTREAMS) as server:
            server.wait_ready()
            own_bao.suspend()
            try:
                server.ask(signal.SIGTERM)
                assert server.ended() == 1
            finally:
                own_bao.resume()
            assert "not everything could be revoked in time" in server.stderr

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_signal_ends_it_at_once(
        self, second: signal.Signals, own_bao: OpenBao, tmp_path: Path
    ) -> None:
        """Who asks twice does not want to wait for Vault."""
        with Served(tmp_path, login_at(own_bao), UPSTREAMS) as server:
            server.wait_ready()
            own_bao.suspend()
            try:
                server.ask(signal.SIGTERM)
                server.wait(lambda: "stopping" in server.stderr, "it took no notice")
                server.ask(second)
                assert server.ended() == -second
            finally:
                own_bao.resume()

    @pytest.mark.parametrize("transport", ["native", "grpcio"])
    def test_killed_and_started_again(self, transport: str, login: Login, tmp_path: Path) -> None:
        """The sockets that a killed server leaves behind do not keep the next one from starting."""
        listen = f"grpc: unix://{tmp_path}/grpc.sock\n  transport: {transport}"
        with Served(tmp_path, login, UPSTREAMS, listen) as server:
            server.wait_ready()
            server.process.kill()
            assert server.socket.exists()
            assert server.admin_socket.exists()
            server.start()
            server.wait_ready()
            speaks(server.socket)


class TestWithoutVault:
    def test_it_starts_and_waits(self, own_bao: OpenBao, tmp_path: Path) -> None:
        """While Vault is down it answers 503 with Retry-After; it needs no restart when Vault comes."""
        login = login_at(own_bao)
        own_bao.stop()
        try:
            with Served(tmp_path, login, UPSTREAMS) as server, asking(server.socket) as gateway:
                server.wait(lambda: "Vault cannot be reached" in server.stderr, "no try was made")
                assert not gateway.serving()
                assert server.admin("/readyz").status == 503
                answer = gateway.check("geo")
                assert (answer.status, answer.error) == (503, "no_credential")
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert "x-api-key" not in answer.headers
                own_bao.start()
                server.wait_ready()
                speaks(server.socket)
        finally:
            if not running(own_bao):
                own_bao.start()

    def test_two_hundred_at_once(self, tmp_path: Path) -> None:
        """Before the first credential each of 200 parallel checks gets its 503, none waits."""
        with Served(tmp_path, NOBODY, UPSTREAMS) as server, asking(server.socket) as gateway:
            answers = gateway.calls([check_request("geo")] * 200)
        assert {(a.status, a.error) for a in answers} == {(503, "no_credential")}
        assert all(1 <= int(a.headers["retry-after"]) <= 60 for a in answers)

    def test_it_ends_in_order(self, tmp_path: Path) -> None:
        """Without a token there is nothing to revoke: status 0."""
        with Served(tmp_path, NOBODY, UPSTREAMS) as server:
            server.ask(signal.SIGTERM)
            assert server.ended() == 0

    def test_a_login_that_is_refused(self, login: Login, tmp_path: Path) -> None:
        """A wrong secret_id is told on standard error and in the audit log, without it."""
        wrong = replace(login, secret_id="not-the-secret-id")
        with Served(tmp_path, wrong, UPSTREAMS) as server, asking(server.socket) as gateway:
            assert server.audited("vault.failed")["stage"] == "production"
            answer = gateway.check("geo")
            assert (answer.status, answer.error) == (503, "no_credential")
            assert "login of stage production" in server.stderr
            assert "not-the-secret-id" not in server.stdout + server.stderr


class TestAnyBytes:
    @pytest.mark.parametrize("transport", ["native", "grpcio"])
    def test_garbage(self, transport: str, login: Login, tmp_path: Path) -> None:
        """Random, truncated and huge requests are answered, and nothing is left behind by them."""
        dice = random.Random(7)
        whole = check_request("geo", host="geo.test", path="/" + "x" * 200)
        garbage = [
            b"",
            *(dice.randbytes(dice.randrange(1, 500)) for _ in range(150)),
            *(whole[: dice.randrange(len(whole))] for _ in range(100)),
            b"\xff" * (1 << 20),
            dice.randbytes(1 << 20),
            check_request("geo", path="/" + "x" * (1 << 20)),
        ]
        listen = f"grpc: unix://{tmp_path}/grpc.sock\n  transport: {transport}"
        with Served(tmp_path, login, UPSTREAMS, listen) as server:
            server.wait_ready()
            with asking(server.socket) as gateway:
                statuses = [answer.status for answer in gateway.calls(garbage)]
                assert {400} <= set(statuses) <= {200, 400, 403}
                assert statuses[0] == 400
                assert statuses[-3:] == [400, 400, 200]
                assert gateway.check("geo").headers["x-api-key"] == KEY
            assert "Traceback" not in server.stderr
            server.ask(signal.SIGTERM)
            assert server.ended() == 0
