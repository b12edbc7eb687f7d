"""CONNECT, which has no path, in a real Envoy from what `vaultauthz envoy` prints, in both modes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.contract.jwt_issuer import Issuer
from tests.integration.printed_bed import Certificates, Document, PrintedBed, manager_of, printed
from tests.integration.served import Login, Served
from tests.integration.test_envoy_protocols import until
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TIMEOUT = PATIENCE
REACHED = 501  # by the service, which knows no CONNECT
UPSTREAMS = """\
upstreams:
  tunnel:
    secret: {kv: connect/one}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
  guarded:
    secret: {kv: connect/one}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
    deny: [{path_prefix: /admin}]
    callers_enforced_by: envoy
routes:
  - {host: tunnel.test, upstream: tunnel}
  - {host: guarded.test, upstream: guarded}
  - {host: paths.test, path_prefix: /v1, upstream: tunnel}
"""


@pytest.fixture(scope="module")
def server(bao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    bao.put_kv("connect/one", {"api_key": "key-1"})
    policy = 'path "connect/*" { capabilities = ["read"] }'
    login = Login(bao.address, *bao.enable_approle("connect", policy))
    with Served(tmp_path_factory.mktemp("connect"), login, UPSTREAMS) as served:
        served.wait_ready()
        yield served


@pytest.fixture(scope="module", params=["ext_authz", "sds"])
def bed(
    request: pytest.FixtureRequest, server: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrintedBed]:
    """Its Envoy takes CONNECT, and leaves it to `routes` which upstream that is for."""
    status, text, err = printed(server.config, "--mode", request.param)
    assert (status, err) == (0, "")
    folder = tmp_path_factory.mktemp(request.param)
    bed = PrintedBed(text, folder, Certificates(folder), Issuer("https://login.test/"))
    _let_connect(bed.document)
    with bed:
        if request.param == "sds":
            assert wait_for(lambda: bed.secrets() == 2, TIMEOUT)
        yield bed


def _let_connect(document: Document) -> None:
    manager = manager_of(document)
    manager["upgrade_configs"] = [{"upgrade_type": "CONNECT"}]
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            if "ext_authz" in str(route.get("typed_per_filter_config")):
                del route["typed_per_filter_config"]
        to_service = [route for route in host["routes"] if "route" in route]
        for route in to_service[:1]:
            action = {**route["route"], "upgrade_configs": [{"upgrade_type": "CONNECT"}]}
            host["routes"].insert(0, {**route, "match": {"connect_matcher": {}}, "route": action})


def status_of(bed: PrintedBed, host: str) -> int:
    """What a CONNECT to this host is answered."""
    with (
        socket.create_connection(("127.0.0.1", bed.port), TIMEOUT) as plain,
        bed._secured(plain, None) as connection,
    ):
        connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        return int(until(connection, b"\r\n\r\n").split()[1])


def test_by_host_alone(bed: PrintedBed) -> None:
    """It is for the route that names nothing but the host: the service is asked."""
    assert status_of(bed, "tunnel.test") == REACHED


def test_past_a_rule_about_paths(bed: PrintedBed) -> None:
    """No tunnel where a rule wants to know the path, whoever enforces it."""
    assert status_of(bed, "guarded.test") in (400, 403)


@pytest.mark.parametrize("bed", ["ext_authz"], indirect=True)
def test_a_route_by_a_path(bed: PrintedBed) -> None:
    """It is for no request without one."""
    assert status_of(bed, "paths.test") == 403
