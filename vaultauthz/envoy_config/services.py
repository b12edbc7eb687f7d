"""The services behind the gateway: a cluster for each, where `to` says it is, or with a placeholder."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

from vaultauthz.config.values import Destination
from vaultauthz.envoy_config.plan import Target
from vaultauthz.envoy_config.templates import fill, scalar

# Where Debian, Alpine and Envoy's own image keep the public authorities.
_PUBLIC_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"

_CLUSTER: Final = """
$title
- name: $cluster
  type: $type
  $family
  connect_timeout: 5s
  $metadata
  $protocol
  $health
  load_assignment:
    cluster_name: $cluster
    endpoints:
      - lb_endpoints:
          - endpoint: {address: {socket_address: {address: $host, port_value: $port}}}
  $tls
"""

_FAMILY: Final = """
# By default Envoy would take an IPv6 address alone where the name has one.
dns_lookup_family: V4_PREFERRED
"""

_TLS: Final = """
$note
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    $sni
    common_tls_context:
      $certificate
      validation_context:
        $why
        trusted_ca: {filename: $ca}
        match_typed_subject_alt_names: [{san_type: $san, matcher: {exact: $certified}}]
"""
_ALONE: Final = "# A credential goes to whom it is for alone: whose certificate is another's gets no request (503)."
_EXAMPLE: Final = """\
# A credential should cross a network only inside TLS, and only to whom it is for. (On loopback
# both can go.)"""
_PUBLIC: Final = "# Where Debian, Alpine and Envoy's own image keep the public authorities."

_HEALTH: Final = """
# While no address of it answers 200, requests are answered 503 at once: none is tried in despair.
common_lb_config: {healthy_panic_threshold: {value: 0}}
health_checks:
  - timeout: 2s
    interval: 5s
    no_traffic_interval: 5s
    unhealthy_threshold: 2
    healthy_threshold: 1
    http_health_check: {path: $path, host: $host}
"""

_PROTOCOLS: Final = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    $versions
    $filters
"""
_EITHER: Final = """
# HTTP/2 where the service takes it (ALPN), else HTTP/1.1.
auto_config: {http_protocol_options: {}, http2_protocol_options: {}}
"""
_HTTP1: Final = """
# HTTP/1.1; for HTTP/2 http2_protocol_options: {}.
explicit_http_config: {http_protocol_options: {}}
"""


def protocols(target: Target, filters: str = "") -> str:
    """What the service speaks, and the cluster's own filters; "" where Envoy's defaults do."""
    either = target.to is not None and target.to.has_tls
    if not filters and not either:
        return ""
    return fill(_PROTOCOLS, versions=fill(_EITHER if either else _HTTP1), filters=filters)


def upstream_cluster(
    target: Target, *, metadata: str = "", protocol: str = "", certificate: str = ""
) -> str:
    """The service behind ``target``."""
    name, to = f"{target.upstream.name} in stage {target.stage}", target.to
    if to is None:
        host, port = example_address(target)
        tls = tls_towards(host, note=_EXAMPLE, certificate=certificate, why=_PUBLIC)
        title, kind, health = f"# REPLACE: the address of {name}, three times.", "LOGICAL_DNS", ""
    else:
        (host, port), title, kind = (to.host, to.port), f"# {name}", _discovery(to)
        health = _health(to) if to.health else ""
        tls = _tls(to, certificate) if to.has_tls else ""
    return fill(
        _CLUSTER,
        title=title,
        cluster=scalar(target.cluster),
        type=kind,
        family="" if kind == "STATIC" else fill(_FAMILY),
        metadata=metadata,
        protocol=protocol,
        health=health,
        host=scalar(host),
        port=str(port),
        tls=tls,
    )


def _discovery(to: Destination) -> str:
    """With a health check each address that DNS has is looked at; else one is as good as another."""
    if is_ip(to.host):
        return "STATIC"
    return "STRICT_DNS" if to.health else "LOGICAL_DNS"


def _health(to: Destination) -> str:
    return fill(_HEALTH, path=scalar(to.health), host=scalar(to.authority))


def _tls(to: Destination, certificate: str) -> str:
    why = "" if to.ca_cert else _PUBLIC
    return tls_towards(to.certified_name, to.ca_cert, note=_ALONE, certificate=certificate, why=why)


def tls_towards(
    name: str, ca: Path | None = None, *, note: str = "", certificate: str = "", why: str = ""
) -> str:
    """TLS to whose certificate has ``name``, by the authorities in ``ca``, else the public ones."""
    return fill(
        _TLS,
        note=note,
        sni="" if is_ip(name) else f"sni: {scalar(name)}",
        certificate=certificate,
        why=why,
        ca=scalar(str(ca or _PUBLIC_AUTHORITIES)),
        san="IP_ADDRESS" if is_ip(name) else "DNS",
        certified=scalar(str(ipaddress.ip_address(name)) if is_ip(name) else name),
    )


def rewritten_host(target: Target) -> str:
    """The route's line about the host that the service is asked for."""
    signature = target.signature
    if signature and not signature.host:
        return (
            "# The host that the client asked for is signed, so it goes on as it is. Where the service\n"
            "# wants another: `host` of sigv4 or hmac in the configuration, and host_rewrite_literal here."
        )
    if signature:
        return f"# The host that is signed.\nhost_rewrite_literal: {scalar(signature.host)}"
    if target.to is not None:
        rewritten = f"host_rewrite_literal: {scalar(target.to.authority)}"
        return "" if target.to.preserve_host else rewritten
    return (
        "# REPLACE: the service's own name; leave it out where it knows the host that clients ask for.\n"
        f"host_rewrite_literal: {scalar(example_address(target)[0])}"
    )


def example_address(target: Target) -> tuple[str, int]:
    """The service's host and port: those that its signature names, else made up."""
    signature = target.signature
    if signature and signature.host:
        host, colon, port = signature.host.rpartition(":")
        if colon and port.isdigit() and not host.endswith(":"):
            return host.strip("[]"), int(port)
        return signature.host.strip("[]"), 443
    label = target.upstream.name.lower().replace("_", "-").replace(".", "-").strip("-")
    return f"{label}.upstream.example", 443


def is_ip(host: str) -> bool:
    """Whether it is an IP address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
