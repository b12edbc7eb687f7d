"""The listener: what Envoy makes of a request before anybody is asked about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vaultauthz.envoy_config.plan import PathRoute, Plan, Target, VirtualHost
from vaultauthz.envoy_config.rbac import PAYLOAD
from vaultauthz.envoy_config.templates import fill, join, scalar

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
          $outcome_fields
  $access_logs
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
    $routes
"""

_PATH_ROUTE: Final = """
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
    $routes
    - match: {prefix: /}
      $unnamed
      direct_response: {status: 404}
"""

RouteParts = Callable[[Target], str]


def listener(plan: Plan, manager: str) -> str:
    """The listener, with TLS where a rule needs the caller's certificate."""
    tls = fill(_TLS) if plan.reads_principals else ""
    return fill(_LISTENER, manager=manager, tls=tls)


def manager(
    plan: Plan,
    *,
    filters: str,
    named: RouteParts,
    outcome_fields: str,
    access_logs: str,
    unknown: str,
    unnamed: str = "",
    local_replies: str = "",
) -> str:
    """The connection manager.

    ``named`` says what a route tells of its target, ``outcome_fields`` what the access log says of the
    answer, ``access_logs`` is the access log that goes to vaultauthz, ``unknown`` says what comes
    of hosts that nobody knows, ``unnamed`` is what their route tells.
    """
    hosts = [host for host in plan.hosts if host.domain != "*"]
    anywhere = [route for host in plan.hosts if host.domain == "*" for route in host.routes]
    return fill(
        _MANAGER,
        filters=filters,
        local_replies=local_replies,
        path=fill(_PATH),
        outcome_fields=outcome_fields,
        access_logs=access_logs,
        hosts=join(*(_host(host, named) for host in hosts)),
        unknown=fill(_UNKNOWN, why=unknown, routes=_path_routes(anywhere, named), unnamed=unnamed),
    )


def _host(host: VirtualHost, named: RouteParts) -> str:
    why = (
        "# REPLACE the host: `routes` of the configuration leads nobody here."
        if host.example
        else ""
    )
    return fill(
        _HOST, example=why, name=scalar(host.domain), routes=_path_routes(host.routes, named)
    )


def _path_routes(routes: list[PathRoute] | tuple[PathRoute, ...], named: RouteParts) -> str:
    return join(
        *(
            fill(
                _PATH_ROUTE,
                match=_match(route.prefix),
                named=named(route.target),
                route=_route(route.target),
            )
            for route in routes
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


_JWT_FILTER: Final = """
# Verifies tokens; the rules with `claims` look at what it found. It goes before what asks for them.
- name: envoy.filters.http.jwt_authn
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
    providers:
      identity_provider:
        # REPLACE: who issues tokens, whom they must be for, and where the issuer's keys are.
        issuer: https://login.example/
        audiences: [gateway.example]
        remote_jwks:
          http_uri: {uri: "https://login.example/keys", cluster: identity_provider, timeout: 2s}
          cache_duration: 300s
        # Where the claims are found afterwards. Another provider beside this one: the same name.
        payload_in_metadata: $payload
        # The token is for the gateway and ends here.
        forward: false
        require_expiration: true
    rules:
      - match: {prefix: /}
        # A token that is there must be good. One that is missing leaves the caller without claims.
        requires:
          requires_any:
            requirements: [{provider_name: identity_provider}, {allow_missing: {}}]
"""

_JWT_CLUSTER: Final = """
# REPLACE: where the keys of the tokens' issuer are fetched, three times.
- name: identity_provider
  type: LOGICAL_DNS
  dns_lookup_family: V4_PREFERRED
  connect_timeout: 2s
  load_assignment:
    cluster_name: identity_provider
    endpoints:
      - lb_endpoints:
          - endpoint: {address: {socket_address: {address: login.example, port_value: 443}}}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: login.example
      common_tls_context:
        validation_context:
          trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}
          match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: login.example}}]
"""


def jwt_filter() -> str:
    """The jwt_authn filter: it verifies tokens, where a rule asks for claims."""
    return fill(_JWT_FILTER, payload=PAYLOAD)


def jwt_cluster() -> str:
    """Where it fetches the issuer's keys."""
    return fill(_JWT_CLUSTER)
