"""Certificates by SDS: Envoy shows an upstream who it is, and goes on doing so through rotations."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.faults.traffic import Traffic
from tests.integration.sds_bed import SdsEnvoy, Service, metrics, mutual_tls
from tests.integration.served import Login, Served
from tests.patience import PATIENCE
from vaultauthz.demo.parts import Certificate, OpenBao, Pki, wait_for

pytestmark = pytest.mark.integration

SERVER = "partner.test"
POLICY = """
path "sds-pki/issue/client" { capabilities = ["update"] }
path "sds-tls/data/*" { capabilities = ["read"] }
"""
UPSTREAMS = """
upstreams:
  partner:
    secret: {pki: sds-pki/issue/client, params: {common_name: gateway, ttl: 6s}}
    inject: [{tls: {}}]
    callers: any
  stored:
    secret: {kv: sds-tls/stored, refresh: 1s}
    inject: [{tls: {certificate: "{cert}", private_key: "{key}"}}]
    callers: any
  ruled:
    secret: {kv: sds-tls/stored, refresh: 1s}
    inject: [{tls: {certificate: "{cert}", private_key: "{key}"}}]
    callers: [{principal: spiffe://corp/checkout}]
"""
SETTLE = PATIENCE


class Partner:
    """A service that talks to nobody without a certificate of its authority; ``serials`` are theirs."""

    def __init__(self, own: Certificate, ca: Path) -> None:
        self.serials: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.cert, own.key)
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = _Server(("127.0.0.1", 0), _handler(self.serials))
        # The handshake is made by the connection's own thread.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Nothing: a client without a certificate is no news."""


def _handler(serials: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            assert isinstance(self.connection, ssl.SSLSocket)
            certificate = self.connection.getpeercert()
            assert certificate
            serials.append(str(certificate["serialNumber"]))
            body = json.dumps(certificate).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything of this module is."""
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def pki(bao: OpenBao) -> Pki:
    """An authority of its own."""
    return bao.pki("sds-pki")


@pytest.fixture(scope="module")
def partner(folder: Path, pki: Pki) -> Iterator[Partner]:
    """The service behind Envoy."""
    made = Partner(pki.issue_server(folder, SERVER), pki.ca(folder))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def clients(folder: Path, pki: Pki) -> list[Certificate]:
    """Two certificates with their keys."""
    return [pki.issue_client(folder, f"spiffe://corp/{name}") for name in ("first", "second")]


@pytest.fixture(scope="module")
def served(folder: Path, bao: OpenBao, pki: Pki, clients: list[Certificate]) -> Iterator[Served]:
    """The server, with a certificate from PKI and one that is stored."""
    store(bao, clients[0], clients[0])
    role_id, secret_id = bao.enable_approle("sds-tls", POLICY)
    (folder / "served").mkdir()
    with Served(folder / "served", Login(bao.address, role_id, secret_id), UPSTREAMS) as server:
        server.wait_ready()
        yield server


def store(bao: OpenBao, cert: Certificate, key: Certificate) -> None:
    """Store a certificate and a key, which need not fit."""
    fields = {"cert": cert.cert.read_text(), "key": key.key.read_text()}
    bao.put_kv("sds-tls/stored", fields)


@pytest.fixture(params=["delta-ads", "grpc"])
def envoy(
    request: pytest.FixtureRequest, tmp_path: Path, folder: Path, served: Served, partner: Partner
) -> Iterator[SdsEnvoy]:
    """An Envoy whose connections to the partner live for a second, as certificates must change."""
    form: str = request.param
    names = {"partner": "production/partner", "stored": "production/stored/tls"}
    services = [
        Service(name, partner.port, {}, mutual_tls(secret, form, folder / "ca.pem", SERVER))
        for name, secret in names.items()
    ]
    with SdsEnvoy(tmp_path, served.socket, services, form, f"tls-{form}") as made:
        assert wait_for(lambda: all(made.get(n).status == 200 for n in names), SETTLE)
        yield made


def test_certificates_rotate_under_load(envoy: SdsEnvoy, partner: Partner) -> None:
    """Certificates of a few seconds: the partner sees new ones, and no request fails."""
    partner.serials.clear()
    with Traffic(envoy.port, "partner.test", 2) as traffic:
        assert wait_for(lambda: len(set(partner.serials)) >= 3, PATIENCE), set(partner.serials)
    assert set(traffic.statuses()) == {200}, traffic.statuses()
    shown = json.loads(envoy.get("partner").text)
    assert shown["subject"] == [[["commonName", "gateway"]]]


def test_the_end_of_what_is_shown_is_told(envoy: SdsEnvoy, served: Served) -> None:
    """The notAfter that a service sees in the handshake, of what is stored and of what PKI issues."""

    def told(upstream: str) -> float:
        labels = f'stage="production",upstream="{upstream}",use="upstream"'
        name = f"vaultauthz_certificate_expiration_timestamp_seconds{{{labels}}} "
        lines = metrics(served.admin_socket).splitlines()
        return float(next(line for line in lines if line.startswith(name)).removeprefix(name))

    def shown(upstream: str) -> float:
        return ssl.cert_time_to_seconds(json.loads(envoy.get(upstream).text)["notAfter"])

    assert told("stored") == shown("stored")
    # It is another every few seconds, and Envoy's connection is used for a second.
    assert wait_for(lambda: told("partner") == shown("partner"), SETTLE)


def test_a_certificate_that_envoy_refuses(
    envoy: SdsEnvoy, served: Served, bao: OpenBao, clients: list[Certificate]
) -> None:
    """With a key that does not fit it keeps the one before; the operator is told why, once."""
    first, second = clients
    caller = f"edge/{envoy.node}"
    with Traffic(envoy.port, "stored.test", 2) as traffic:
        store(bao, first, second)
        served.wait(lambda: bool(served.audit("sds.refused", caller=caller)), "no refusal")
        words = f"{caller} refuses production/stored/tls: Failed to load private key from <inline>"
        served.wait(lambda: words in served.stderr, "Envoy's words are not in the log")
        store(bao, second, second)
        served.wait(
            lambda: served.audit(upstream="stored", caller=caller)[-1]["event"] == "sds.delivered",
            "the good one did not come",
        )
    assert set(traffic.statuses()) == {200}, traffic.statuses()
    assert served.stderr.count(words) == 1
    assert "PRIVATE KEY" not in served.stderr + served.stdout
    store(bao, first, first)


def test_a_certificate_that_is_withheld(
    tmp_path: Path, folder: Path, served: Served, partner: Partner
) -> None:
    """Callers are not asked about by SDS: then nobody reaches the service, and the answer is 503."""
    tls = mutual_tls("production/ruled", "grpc", folder / "ca.pem", SERVER)
    ruled = Service("ruled", partner.port, {}, tls)
    with SdsEnvoy(tmp_path, served.socket, [ruled], "grpc", "tls-withheld") as made:
        told = "sds: Envoy asks for 'production/ruled', which has callers"
        served.wait(lambda: told in served.stderr, "the server was not asked")
        before = len(partner.serials)
        assert {made.get("ruled").status for _ in range(5)} == {503}
        assert len(partner.serials) == before
