"""A real Envoy from envoy/ext_authz.yaml in front of two services that write down what reaches them.

It listens three times: `strict` is the file as it is, `raw` sends every header along, and `careless` leaves
paths as clients send them and does without `encode_raw_headers`, as a gateway that somebody else configured may.
"""

from __future__ import annotations

import contextlib
import copy
import http.client
import itertools
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import h2.config
import h2.connection
import h2.events
import requests
import yaml

from tests.patience import PATIENCE
from vaultauthz.demo.parts import Envoy, Seen, Upstream, echo, free_port, wait_for

FILE: Final = Path(__file__).parents[2] / "envoy" / "ext_authz.yaml"
LISTENERS: Final = ("strict", "raw", "careless")
TIMEOUT: Final = PATIENCE
TRACE: Final = "x-trace"
_EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"

# Envoy writes its access log every ten seconds, unless it is told otherwise.
FLUSH: Final = ("--file-flush-interval-msec", "200")

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """What the client got, and the request as a service behind the gateway received it, if one did."""

    status: int
    headers: dict[str, str]
    text: str
    service: str = ""  # "alpha" or "beta"; "" when it reached neither
    seen: Seen | None = None

    @property
    def error(self) -> str:
        """The reason in an answer of ours."""
        try:
            document = json.loads(self.text)
        except ValueError:
            return ""
        return str(document.get("error", "")) if isinstance(document, dict) else ""

    def got(self, name: str) -> list[str]:
        """The values of this header, each as often as the service received it."""
        assert self.seen, f"it reached no service: {self.status} {self.text}"
        return self.seen.all(name)

    @property
    def path(self) -> str:
        """The request target as the service received it."""
        assert self.seen, f"it reached no service: {self.status} {self.text}"
        return self.seen.path


@dataclass(frozen=True)
class Route:
    """Requests for `host` below `prefix` go to `service`; `upstream` and `stage` are what Envoy tells us."""

    host: str
    upstream: str = ""
    stage: str = ""
    service: str = "alpha"
    prefix: str = "/"


def logged(envoy: Envoy, **fields: object) -> dict[str, Any]:
    """The first line with these fields in the access log that goes to Envoy's standard output, waited for.

    Envoy may write it a moment after the client has had its answer.
    """
    found: list[dict[str, Any]] = []

    def look() -> bool:
        # The last line may be half written.
        lines = envoy.log.read_text().splitlines(keepends=True)
        entries = [json.loads(one) for one in lines if one.startswith("{") and one.endswith("\n")]
        found[:] = [one for one in entries if fields.items() <= one.items()]
        return bool(found)

    assert wait_for(look, TIMEOUT), f"no line with {fields} in {envoy.log}"
    return found[0]


class GatewayBed:
    """Envoy and the services `alpha` and `beta`; what it asks about is answered at ``grpc_socket``.

    ``more`` are the ports of services that a test starts itself; those named `grpc…` speak HTTP/2.
    """

    def __init__(
        self,
        folder: Path,
        grpc_socket: Path,
        routes: Iterable[Route],
        more: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.services = {"alpha": Upstream(echo()), "beta": Upstream(echo())}
        self.ports = {name: free_port() for name in LISTENERS}
        ports = {name: service.port for name, service in self.services.items()} | dict(more)
        self.bootstrap = _bootstrap(grpc_socket, self.ports, ports, list(routes))
        self.envoy = Envoy(self.bootstrap, folder / "envoy", options=FLUSH)
        self._parts = contextlib.ExitStack()
        self._numbers = itertools.count(1)

    def get(self, host: str, path: str = "/", headers: Headers = (), by: str = "strict") -> Reply:
        """Send a GET over HTTP/1.1 as it is written here, and see what came of it."""
        trace = str(next(self._numbers))
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", f"{TRACE}: {trace}"]
        lines += [f"{name}: {value}" for name, value in headers]
        with socket.create_connection(("127.0.0.1", self.ports[by]), TIMEOUT) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape"))
            response = http.client.HTTPResponse(connection)
            response.begin()
            text = response.read().decode()
        return self._reply(trace, response.status, response.getheaders(), text)

    def get2(self, host: str, path: str = "/", headers: Headers = (), by: str = "strict") -> Reply:
        """Send a GET over HTTP/2 in clear, where header names are in lower case."""
        trace = str(next(self._numbers))
        sent = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)]
        sent += [(TRACE, trace), *((name.lower(), value) for name, value in headers)]
        with socket.create_connection(("127.0.0.1", self.ports[by]), TIMEOUT) as connection:
            received, text = _over_http2(connection, sent)
        return self._reply(trace, int(received.pop(":status")), received.items(), text)

    def _reply(self, trace: str, status: int, headers: Headers, text: str) -> Reply:
        lowered = {name.lower(): value for name, value in headers}
        for name, service in self.services.items():
            for seen in list(service.seen):
                if seen.all(TRACE) == [trace]:
                    return Reply(status, lowered, text, name, seen)
        return Reply(status, lowered, text)

    def healthy(self) -> bool:
        """Whether Envoy's own health check of us succeeds."""
        answer = requests.get(f"{self.envoy.admin}/clusters?format=json", timeout=TIMEOUT).json()
        (ours,) = [c for c in answer["cluster_statuses"] if c["name"] == "vaultauthz"]
        (host,) = ours["host_statuses"]
        return "failed_active_health_check" not in host["health_status"]

    def logged(self, path: str) -> dict[str, Any]:
        """The line of a request in Envoy's access log."""
        return logged(self.envoy, path=path)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            for service in self.services.values():
                parts.enter_context(service)
            parts.enter_context(self.envoy)
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._parts.close()


def _over_http2(
    connection: socket.socket, headers: list[tuple[str, str]]
) -> tuple[dict[str, str], str]:
    """One request on its own connection; the answer's headers and text."""
    config = h2.config.H2Configuration(
        # What a browser may not send, a test may.
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8",
    )  # fmt: skip
    protocol = h2.connection.H2Connection(config)
    protocol.initiate_connection()
    protocol.send_headers(protocol.get_next_available_stream_id(), headers, end_stream=True)
    received: dict[str, str] = {}
    body = b""
    while True:
        connection.sendall(protocol.data_to_send())
        data = connection.recv(65536)
        for event in protocol.receive_data(data) if data else [None]:
            if isinstance(event, h2.events.ResponseReceived):
                received = {str(name): str(value) for name, value in event.headers or ()}
            elif isinstance(event, h2.events.DataReceived):
                body += event.data or b""
            elif isinstance(event, h2.events.StreamEnded):
                return received, body.decode()
            elif event is None or isinstance(
                event, h2.events.StreamReset | h2.events.ConnectionTerminated
            ):
                return received or {":status": "0"}, repr(event)


def _bootstrap(
    grpc_socket: Path, ports: dict[str, int], services: dict[str, int], routes: list[Route]
) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(FILE.read_text())
    resources = document["static_resources"]
    (shipped,) = resources["listeners"]
    resources["listeners"] = [_listener(shipped, name, ports[name], routes) for name in LISTENERS]
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    ours, service = clusters["vaultauthz"], clusters["payments"]
    logs = clusters["vaultauthz_logs"]
    for cluster in (ours, logs):
        _address(cluster)["pipe"]["path"] = str(grpc_socket)
    # Sooner than in production, so that a test need not wait.
    ours["health_checks"][0] |= {"interval": "0.2s", "no_traffic_interval": "0.2s"}
    http2 = ours["typed_extension_protocol_options"]
    resources["clusters"] = [ours, logs, *(_cluster(service, *pair) for pair in services.items())]
    for cluster in resources["clusters"]:
        if cluster["name"].startswith("grpc"):
            cluster["typed_extension_protocol_options"] = http2
    return document


def _listener(shipped: dict[str, Any], name: str, port: int, routes: list[Route]) -> dict[str, Any]:
    listener = copy.deepcopy(shipped)
    listener["name"] = name
    listener["address"]["socket_address"]["port_value"] = port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    hosts = manager["route_config"]["virtual_hosts"]
    (unknown,) = [host for host in hosts if host["domains"] == ["*"]]
    names = dict.fromkeys(route.host for route in routes)
    ours = [_virtual_host(host, [r for r in routes if r.host == host]) for host in names]
    manager["route_config"]["virtual_hosts"] = [*ours, unknown]
    (asking,) = [f["typed_config"] for f in manager["http_filters"] if f["name"] == _EXT_AUTHZ]
    asking["grpc_service"]["timeout"] = "3s"  # for a machine that is busy; and a test waits for it
    # The file is for the configuration beside it, and tests have others.
    asking["decoder_header_mutation_rules"] = {"disallow_is_error": True}
    asking["metadata_context_namespaces"] = ["envoy.filters.http.jwt_authn"]
    sent = [{"exact": "x-request-id"}, {"exact": "cookie"}]
    asking["allowed_headers"] = {"patterns": sent}
    if name == "raw":
        del asking["allowed_headers"]
    if name == "careless":
        del asking["encode_raw_headers"]
        asking["validate_mutations"] = False
        for key in ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action"):
            del manager[key]
        manager["normalize_path"] = False  # its default comes from a runtime key
        del manager["common_http_protocol_options"]["headers_with_underscores_action"]
    return listener


def _virtual_host(host: str, routes: list[Route]) -> dict[str, Any]:
    return {"name": host, "domains": [host], "routes": [_route(route) for route in routes]}


def _route(route: Route) -> dict[str, Any]:
    made: dict[str, Any] = {
        "match": {"prefix": route.prefix},
        "route": {"cluster": route.service, "upgrade_configs": [{"upgrade_type": "websocket"}]},
    }
    extensions = {"upstream": route.upstream, "stage": route.stage}
    told = {name: value for name, value in extensions.items() if value}
    if told:
        made["typed_per_filter_config"] = {
            _EXT_AUTHZ: {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                "check_settings": {"context_extensions": told},
            }
        }
    return made


def _cluster(shipped: dict[str, Any], name: str, port: int) -> dict[str, Any]:
    cluster = copy.deepcopy(shipped)
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
    cluster["type"] = "STATIC"
    del cluster["transport_socket"]
    _address(cluster)["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    return cluster


def _address(cluster: dict[str, Any]) -> dict[str, Any]:
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address: dict[str, Any] = endpoint["address"]
    return address
