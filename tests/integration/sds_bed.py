"""Real Envoys that get their credentials by SDS, and what sends requests through them."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.integration.gateway_bed import TIMEOUT, TRACE, Headers, Reply
from vaultauthz.demo.parts import Envoy, Upstream, free_port

# How Envoy asks: by a stream for all secrets or for each, state of the world or delta.
FORMS: Final = ("ads", "delta-ads", "grpc", "delta-grpc")
OURS: Final = "vaultauthz"
_TYPE: Final = "type.googleapis.com/envoy.extensions"
_HTTP2: Final[dict[str, Any]] = {"explicit_http_config": {"http2_protocol_options": {}}}
_numbers = itertools.count(1)

Document = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """A service behind Envoy: requests for host NAME.test go there with these secrets.

    ``secrets`` are headers by the name of the secret that fills them; ``transport_socket``
    is Envoy's, for TLS.
    """

    name: str
    upstream: Upstream | int
    secrets: Mapping[str, str]
    transport_socket: Document | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.upstream if isinstance(self.upstream, int) else self.upstream.port


class SdsEnvoy(Envoy):
    """One Envoy in front of ``services``; ``form`` is one of FORMS."""

    def __init__(
        self, folder: Path, socket_path: Path, services: Iterable[Service], form: str, node: str
    ) -> None:
        self.node = node
        self.port = free_port()
        self.services = {service.name: service for service in services}
        behind = tuple(self.services.values())
        bootstrap = _bootstrap(self.port, [_ours(socket_path)], behind, node)
        clusters = [_cluster(service, form) for service in behind]
        if "ads" in form:
            _by_file(bootstrap, folder, clusters, form)
        else:
            bootstrap["static_resources"]["clusters"] += clusters
        super().__init__(bootstrap, folder)

    def get(self, service: str, headers: Headers = ()) -> Reply:
        """Send a GET as it is written here, and see what came of it."""
        trace = str(next(_numbers))
        lines = ["GET / HTTP/1.1", f"Host: {service}.test", f"{TRACE}: {trace}"]
        lines += [f"{name}: {value}" for name, value in headers]
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            text = response.read().decode()
        lowered = {name.lower(): value for name, value in response.getheaders()}
        upstream = self.services[service].upstream
        for seen in [] if isinstance(upstream, int) else list(upstream.seen):
            if seen.all(TRACE) == [trace]:
                return Reply(response.status, lowered, text, service, seen)
        return Reply(response.status, lowered, text)

    def count(self, name: str) -> int:
        """One counter or gauge."""
        return self.stats(name.replace(".", "\\.")).get(name, 0)


def _bootstrap(
    port: int, clusters: list[Document], services: Iterable[Service], node: str
) -> Document:
    return {
        "node": {"id": node, "cluster": "edge"},
        "static_resources": {"listeners": [_listener(port, services)], "clusters": clusters},
    }


def _by_file(bootstrap: Document, folder: Path, clusters: list[Document], form: str) -> None:
    """Envoy 1.40 falls over a static cluster that wants a secret by ads, which comes later."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    resources = [{"@type": kind, **cluster} for cluster in clusters]
    file = folder / "clusters.json"
    file.write_text(json.dumps({"resources": resources}))
    source = {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}
    bootstrap["dynamic_resources"] = {"ads_config": _source(form), "cds_config": source}


def _source(form: str) -> Document:
    return {
        "api_type": "DELTA_GRPC" if "delta" in form else "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": OURS}}],
    }


def sds(name: str, form: str) -> Document:
    """Envoy's reference to a secret."""
    where = {"ads": {}} if "ads" in form else {"api_config_source": _source(form)}
    timeout = {"initial_fetch_timeout": "1s"}
    return {"name": name, "sds_config": {**where, **timeout, "resource_api_version": "V3"}}


def _ours(socket_path: Path) -> Document:
    address = {"pipe": {"path": str(socket_path)}}
    return _made(OURS, address, {_HTTP_OPTIONS: {"@type": _OPTIONS_TYPE, **_HTTP2}})


def _cluster(service: Service, form: str) -> Document:
    filters = [
        part
        for name, header in service.secrets.items()
        for part in (_removal(header), _injector(name, header, form))
    ]
    codec = {"@type": f"{_TYPE}.filters.http.upstream_codec.v3.UpstreamCodec"}
    filters.append({"name": "envoy.filters.http.upstream_codec", "typed_config": codec})
    options: Document = {
        "@type": _OPTIONS_TYPE,
        "explicit_http_config": {"http_protocol_options": {}},
        "http_filters": filters,
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": service.port}}
    cluster = _made(service.name, address, {_HTTP_OPTIONS: options})
    if service.transport_socket:
        cluster["transport_socket"] = service.transport_socket
        # A connection keeps the certificate that it began with.
        options["common_http_protocol_options"] = {"max_connection_duration": "1s"}
    return cluster


def _removal(header: str) -> Document:
    """The client's own, also as CGI and WSGI servers would read it."""
    removed = [{"remove": name} for name in {header, header.replace("-", "_")}]
    kind = f"{_TYPE}.filters.http.header_mutation.v3.HeaderMutation"
    mutation = {"@type": kind, "mutations": {"request_mutations": removed}}
    return {"name": "envoy.filters.http.header_mutation", "typed_config": mutation}


def _injector(name: str, header: str, form: str) -> Document:
    generic = {
        "@type": f"{_TYPE}.http.injected_credentials.generic.v3.Generic",
        "header": header,
        "credential": sds(name, form),
    }
    injector = {
        "@type": f"{_TYPE}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "generic", "typed_config": generic},
    }
    return {"name": "envoy.filters.http.credential_injector", "typed_config": injector}


_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_OPTIONS_TYPE: Final = f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions"


def _made(name: str, address: Document, options: Document) -> Document:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": options,
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _listener(port: int, services: Iterable[Service]) -> Document:
    hosts = [
        {
            "name": service.name,
            "domains": [f"{service.name}.test"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": service.name}}],
        }
        for service in services
    ]
    router = {"@type": f"{_TYPE}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        # Those from a file come later than the routes.
        "route_config": {"virtual_hosts": hosts, "validate_clusters": False},
    }
    filters = [{"name": "http_connection_manager", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": "gateway", "address": address, "filter_chains": [{"filters": filters}]}


def mutual_tls(name: str, form: str, ca: Path, server: str) -> Document:
    """Envoy's side of TLS, whose certificate is the secret ``name``; ``server`` must be there."""
    names = [{"san_type": "DNS", "matcher": {"exact": server}}]
    trust = {"trusted_ca": {"filename": str(ca)}, "match_typed_subject_alt_names": names}
    context = {"tls_certificate_sds_secret_configs": [sds(name, form)], "validation_context": trust}
    kind = f"{_TYPE}.transport_sockets.tls.v3.UpstreamTlsContext"
    config = {"@type": kind, "sni": server, "common_tls_context": context}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def metrics(admin_socket: Path) -> str:
    """What our admin endpoint tells Prometheus."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(admin_socket))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.read().decode()
