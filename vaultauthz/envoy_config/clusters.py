"""The clusters of vaultauthz itself."""

from __future__ import annotations

import ipaddress
from typing import Final

from vaultauthz.config.values import Config, GatewaySide, ServerTls, WayToUs
from vaultauthz.envoy_config.services import is_ip
from vaultauthz.envoy_config.templates import comment, fill, flow, scalar

_UNIX: Final = "unix://"
_WILDCARDS: Final = frozenset(("0.0.0.0", "[::]", "::"))  # noqa: S104 - told apart, not bound
_PLACEHOLDER: Final = "vaultauthz.example"

_HTTP2: Final = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    # gRPC is HTTP/2. No connection_keepalive: a gRPC server takes frequent pings for abuse and hangs
    # up; $dead
    explicit_http_config: {http2_protocol_options: {}}
"""

_ON_SOCKET: Final = (
    "on a unix socket a dead peer shows at once, and a hanging one by a call's timeout."
)
_ON_TCP: Final = "TCP's own keepalive, below, finds a dead peer."

_OURS: Final = """
$why
- name: $name
  $note
  type: $type
  connect_timeout: $connect_timeout
  $http2
  $keepalive
  $health
  $replicas
  load_assignment:
    cluster_name: $name
    endpoints:
      - lb_endpoints:
          - endpoint: {address: $address}
  $tls
"""

_HEALTH: Final = """
# SERVING means that every upstream has had its credential, and that vaultauthz is not about to stop. A host
# that says so no more is asked all the same while there is no better one (panic routing): then the
# client gets vaultauthz's own answer, which says why.
health_checks:
  - timeout: 1s
    interval: 2s
    # The default is 60 s until the first request, which would hide a late start.
    no_traffic_interval: 2s
    unhealthy_threshold: 2
    healthy_threshold: 1
    grpc_health_check: {}
"""

_REPLICAS: Final = """
# Several replicas are so many endpoints, or one name that DNS has several addresses for. Those that are
# healthy are asked, all of them when none is. (By default all are, once fewer than half are healthy.)
common_lb_config: {healthy_panic_threshold: {value: 1}}
# By default three requests at a time may be retried: with a replica gone, many are.
circuit_breakers: {thresholds: [{max_retries: 1024}]}
"""

_KEEPALIVE: Final = """
upstream_connection_options:
  tcp_keepalive: {keepalive_time: 30, keepalive_interval: 5, keepalive_probes: 3}
"""

_TLS: Final = """
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    $sni
    common_tls_context:
      # vaultauthz hangs up on a client that does not name HTTP/2. Requests do so anyway; the health check
      # does only by this.
      alpn_protocols: [h2]
      $own
      validation_context:
        $authority
        trusted_ca: {filename: $ca}
        # … and nobody else's certificate of that authority.
        match_typed_subject_alt_names: [{san_type: $san, matcher: {exact: $host}}]
"""

_CLIENT_CERTIFICATE: Final = """
$whose
# Envoy reads these files, and trusted_ca, when it starts and never again. For files that are
# replaced while it runs see "Certificates of Envoy's that are replaced" in docs/envoy.md.
tls_certificates:
  - certificate_chain: {filename: $cert}
    private_key: {filename: $key}
"""

_WHOEVER: Final = """
# REPLACE: a client certificate that listen.grpc_tls.client_ca signed: whoever has one is given
# credentials, unless client_names says who may have them.
"""
_AUTHORITY: Final = (
    "# REPLACE: the authority that signed vaultauthz's certificate (listen.grpc_tls.cert)."
)
_FOLDER: Final = "/etc/envoy/vaultauthz"
_NAMED: Final = "REPLACE: a client certificate that listen.grpc_tls.client_ca signed, with one of client_names in it: "


def vaultauthz_cluster(config: Config, name: str, why: str, *, health: bool) -> str:
    """A cluster of that name for vaultauthz; where there may be replicas, ``health`` is looked at anyway."""
    endpoint = _GrpcEndpoint(grpc_address(config))
    return fill(
        _OURS,
        name=name,
        why=why,
        note=endpoint.note,
        type=endpoint.type,
        # Less than half of a check's timeout, so that another replica can be asked after it.
        connect_timeout="0.25s" if endpoint.is_local else "0.4s",
        http2=fill(_HTTP2, dead=_ON_SOCKET if endpoint.is_socket else _ON_TCP),
        keepalive="" if endpoint.is_socket else fill(_KEEPALIVE),
        health="" if endpoint.is_socket and not health else fill(_HEALTH),
        replicas="" if endpoint.is_socket else fill(_REPLICAS),
        address=endpoint.address,
        tls=_tls(config.listen.grpc_tls, way_to_us(config), endpoint)
        if config.listen.grpc_tls
        else "",
    )


def way_to_us(config: Config) -> WayToUs:
    """What `gateway` says of how Envoy reaches vaultauthz."""
    return (config.gateway or GatewaySide("")).vaultauthz


def grpc_address(config: Config) -> str:
    """Where Envoy finds vaultauthz: ``unix:///path`` or ``host:port``."""
    return way_to_us(config).address or config.listen.grpc


def on_socket(config: Config) -> bool:
    """Whether Envoy reaches vaultauthz on a unix socket, of which there is one."""
    return _GrpcEndpoint(grpc_address(config)).is_socket


def unknown_address(config: Config) -> bool:
    """Whether nobody has said where vaultauthz is: it listens on each address of its machine."""
    return _GrpcEndpoint(grpc_address(config)).is_wildcard


class _GrpcEndpoint:
    """Where Envoy reaches ``listen.grpc``."""

    def __init__(self, grpc: str) -> None:
        self.is_socket = grpc.startswith(_UNIX)
        host, _, port = grpc.rpartition(":")
        self.is_wildcard = host in _WILDCARDS
        self.host = _PLACEHOLDER if self.is_wildcard else host.strip("[]")
        self.is_ip = is_ip(self.host)
        self.is_local = self.is_socket or self.host == "localhost" or _is_loopback(self.host)
        self.type = "STATIC" if self.is_socket or self.is_ip else "STRICT_DNS"
        if self.is_socket:
            self.address = flow({"pipe": {"path": grpc.removeprefix(_UNIX)}})
        else:
            target = {"address": self.host, "port_value": int(port)}
            self.address = flow({"socket_address": target})

    @property
    def note(self) -> str:
        """What the reader has to do about the address."""
        if self.is_socket:
            return "# Envoy's user must be able to write to the socket."
        if self.is_wildcard:
            return f"# REPLACE {_PLACEHOLDER}: vaultauthz listens on every address of its machine."
        return ""


def _is_loopback(host: str) -> bool:
    return is_ip(host) and ipaddress.ip_address(host).is_loopback


def _tls(tls: ServerTls, way: WayToUs, endpoint: _GrpcEndpoint) -> str:
    own = fill(
        _CLIENT_CERTIFICATE,
        whose="" if way.client_cert else _whose(tls),
        cert=scalar(str(way.client_cert or f"{_FOLDER}/client.pem")),
        key=scalar(str(way.client_key or f"{_FOLDER}/client.key")),
    )
    return fill(
        _TLS,
        sni="" if endpoint.is_ip else f"sni: {scalar(endpoint.host)}",
        own=own if tls.client_ca else "",
        authority="" if way.ca_cert else _AUTHORITY,
        ca=scalar(str(way.ca_cert or f"{_FOLDER}/ca.pem")),
        san="IP_ADDRESS" if endpoint.is_ip else "DNS",
        host=scalar(endpoint.host),
    )


def _whose(tls: ServerTls) -> str:
    if not tls.client_names:
        return fill(_WHOEVER)
    return comment(f"{_NAMED}{', '.join(tls.client_names)}.")
