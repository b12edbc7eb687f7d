"""What `vaultauthz envoy` prints where the configuration says it all: Envoy runs it as it is."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.certificates import Pair
from tests.contract.jwt_issuer import Issuer
from tests.integration.printed_bed import Certificates, printed
from tests.integration.served import TIMEOUT, Login, Served
from vaultauthz.demo.parts import Envoy, OpenBao, free_port, wait_for

pytestmark = pytest.mark.integration

POLICY = 'path "finished/*" { capabilities = ["read"] }'
KEY = "finished-key-1"
AUDIENCE = "gateway.test"
UPSTREAM = """
  {name}:
    secret: {{kv: finished/one}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    callers: {callers}
    callers_enforced_by: envoy
    to: {to}"""
WRONG = ("wrong-ca", "wrong-name", "public")


@dataclass(frozen=True)
class Bed:
    """The server, a file that was printed for it, and the Envoys before and behind."""

    envoy: Envoy
    services: Envoy
    text: str
    port: int
    authority: Certificates
    served: Served

    def get(
        self,
        host: str,
        path: str = "/",
        *,
        certificate: Pair | None = None,
        token: str = "",
    ) -> http.client.HTTPResponse:
        """The answer to a request over TLS, its body read."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        if certificate:
            context.load_cert_chain(certificate.cert, certificate.key)
        connection = http.client.HTTPSConnection(
            "localhost", self.port, timeout=TIMEOUT, context=context
        )
        with contextlib.closing(connection):
            headers = {"Host": host, "X-Api-Key": "mine"}
            headers |= {"Authorization": f"Bearer {token}"} if token else {}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
        return answer

    def arrived(self, name: str) -> int:
        """How many requests a service has got."""
        stat = f"http.service-{name}.downstream_rq_total"
        return self.services.stats(stat)[stat]


class AsPrinted(Envoy):
    """An Envoy that runs a file as it is; its admin page's port alone is given besides."""

    def __init__(self, file: Path, folder: Path) -> None:
        super().__init__({}, folder)
        self._file = file
        self._options = ("--config-yaml", json.dumps({"admin": self._bootstrap["admin"]}))

    def _write(self) -> Path:
        return self._file


def service(name: str, port: int, pair: Pair | None, alpn: list[str], body: str) -> dict[str, Any]:
    """A listener that answers 200, and tells in headers how it was asked."""
    told = {
        "x-got": "%REQ(X-API-KEY)%",
        "x-host": "%REQ(:AUTHORITY)%",
        "x-protocol": "%PROTOCOL%",
        "x-sni": "%REQUESTED_SERVER_NAME%",
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": f"service-{name}",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
        "route_config": {
            "response_headers_to_add": [
                {"header": {"key": key, "value": value}} for key, value in told.items()
            ],
            "virtual_hosts": [
                {
                    "name": "any",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": body}},
                        }
                    ],
                }
            ],
        },
    }
    chain: dict[str, Any] = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    if pair:
        files = {
            "certificate_chain": {"filename": str(pair.cert)},
            "private_key": {"filename": str(pair.key)},
        }
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
                "DownstreamTlsContext",
                "common_tls_context": {"alpn_protocols": alpn, "tls_certificates": [files]},
            },
        }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    kind = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    inspector = {  # which sees the name that is asked for
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {"@type": kind},
    }
    return {
        "name": name,
        "address": address,
        "listener_filters": [inspector],
        "filter_chains": [chain],
    }


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Who signs all certificates but one."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Who issues the callers' tokens."""
    return Issuer("https://login.test/")


@pytest.fixture(scope="module")
def services(
    authority: Certificates, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Envoy, dict[str, int]]]:
    """Services that speak HTTP/2, HTTP/1.1 and no TLS, and where the issuer's keys are; their ports."""
    by_name, by_ip = authority.issue("localhost"), authority.issue("127.0.0.1")
    ports = {name: free_port() for name in ("h2", "h1", "well", "plain", "other", "keys")}
    listeners = [
        service("h2", ports["h2"], by_name, ["h2", "http/1.1"], "well"),
        service("h1", ports["h1"], by_ip, ["http/1.1"], "well"),
        service("well", ports["well"], by_name, ["h2", "http/1.1"], "well"),
        service("plain", ports["plain"], None, [], "well"),
        service("other", ports["other"], by_name, ["h2", "http/1.1"], "well"),
        service("keys", ports["keys"], by_name, ["http/1.1"], json.dumps(issuer.jwks)),
    ]
    document = {"static_resources": {"listeners": listeners}}
    with Envoy(document, tmp_path_factory.mktemp("services")) as envoy:
        yield envoy, ports


def configuration(
    authority: Certificates, ports: dict[str, int], port: int, folder: Path, more: str
) -> str:
    """Upstreams with their services, routes and the gateway's side."""
    another = Certificates(folder).ca
    ca, h2 = authority.ca, f"https://localhost:{ports['h2']}"
    other = f"https://localhost:{ports['other']}"
    to = {
        "h2": ("any", f"{{address: '{h2}', ca_cert: {ca}}}"),
        "h1": (
            "any",
            f"{{address: 'https://127.0.0.1:{ports['h1']}', ca_cert: {ca}, preserve_host: true}}",
        ),
        "named": (
            "any",
            (
                f"{{address: 'https://127.0.0.1:{ports['well']}', ca_cert: {ca}, server_name: localhost,"
                " health: /healthz}"
            ),
        ),
        "plain": ("any", f"http://127.0.0.1:{ports['plain']}"),
        "checkout": (
            '[{principal: "spiffe://corp/checkout/*"}]',
            f"{{address: '{h2}', ca_cert: {ca}}}",
        ),
        "pay": ("[{claims: {scope: pay}}]", f"{{address: '{h2}', ca_cert: {ca}}}"),
        "wrong-ca": ("any", f"{{address: '{other}', ca_cert: {another}}}"),
        "wrong-name": (
            "any",
            f"{{address: 'https://127.0.0.1:{ports['other']}', ca_cert: {ca}}}",
        ),
        "public": ("any", other),
    }
    pair = authority.issue("localhost", file="gateway")
    pair.key.chmod(0o600)
    return "\n".join(
        (
            "upstreams:"
            + "".join(
                UPSTREAM.format(name=name, callers=callers, to=where)
                for name, (callers, where) in to.items()
            ),
            "routes:",
            *(f"  - {{host: {name}.test, path_prefix: /v1, upstream: {name}}}" for name in to),
            "gateway:",
            f"  address: 127.0.0.1:{port}",
            "  node: edge-1",
            f"  tls: {{cert: {pair.cert}, key: {pair.key}, client_ca: {ca}}}",
            (
                f"  jwt: {{issuer: 'https://login.test/', audiences: [{AUDIENCE}],"
                f" jwks: 'https://localhost:{ports['keys']}/keys', ca_cert: {ca}}}"
            ),
            more,
        )
    )


@pytest.fixture(scope="module", params=["ext_authz", "sds", "ext_authz by port", "sds by port"])
def bed(
    request: pytest.FixtureRequest,
    bao: OpenBao,
    authority: Certificates,
    services: tuple[Envoy, dict[str, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bed]:
    """Envoy in each mode, with vaultauthz on a unix socket or on a port with mutual TLS."""
    mode, _, by_port = request.param.partition(" by ")
    bao.put_kv("finished/one", {"api_key": KEY})
    login = Login(bao.address, *bao.enable_approle("finished", POLICY))
    folder, port, grpc = tmp_path_factory.mktemp("finished"), free_port(), free_port()
    listen = more = ""
    if by_port:
        ours, theirs = authority.issue("localhost", file="ours"), authority.issue("envoy.test")
        for key in (ours.key, theirs.key):
            key.chmod(0o600)
        listen = (
            f"grpc: '0.0.0.0:{grpc}'\n  grpc_tls: {{cert: {ours.cert}, key: {ours.key}, "
            f"client_ca: {authority.ca}, client_names: [envoy.test]}}"
        )
        more = (
            f"  vaultauthz: {{address: 'localhost:{grpc}', ca_cert: {authority.ca}, "
            f"client_cert: {theirs.cert}, client_key: {theirs.key}}}"
        )
    text = configuration(authority, services[1], port, folder, more)
    with Served(folder, login, text, listen) as served:
        served.wait_ready()
        status, out, err = printed(served.config, "--mode", mode)
        assert (status, err) == (0, "")
        file = folder / "envoy.yaml"
        file.write_text(out)
        with AsPrinted(file, folder / "envoy") as envoy:
            yield Bed(envoy, services[0], out, port, authority, served)


def test_nothing_is_left_to_replace(bed: Bed) -> None:
    """The file is whole; Envoy takes it, and it holds no credential."""
    assert "REPLACE" not in bed.text
    assert KEY not in bed.text
    bed.envoy.validate()


@pytest.mark.parametrize(
    ("name", "protocol", "host", "sni"),
    [
        ("h2", "HTTP/2", "localhost", "localhost"),
        ("h1", "HTTP/1.1", "h1.test", ""),
        ("named", "HTTP/2", "127.0.0.1", "localhost"),
        ("plain", "HTTP/1.1", "127.0.0.1", ""),
    ],
)
def test_the_service_gets_the_credential(
    bed: Bed, name: str, protocol: str, host: str, sni: str
) -> None:
    """200, with ours in place of the client's; HTTP/2 where the service takes it, its own host and SNI."""
    assert wait_for(lambda: bed.get(f"{name}.test", "/v1/x").status == 200, TIMEOUT)
    answer = bed.get(f"{name}.test", "/v1/x")
    assert (answer.getheader("x-got"), answer.getheader("x-protocol")) == (KEY, protocol)
    assert (answer.getheader("x-host") or "").partition(":")[0] == host
    assert (answer.getheader("x-sni") or "-").strip("-") == sni
    bed.served.audited("request.allowed", upstream=name, path="/v1/x")


@pytest.mark.parametrize("name", WRONG)
def test_a_service_that_is_another(bed: Bed, name: str) -> None:
    """A certificate of another authority, or for another name: 503, and nothing is sent."""
    before = bed.arrived("other")
    answer = bed.get(f"{name}.test", "/v1/x")
    assert answer.status == 503
    failed = bed.envoy.stats(f"cluster.{name}.ssl")
    assert sum(count for stat, count in failed.items() if "fail_verify" in stat) > 0, failed
    assert bed.arrived("other") == before


def test_who_the_caller_is(bed: Bed, issuer: Issuer) -> None:
    """By its certificate, and by a token whose keys Envoy fetches."""
    web = bed.authority.client("web", "x", ["spiffe://corp/checkout/web"], [])
    assert bed.get("checkout.test", "/v1/x", certificate=web).status == 200
    assert bed.get("checkout.test", "/v1/x").status == 403
    good = issuer.token("ann", AUDIENCE, scope="pay")
    assert bed.get("pay.test", "/v1/x", token=good).status == 200
    other = issuer.token("ann", "another.test", scope="pay")
    assert bed.get("pay.test", "/v1/x", token=other).status == 403
    assert bed.get("pay.test", "/v1/x").status == 403


def test_where_no_route_leads(bed: Bed) -> None:
    """A path that is not below the route's, and a host that nobody knows."""
    before = bed.arrived("h2")
    for host, path in (("h2.test", "/v10"), ("nobody.test", "/v1")):
        assert bed.get(host, path).status in (403, 404)
    assert bed.arrived("h2") == before
