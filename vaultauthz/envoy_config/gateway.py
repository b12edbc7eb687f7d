"""The listener: what Envoy makes of a request before anybody is asked about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vaultauthz.envoy_config.plan import Host, Plan, Target, Way
from vaultauthz.envoy_config.text import fill, join, scalar

ROUTER: Final = """
- name: envoy.filters.http.router
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"""

_LISTENER: Final = """
- name: gateway
  # REPLACE: where clients come in; 0.0.0.0 for all of the machine's addresses.
  address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
  per_connection_buffer_limit_bytes: 32768
  filter_chains:
    - filters:
        - name: envoy.filters.network.http_connection_manager
          typed_config:
            $manager
      $tls
"""

_TLS: Final = """
# The rules ask who the caller is (`principal`): its client certificate says so.
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
    # Optional: a caller without one has no principal, and is let through only where no principal is
    # asked for. One that the authority below has not signed ends the handshake.
    require_client_certificate: false
    common_tls_context:
      alpn_protocols: [h2, http/1.1]
      # REPLACE: the gateway's certificate, and the authority of the clients' certificates.
      tls_certificates:
        - certificate_chain: {filename: /etc/envoy/tls/gateway.pem}
          private_key: {filename: /etc/envoy/tls/gateway.key}
      validation_context:
        trusted_ca: {filename: /etc/envoy/tls/clients-ca.pem}
"""

_MANAGER: Final = """
"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
stat_prefix: gateway
# The client's address is the connection's, not what X-Forwarded-For claims. A request id that an
# outsider chose is replaced.
use_remote_address: true
# A client's own X-Forwarded-Client-Cert is dropped; the identity is the connection's certificate.
forward_client_cert_details: SANITIZE
# The path that is decided on must be the path that the service sees.
normalize_path: true
merge_slashes: true
path_with_escaped_slashes_action: REJECT_REQUEST
# `pay.example.com:10000` and `pay.example.com.` find the same host as `pay.example.com`.
strip_any_host_port: true
strip_trailing_host_dot: true
request_headers_timeout: 10s
stream_idle_timeout: 300s
common_http_protocol_options:
  idle_timeout: 3600s
  # Many services read X_Api_Key as X-Api-Key: with it a client could slip its own key past us.
  headers_with_underscores_action: REJECT_REQUEST
$local_replies
access_log:
  - name: envoy.access_loggers.stdout
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
      log_format:
        json_format:
          time: "%START_TIME%"
          method: "%REQ(:METHOD)%"
          host: "%REQ(:AUTHORITY)%"
          $path
          status: "%RESPONSE_CODE%"
          details: "%RESPONSE_CODE_DETAILS%"
          flags: "%RESPONSE_FLAGS%"
          duration_ms: "%DURATION%"
          client: "%DOWNSTREAM_REMOTE_ADDRESS%"
          principal: "%DOWNSTREAM_PEER_URI_SAN%"
          upstream_host: "%UPSTREAM_HOST%"
          $told
  $answers
http_filters:
  $filters
route_config:
  virtual_hosts:
    $hosts
    $unknown
"""

_PATH: Final = """
# NQ: without the query. A credential injected as a query parameter is part of :path by now,
# so %REQ(:PATH)%, and Envoy's default format with it, would write it to the log.
# No header that is injected may stand here either.
path: "%PATH(NQ)%"
"""

_HOST: Final = """
$example
- name: $name
  domains: [$name]
  routes:
    $ways
"""

_WAY: Final = """
- match: $match
  $named
  route:
    $route
"""

_UNKNOWN: Final = """
$why
- name: unknown
  domains: ["*"]
  routes:
    $ways
    - match: {prefix: /}
      $unnamed
      direct_response: {status: 404}
"""

WayParts = Callable[[Target], str]


def listener(plan: Plan, manager: str) -> str:
    """The listener, with TLS where a rule needs the caller's certificate."""
    tls = fill(_TLS) if plan.reads_principals else ""
    return fill(_LISTENER, manager=manager, tls=tls)


def manager(
    plan: Plan,
    *,
    filters: str,
    named: WayParts,
    told: str,
    answers: str,
    unknown: str,
    unnamed: str = "",
    local_replies: str = "",
) -> str:
    """The connection manager.

    ``named`` says what a route tells of its target, ``told`` what the access log says of the
    answer, ``answers`` is the access log that goes to vaultauthz, ``unknown`` says what comes
    of hosts that nobody knows, ``unnamed`` is what their route tells.
    """
    hosts = [host for host in plan.hosts if host.domain != "*"]
    anywhere = [way for host in plan.hosts if host.domain == "*" for way in host.ways]
    return fill(
        _MANAGER,
        filters=filters,
        local_replies=local_replies,
        path=fill(_PATH),
        told=told,
        answers=answers,
        hosts=join(*(_host(host, named) for host in hosts)),
        unknown=fill(_UNKNOWN, why=unknown, ways=_ways(anywhere, named), unnamed=unnamed),
    )


def _host(host: Host, named: WayParts) -> str:
    why = (
        "# REPLACE the host: `routes` of the configuration leads nobody here."
        if host.example
        else ""
    )
    return fill(_HOST, example=why, name=scalar(host.domain), ways=_ways(host.ways, named))


def _ways(ways: list[Way] | tuple[Way, ...], named: WayParts) -> str:
    return join(
        *(
            fill(
                _WAY,
                match=_match(way.prefix),
                named=named(way.target),
                route=_route(way.target),
            )
            for way in ways
        )
    )


def _match(prefix: str) -> str:
    """``/v1`` is no prefix of ``/v10``, as in `routes`."""
    how = "prefix" if prefix.endswith("/") else "path_separated_prefix"
    return f"{{{how}: {scalar(prefix)}}}"


_ROUTE: Final = """
cluster: $cluster
# Envoy's default of 15 s would cut off what takes longer; the stream_idle_timeout holds as well.
timeout: 300s
$rewrite
"""


def _route(target: Target) -> str:
    return fill(_ROUTE, cluster=scalar(target.cluster), rewrite=_rewrite(target))


def _rewrite(target: Target) -> str:
    signature = target.signature
    if signature and not signature.host:
        return (
            "# The host that the client asked for is signed, so it goes on as it is. Where the service\n"
            "# wants another: `host` of sigv4 or hmac in the configuration, and host_rewrite_literal here."
        )
    if signature:
        return f"# The host that is signed.\nhost_rewrite_literal: {scalar(signature.host)}"
    return (
        "# REPLACE: the service's own name; leave it out where it knows the host that clients ask for.\n"
        f"host_rewrite_literal: {example_address(target)[0]}"
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
