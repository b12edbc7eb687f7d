"""The listener: what Envoy makes of a request before anybody is asked about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from vaultauthz.config.values import CallerTokens, ServerTls
from vaultauthz.envoy_config.plan import PathRoute, Plan, Target, VirtualHost
from vaultauthz.envoy_config.rbac import PAYLOAD
from vaultauthz.envoy_config.services import is_ip, rewritten_host, tls_towards
from vaultauthz.envoy_config.templates import fill, flow, join, scalar

ROUTER: Final = """
- name: envoy.filters.http.router
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"""

_LISTENER: Final = """
- name: gateway
  $where
  address: {socket_address: {address: $host, port_value: $port}}
  per_connection_buffer_limit_bytes: 32768
  filter_chains:
    - filters:
        - name: envoy.filters.network.http_connection_manager
          typed_config:
            $manager
      $tls
"""

_WHERE: Final = "# REPLACE: where clients come in; 0.0.0.0 for all of the machine's addresses."
_TLS: Final = """
$why
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
    $optional
    common_tls_context:
      alpn_protocols: [h2, http/1.1]
      $replace
      tls_certificates:
        - certificate_chain: {filename: $cert}
          private_key: {filename: $key}
      $authority
"""
_FOR_PRINCIPALS: Final = (
    "# The rules ask who the caller is (`principal`): its client certificate says so."
)
_OPTIONAL: Final = """
# Optional: a caller without one has no principal, and is let through only where no principal is
# asked for. One that the authority below has not signed ends the handshake.
require_client_certificate: false
"""
_THEIRS: Final = (
    "# REPLACE: the gateway's certificate, and the authority of the clients' certificates."
)
_THEIR_AUTHORITY: Final = "# REPLACE: the authority of the clients' certificates."
_AUTHORITY: Final = """
$replace
validation_context:
  trusted_ca: {filename: $ca}
"""
_CLIENTS_CA: Final = Path("/etc/envoy/tls/clients-ca.pem")
_EXAMPLE_TLS: Final = ServerTls(
    Path("/etc/envoy/tls/gateway.pem"), Path("/etc/envoy/tls/gateway.key"), _CLIENTS_CA
)

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

_LEFT_OUT: Final = """
# Its upstream is left out of this file, and the request is for no other one.
- match: $match
  direct_response: {status: 503}
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
    """The listener, with TLS where `gateway` has it, or a rule needs the caller's certificate."""
    side = plan.config.gateway
    host, _, port = (side.address if side else "127.0.0.1:10000").rpartition(":")
    return fill(
        _LISTENER,
        manager=manager,
        where="" if side else _WHERE,
        host=scalar(host.strip("[]")),
        port=port,
        tls=_listener_tls(plan),
    )


def _listener_tls(plan: Plan) -> str:
    side = plan.config.gateway
    known = side.tls if side else None
    # A rule must not be blind: by a `deny` of a principal that nobody has, everybody would be let in.
    tls = known or (_EXAMPLE_TLS if plan.reads_principals else None)
    if tls is None:
        return ""
    authority = tls.client_ca or (_CLIENTS_CA if plan.reads_principals else None)
    return fill(
        _TLS,
        why=_FOR_PRINCIPALS if plan.reads_principals else "",
        optional=fill(_OPTIONAL) if authority else "",
        replace="" if known else _THEIRS,
        cert=scalar(str(tls.cert)),
        key=scalar(str(tls.key)),
        authority=fill(
            _AUTHORITY,
            replace="" if tls.client_ca else _THEIR_AUTHORITY,
            ca=scalar(str(authority)),
        )
        if authority
        else "",
    )


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
    return join(*(_path_route(_match(route.prefix), route.target, named) for route in routes))


def _path_route(match: str, target: Target | None, named: RouteParts) -> str:
    if target is None:
        return fill(_LEFT_OUT, match=match)
    return fill(_PATH_ROUTE, match=match, named=named(target), route=_route(target))


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
    return fill(_ROUTE, cluster=scalar(target.cluster), rewrite=rewritten_host(target))


_JWT_FILTER: Final = """
# Verifies tokens; the rules with `claims` look at what it found. It goes before what asks for them.
- name: envoy.filters.http.jwt_authn
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
    providers:
      identity_provider:
        $replace
        issuer: $issuer
        $audiences
        remote_jwks:
          http_uri: {uri: $jwks, cluster: identity_provider, timeout: 2s}
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
_ISSUER: Final = (
    "# REPLACE: who issues tokens, whom they must be for, and where the issuer's keys are."
)

_JWT_CLUSTER: Final = """
$why
- name: identity_provider
  type: $type
  $family
  connect_timeout: 2s
  load_assignment:
    cluster_name: identity_provider
    endpoints:
      - lb_endpoints:
          - endpoint: {address: {socket_address: {address: $host, port_value: $port}}}
  $tls
"""
_KEYS: Final = "# REPLACE: where the keys of the tokens' issuer are fetched, three times."
_EXAMPLE_ISSUER: Final = CallerTokens(
    "https://login.example/", "https://login.example/keys", ("gateway.example",)
)


def _tokens(plan: Plan) -> tuple[CallerTokens, bool]:
    """Who issues the callers' tokens; whether somebody has said so."""
    side = plan.config.gateway
    return (side.jwt, True) if side and side.jwt else (_EXAMPLE_ISSUER, False)


def jwt_filter(plan: Plan) -> str:
    """The jwt_authn filter: it verifies tokens, where a rule asks for claims."""
    tokens, known = _tokens(plan)
    return fill(
        _JWT_FILTER,
        replace="" if known else _ISSUER,
        issuer=scalar(tokens.issuer),
        audiences=f"audiences: {flow(tokens.audiences)}" if tokens.audiences else "",
        jwks=scalar(tokens.jwks),
        payload=PAYLOAD,
    )


def jwt_cluster(plan: Plan) -> str:
    """Where it fetches the issuer's keys."""
    tokens, known = _tokens(plan)
    url = urlsplit(tokens.jwks)
    host, has_tls = url.hostname or "", url.scheme == "https"
    return fill(
        _JWT_CLUSTER,
        why="# The keys of the tokens' issuer." if known else _KEYS,
        type="STATIC" if is_ip(host) else "LOGICAL_DNS",
        family="" if is_ip(host) else "dns_lookup_family: V4_PREFERRED",
        host=scalar(host),
        port=str(url.port or (443 if has_tls else 80)),
        tls=tls_towards(host, tokens.ca_cert) if has_tls else "",
    )
