"""A real Envoy that runs what Envoy Gateway makes of docs/envoy-gateway; tests/envoy_gateway.py is the translation."""

from __future__ import annotations

import contextlib
import copy
import http.client
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.contract.certificates import Pair
from tests.envoy_gateway import (
    FEATURES,
    TRANSLATION,
    Document,
    filters_of,
    in_force,
    manifests,
    ordered,
    patched,
)
from tests.integration.gateway_bed import TIMEOUT, TRACE, Reply
from vaultauthz.demo.parts import Envoy, Upstream, echo, free_port

OURS: Final = manifests("vaultauthz.yaml")
GATEWAY: Final[Document] = OURS["SecurityPolicy"]["spec"]
ROUTE: Final[Document] = manifests("route.yaml")["SecurityPolicy"]["spec"]
REPLACING: Final[Document] = {key: value for key, value in ROUTE.items() if key != "mergeType"}
SHIPPED: Final[list[dict[str, str]]] = OURS["EnvoyProxy"]["spec"]["filterOrder"]
_PARTS: Final[Document] = TRANSLATION["filters"]


@dataclass(frozen=True)
class Tls:
    """What Envoy shows to vaultauthz (None: nothing), and who signed what it is shown."""

    ca: Path
    pair: Pair | None


class TranslatedBed:
    """Envoy with a route for each of ``hosts``, whose SecurityPolicy is given (None: it has none of its own).

    The filters stand as ``order``, an EnvoyProxy's `filterOrder`, puts them. What tokens are checked with is
    ``jwks``, and who is asked listens at ``asked``: a unix socket, or a port of loopback with ``tls``.
    """

    def __init__(
        self,
        folder: Path,
        asked: Path | int,
        jwks: Path,
        hosts: Mapping[str, Document | None],
        order: Sequence[Mapping[str, str]],
        *,
        tls: Tls | None = None,
    ) -> None:
        self.upstream = Upstream(echo())
        self.port = free_port()
        self._numbers = itertools.count(1)
        self._parts = contextlib.ExitStack()
        policies = {host: in_force(own, GATEWAY) for host, own in hosts.items()}
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network"
            ".http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "https",
            "route_config": {"virtual_hosts": [_host(*pair) for pair in policies.items()]},
            "http_filters": _chain(policies, order, jwks),
        }
        served = {"address": "127.0.0.1", "port_value": self.upstream.port}
        name = "envoy.filters.network.http_connection_manager"
        listener = {
            "name": "default/eg/https",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
            "filter_chains": [{"filters": [{"name": name, "typed_config": manager}]}],
        }
        clusters = [_asked(asked, tls), _cluster("service", {"socket_address": served})]
        resources = {"listeners": [listener], "clusters": clusters}
        self.envoy = Envoy({"static_resources": resources}, folder)

    def get(self, host: str, authorization: str = "") -> Reply:
        """A GET, and what came of it."""
        trace = str(next(self._numbers))
        headers = {"Host": host, TRACE: trace}
        if authorization:
            headers["Authorization"] = authorization
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            connection.request("GET", "/", headers=headers)
            response = connection.getresponse()
            text = response.read().decode()
        answered = {name.lower(): value for name, value in response.getheaders()}
        for seen in list(self.upstream.seen):
            if seen.all(TRACE) == [trace]:
                return Reply(response.status, answered, text, "service", seen)
        return Reply(response.status, answered, text)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            parts.enter_context(self.upstream)
            parts.enter_context(self.envoy)
            self._parts = parts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()


def _chain(
    policies: Mapping[str, Document], order: Sequence[Mapping[str, str]], jwks: Path
) -> list[Document]:
    """The connection manager's filters: one for each that any route needs, and the Lua of an extension policy."""
    parts = {part["filter"]["name"]: copy.deepcopy(part["filter"]) for part in _PARTS.values()}
    names = {name for policy in policies.values() for name in filters_of(policy)}
    chain = [parts[n] for n in ordered({*names, _PARTS["lua"]["filter"]["name"]}, order)]
    assert patched(chain, OURS["EnvoyPatchPolicy"]["spec"]["jsonPatches"])
    for one in chain:
        config: dict[str, Any] = one["typed_config"]
        if "grpc_service" in config:
            config["grpc_service"]["timeout"] = "3s"  # for a machine that is busy
        for provider in config.get("providers", {}).values():
            provider["local_jwks"] = {"filename": str(jwks)}
    return chain


def _asked(place: Path | int, tls: Tls | None) -> Document:
    """The cluster of vaultauthz, as it is translated; its secrets are files here."""
    made: Document = copy.deepcopy(TRANSLATION["cluster"])
    (matched,) = made["transport_socket_matches"]
    if isinstance(place, Path):
        address: Document = {"pipe": {"path": str(place)}}
    else:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": place}}
    made |= _cluster(made["name"], address)
    if tls is None:
        del made["transport_socket_matches"]
        return made
    (endpoint,) = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": matched["match"]}}
    context = matched["transport_socket"]["typed_config"]["common_tls_context"]
    context["validation_context"]["trusted_ca"]["filename"] = str(tls.ca)
    if tls.pair is None:
        del context["tls_certificates"]
        return made
    (shown,) = context["tls_certificates"]
    shown["certificate_chain"]["filename"] = str(tls.pair.cert)
    shown["private_key"]["filename"] = str(tls.pair.key)
    return made


def _host(host: str, policy: Document) -> Document:
    enabled = {FEATURES[f]: _PARTS[f]["route"] for f in FEATURES if f in policy}
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "service"},
        "typed_per_filter_config": enabled,
    }
    return {"name": host, "domains": [host], "routes": [route]}


def _cluster(name: str, address: Document) -> Document:
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
