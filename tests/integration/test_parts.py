"""The parts that the demo and the integration tests stand on: each starts, works and stops, with real binaries."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import requests
import yaml

from tests.patience import PATIENCE
from vaultauthz.demo.parts import (
    Envoy,
    OpenBao,
    PartError,
    Postgres,
    Process,
    Upstream,
    echo,
    free_port,
    geocoder,
    reports,
    shorten,
    wait_for,
)
from vaultauthz.demo.parts.process import port_is_free
from vaultauthz.demo.stage import Gateway, demo_bootstrap

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

GATEWAY_FILES = Path(__file__).parents[2] / "envoy"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One OpenBao for the module."""
    with OpenBao(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One PostgreSQL for the module."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="a port is held on Linux only")
def test_a_free_port_is_kept_for_a_server() -> None:
    """Nobody who takes any port gets it, also between two servers; a server with SO_REUSEADDR does."""
    port = free_port()
    for _ in range(2):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)):
            socket.create_connection(("127.0.0.1", port)).close()
        assert port_is_free(port)


class TestProcess:
    def test_a_child_that_dies_is_reported_with_the_tail_of_its_log(self, tmp_path: Path) -> None:
        """Waiting for a child that ends raises its status and its last words."""
        child = Process([sys.executable, "-c", "raise SystemExit('no luck')"], tmp_path / "log")
        child.start()
        with pytest.raises(PartError, match=r"(?s)status 1.*no luck"):
            child.wait_until(lambda: False, timeout=PATIENCE)

    def test_a_late_child_is_killed(self, tmp_path: Path) -> None:
        """Waiting longer than the timeout raises and leaves no process."""
        child = Process(["/bin/sleep", "60"], tmp_path / "log")
        child.start()
        with pytest.raises(PartError, match="not ready within"):
            child.wait_until(lambda: False, timeout=0.1)
        assert not child.running

    def test_a_missing_binary_is_named(self, tmp_path: Path) -> None:
        """The error for a missing program names it and what installs it."""
        with pytest.raises(PartError, match=r"/no/such/bao .*run make demo"):
            Process(["/no/such/bao"], tmp_path / "log").start()

    def test_terminate_ends_a_suspended_child(self, tmp_path: Path) -> None:
        """A frozen child is woken so that it can end in order."""
        child = Process(["/bin/sleep", "60"], tmp_path / "log")
        child.start()
        child.suspend()
        assert child.terminate(timeout=PATIENCE) == -15

    @pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
    def test_a_child_does_not_outlive_us(self, tmp_path: Path) -> None:
        """When the starter is killed without warning, the kernel ends the child."""
        program = (
            "import os, pathlib, signal, sys\n"
            "from vaultauthz.demo.parts.process import Process, wait_for\n"
            "child = Process(['/bin/sleep', '60'], pathlib.Path(sys.argv[1]))\n"
            "child.start()\n"
            "proc = pathlib.Path(f'/proc/{child.pid}/comm')\n"
            "assert wait_for(lambda: proc.read_text() == 'sleep\\n', 60)\n"
            "print(child.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "log")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert wait_for(lambda: not alive(int(done.stdout)), PATIENCE)


class TestPostgres:
    def test_it_answers_the_superuser_and_nobody_else(self, postgres: Postgres) -> None:
        """The random superuser password opens a session, a wrong one does not."""
        with postgres.connect(postgres.superuser, postgres.password) as session:
            assert session.execute("SELECT count(*) FROM reports").fetchone() == (3,)
        with pytest.raises(psycopg.OperationalError):
            postgres.connect(postgres.superuser, "wrong")

    @pytest.mark.parametrize("end", ["stop", "kill"])
    def test_its_data_and_port_outlive_it(self, tmp_path: Path, end: str) -> None:
        """Stopped or killed, it comes back with the same data at the same address, and close removes everything."""
        with Postgres(tmp_path) as server:
            address = server.address
            with server.connect(server.superuser, server.password) as session:
                session.execute("INSERT INTO reports VALUES (4, 'April', 1)")
            getattr(server, end)()
            with pytest.raises(psycopg.OperationalError):
                server.connect(server.superuser, server.password)
            server.start()
            assert server.address == address
            with server.connect(server.superuser, server.password) as session:
                assert session.execute("SELECT count(*) FROM reports").fetchone() == (4,)
        assert port_is_free(server.port)


class TestOpenBao:
    def test_an_approle_login_reads_what_its_policy_allows(self, bao: OpenBao) -> None:
        """The stage's AppRole logs in and reads its key from KV, and nothing else."""
        assert bao.put_kv("secret/geocoder", {"api_key": "first"}) == 1
        assert bao.put_kv("secret/geocoder", {"api_key": "second"}) == 2
        policy = 'path "secret/data/geocoder" { capabilities = ["read"] }'
        role_id, secret_id = bao.enable_approle("kv-reader", policy, token_ttl="60s")
        client = bao.client()
        login = client.auth.approle.login(role_id, secret_id)
        assert login["auth"]["lease_duration"] == 60
        reader = bao.client(login["auth"]["client_token"])
        assert reader.read("secret/data/geocoder")["data"]["data"] == {"api_key": "second"}

    def test_a_login_that_it_makes_opens_postgresql_and_goes_with_its_lease(
        self, bao: OpenBao, postgres: Postgres
    ) -> None:
        """A database login logs in, may read the reports, and is dropped with its open session when revoked."""
        path = bao.database(postgres, "reports", default_ttl="30s", max_ttl="60s")
        issued = bao.client().read(path)
        user, password = issued["data"]["username"], issued["data"]["password"]
        session = postgres.connect(user, password)
        assert session.execute("SELECT current_user").fetchone() == (user,)
        assert postgres.users() == [user]
        bao.client().write_data(
            "sys/leases/revoke", data={"lease_id": issued["lease_id"], "sync": True}
        )
        assert postgres.users() == []
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            postgres.connect(user, password)

    def test_a_lease_ends_by_itself(self, bao: OpenBao, postgres: Postgres) -> None:
        """A login with a lease of a second is gone from PostgreSQL seconds later."""
        bao.client().read(bao.database(postgres, "brief", default_ttl="1s", max_ttl="1s"))
        assert len(postgres.users()) == 1
        assert wait_for(lambda: postgres.users() == [], PATIENCE)

    @pytest.mark.parametrize("end", ["stop", "kill"])
    def test_its_state_outlives_it(self, tmp_path: Path, end: str) -> None:
        """Stopped or killed, it comes back unsealed at the same address with what was written to it."""
        with OpenBao(tmp_path) as server:
            server.put_kv("secret/a", {"b": "c"})
            address = server.address
            getattr(server, end)()
            with pytest.raises(requests.ConnectionError):
                server.client().sys.read_health_status()
            server.start()
            assert server.address == address
            assert server.client().read("secret/data/a")["data"]["data"] == {"b": "c"}

    def test_sealed_it_answers_503_until_unsealed(self, bao: OpenBao) -> None:
        """A sealed server answers 503, an unsealed one 200."""
        bao.seal()
        assert requests.get(f"{bao.address}/v1/sys/health", timeout=PATIENCE).status_code == 503
        bao.unseal()
        assert requests.get(f"{bao.address}/v1/sys/health", timeout=PATIENCE).status_code == 200

    def test_its_audit_log_carries_the_correlation_id_in_clear(self, bao: OpenBao) -> None:
        """The header X-Correlation-Id of a call stands in the audit entry that has the response's request_id."""
        client = bao.client()
        client.session.headers["X-Correlation-Id"] = "from-the-test"
        request_id = client.read("sys/mounts")["request_id"]
        entries = [
            entry for entry in bao.audit_entries() if entry["request"].get("id") == request_id
        ]
        assert [entry["type"] for entry in entries] == ["request", "response"]
        headers = entries[0]["request"]["headers"]
        headers.pop("user-agent", None)  # which Vault shows as well
        assert headers == {"x-correlation-id": ["from-the-test"]}


class TestUpstreams:
    def test_reports_wants_a_postgresql_login(self, postgres: Postgres) -> None:
        """The service answers rows to a login that PostgreSQL takes, 401 to another and to none."""
        with Upstream(reports(postgres)) as upstream:
            url = f"http://127.0.0.1:{upstream.port}/"
            good = requests.get(url, auth=(postgres.superuser, postgres.password), timeout=PATIENCE)
            assert good.json()["current_user"] == postgres.superuser
            assert good.json()["rows"][0] == [1, "January", 1200]
            assert requests.get(url, auth=("v-nobody", "x"), timeout=PATIENCE).status_code == 401
            assert requests.get(url, timeout=PATIENCE).status_code == 401
            assert upstream.seen[0].basic() == (postgres.superuser, postgres.password)

    def test_geocoder_wants_one_of_the_valid_keys(self) -> None:
        """The service asks for the valid keys at each request."""
        keys = {"one"}
        with Upstream(geocoder(lambda: keys)) as upstream, requests.Session() as session:
            url = f"http://127.0.0.1:{upstream.port}/"
            assert (
                session.get(url, headers={"X-Api-Key": "one"}, timeout=PATIENCE).status_code == 200
            )
            assert (
                session.get(url, headers={"X-Api-Key": "two"}, timeout=PATIENCE).status_code == 401
            )
            keys.add("two")
            assert (
                session.get(url, headers={"X-Api-Key": "two"}, timeout=PATIENCE).status_code == 200
            )

    def test_echo_answers_what_it_received(self) -> None:
        """Every method is echoed with its path and headers, on a connection that stays open."""
        with Upstream(echo()) as upstream, requests.Session() as session:
            for method in ("GET", "POST", "DELETE"):
                answer = session.request(
                    method,
                    f"http://127.0.0.1:{upstream.port}/a?b=c",
                    headers={"X-One": "1"},
                    data=b"body",
                    timeout=PATIENCE,
                ).json()
                assert (answer["method"], answer["path"]) == (method, "/a?b=c")
                assert ["X-One", "1"] in answer["headers"]
            assert len(upstream.seen) == 3

    @pytest.mark.parametrize(
        ("credential", "shown"), [("abcdefghij", "abcd…"), ("abcd", "ab…"), ("", "…")]
    )
    def test_a_credential_is_shortened(self, credential: str, shown: str) -> None:
        """At most four characters and never more than half are shown."""
        assert shorten(credential) == shown


def proxy(port: int, upstream_port: int) -> dict[str, object]:
    """The smallest bootstrap: one listener, one cluster."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "echo"}}
    connection = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    http = {
        "@type": connection,
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}]

    def address(number: int) -> dict[str, object]:
        return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": number}}}

    listener = {"name": "in", **address(port), "filter_chains": [{"filters": filters}]}
    endpoints = [{"lb_endpoints": [{"endpoint": address(upstream_port)}]}]
    cluster = {"name": "echo", "load_assignment": {"cluster_name": "echo", "endpoints": endpoints}}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


class TestEnvoy:
    def test_it_proxies_counts_and_stops(self, tmp_path: Path) -> None:
        """A request goes through it to an upstream, its statistics show it, and stop frees the port."""
        port = free_port()
        with Upstream(echo()) as upstream, Envoy(proxy(port, upstream.port), tmp_path) as envoy:
            assert (
                requests.get(f"http://127.0.0.1:{port}/hi", timeout=PATIENCE).json()["path"]
                == "/hi"
            )
            assert envoy.stats("cluster.echo.upstream_rq_200") == {
                "cluster.echo.upstream_rq_200": 1
            }
        assert port_is_free(port)

    def test_a_wrong_bootstrap_is_refused_with_the_reason(self, tmp_path: Path) -> None:
        """Both validate and start say which field Envoy does not know."""
        envoy = Envoy({"static_resources": {"clustres": []}}, tmp_path)
        with pytest.raises(PartError, match="clustres"):
            envoy.validate()
        with pytest.raises(PartError, match="clustres"):
            envoy.start()


class TestPki:
    def test_certificates_carry_the_names_asked_for(self, bao: OpenBao, tmp_path: Path) -> None:
        """The server's certificate has its host names, the client's its SPIFFE id, and keys are for the owner only."""
        pki = bao.pki()
        authority = pki.ca(tmp_path)
        assert authority.read_text().startswith("-----BEGIN CERTIFICATE")
        server = pki.issue_server(tmp_path, "reports.demo", "geocoder.demo")
        client = pki.issue_client(tmp_path, "spiffe://demo/dashboard")
        assert oct(client.key.stat().st_mode & 0o777) == "0o600"
        text = {}
        for certificate in (server, client):
            done = subprocess.run(
                [
                    "openssl",
                    "x509",
                    "-in",
                    str(certificate.cert),
                    "-noout",
                    "-ext",
                    "subjectAltName",
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            text[certificate.cert.name] = done.stdout
        assert "DNS:geocoder.demo" in text["reports.demo.pem"]
        assert "URI:spiffe://demo/dashboard" in text["dashboard.pem"]
        assert "DNS" not in text["dashboard.pem"]


class TestGatewayFiles:
    """The files in envoy/ are taken by the real Envoy."""

    def test_the_gateway_file_is_valid_as_it_is(self, tmp_path: Path) -> None:
        """Envoy takes ext_authz.yaml without a change."""
        Envoy((GATEWAY_FILES / "ext_authz.yaml").read_text(), tmp_path).validate()

    def test_the_demo_file_is_valid_with_the_demo_s_places(
        self, bao: OpenBao, tmp_path: Path
    ) -> None:
        """Envoy takes demo.yaml with this demo's ports and files in it, and nothing of the defaults is left."""
        pki = bao.pki()
        ports = {"reports": 18081, "geocoder": 18082}
        certificate = pki.issue_server(tmp_path, "reports.demo")
        document = demo_bootstrap(
            Gateway(18080, certificate, pki.ca(tmp_path), tmp_path / "grpc.sock", ports)
        )
        Envoy(document, tmp_path / "envoy").validate()
        text = yaml.safe_dump(document["static_resources"])
        for default in ("10000", "8081\n", "8082\n", "/run/vaultauthz", "/etc/vaultauthz"):
            assert f": {default}" not in text
