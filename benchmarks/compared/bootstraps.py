"""One Envoy bootstrap for each way to put a credential on a request; pure, but for `printed`.

All are what `vaultauthz envoy` prints, with the same listener, routes, upstream and knobs. They differ by the
filter and by what that filter asks. Left out of all: TLS, which costs each of them the same, and the access log on
standard output.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compared.messages import HEADER
from compared.nginx import Address
from vaultauthz.demo.parts import PartError

_EXT_AUTHZ = "envoy.filters.http.ext_authz"
_TO_US = ("envoy.access_loggers.http_grpc", "envoy.access_loggers.file")  # access logs
_OURS = ("vaultauthz", "vaultauthz_logs")

Document = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """The port of 127.0.0.1 where Envoy listens, and where the upstream and who is asked are."""

    listener: int
    upstream: Address
    asked: Address


@dataclass(frozen=True)
class Printed:
    """What `vaultauthz envoy` prints in either mode; ``sds_file`` for a server that follows a file."""

    ext_authz: Document
    sds: Document
    sds_file: Document


Bootstrap = Callable[[Printed, Places], Document]


def printed(config: Path, following: Path) -> Printed:
    """Have it printed for both configurations. Raises PartError."""
    return Printed(_print(config, "ext_authz"), _print(config, "sds"), _print(following, "sds"))


def _print(config: Path, mode: str) -> Document:
    argv = [sys.executable, "-m", "vaultauthz", "envoy", "-c", str(config), "--mode", mode]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    # Status 1: an upstream had to be left out, as one of ours has to in SDS mode.
    if done.returncode not in {0, 1}:
        raise PartError(f"vaultauthz envoy --mode {mode} failed:\n{done.stderr}")
    document: Document = yaml.safe_load(done.stdout)
    return document


def plain(files: Printed, places: Places) -> Document:
    """No filter; nobody is asked."""
    document = _placed(files.ext_authz, places)
    manager = _manager(document)
    del manager["access_log"]
    manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] != _EXT_AUTHZ]
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("typed_per_filter_config", None)
    resources = document["static_resources"]
    resources["clusters"] = [c for c in resources["clusters"] if c["name"] not in _OURS]
    return document


def ext_authz(files: Printed, places: Places) -> Document:
    """As it is printed: asks over gRPC."""
    return _placed(files.ext_authz, places)


def native(files: Printed, places: Places) -> Document:
    """Asks over HTTP/1.1; the answer's X-Api-Key goes upstream."""
    document = _placed(files.ext_authz, places)
    filters = _manager(document)["http_filters"]
    (asking,) = [f["typed_config"] for f in filters if f["name"] == _EXT_AUTHZ]
    timeout = asking.pop("grpc_service")["timeout"]
    del asking["encode_raw_headers"]  # is about gRPC's message
    asking["http_service"] = {
        "server_uri": {"uri": "http://asked", "cluster": "vaultauthz", "timeout": timeout},
        "authorization_response": {
            "allowed_upstream_headers": {"patterns": [{"exact": HEADER, "ignore_case": True}]}
        },
    }
    (asked,) = [c for c in document["static_resources"]["clusters"] if c["name"] == "vaultauthz"]
    # HTTP/1.1, and nobody there who knows gRPC's health checks.
    del asked["typed_extension_protocol_options"], asked["health_checks"]
    return document


def sds(files: Printed, places: Places) -> Document:
    """Envoy's own credential injector, with the secret by SDS: nobody is asked on a request's way."""
    document = sds_als(files, places)
    del _manager(document)["access_log"]
    return document


def sds_als(files: Printed, places: Places) -> Document:
    """As it is printed: Envoy also reports each request to us, which makes its audit line."""
    return _placed(files.sds, places)


def sds_file(files: Printed, places: Places) -> Document:
    """As it is printed where `audit.access_log` is set: Envoy writes each request to a file."""
    return _placed(files.sds_file, places)


def _placed(shipped: Document, places: Places) -> Document:
    document = copy.deepcopy(shipped)
    document.setdefault("node", {"id": "bench", "cluster": "bench"})
    listener = document["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = places.listener
    listener["filter_chains"][0].pop("transport_socket", None)
    manager = _manager(document)
    manager["access_log"] = [log for log in manager["access_log"] if log["name"] in _TO_US]
    for cluster in document["static_resources"]["clusters"]:
        if cluster["name"] in _OURS:
            _move(cluster, places.asked)
        else:
            _move(cluster, places.upstream)
            cluster["type"] = "STATIC"
            for key in ("dns_lookup_family", "transport_socket"):
                cluster.pop(key, None)
    return document


def _manager(document: Document) -> Document:
    chain = document["static_resources"]["listeners"][0]["filter_chains"][0]
    manager: Document = chain["filters"][0]["typed_config"]
    return manager


def _move(cluster: Document, to: Address) -> None:
    tcp = {"socket_address": {"address": "127.0.0.1", "port_value": to}}
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"] = tcp if isinstance(to, int) else {"pipe": {"path": str(to)}}
