"""``--mode ext_authz``: the filter that asks vaultauthz about each request."""

from __future__ import annotations

from typing import Final

from vaultauthz.core.readings import OVERRIDES, folded_header
from vaultauthz.envoy_config import clusters
from vaultauthz.envoy_config.expressions import either, literal
from vaultauthz.envoy_config.plan import Plan, Target
from vaultauthz.envoy_config.templates import fill, flow, scalar

# Bytes of a body that is signed; the whole CheckRequest has to stay below gRPC's 4 MiB.
MOST_OF_A_BODY: Final = 1_048_576

_FILTER: Final = """
- name: envoy.filters.http.ext_authz
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
    transport_api_version: V3
    # Each header as the client sent it: else Envoy joins several Cookie headers by commas, which mixes
    # them up, and bytes that are not UTF-8 are lost.
    encode_raw_headers: true
    grpc_service:
      $timeout
      envoy_grpc: {cluster_name: vaultauthz}
      # Here, and not in envoy_grpc, where Envoy (1.40) reads it for xDS alone. Asking twice costs a second audit
      # line, and with `per: request` a second lease, which ends by itself.
      # (`cancelled` is what a call gets that comes over TLS to a vaultauthz in the moment of its end.)
      retry_policy:
        retry_on: "connect-failure,refused-stream,reset,unavailable,cancelled"
        num_retries: 2
        # By default Envoy waits up to a second, by when the timeout is over. And it (1.40) takes max_interval for
        # the timeout of each try.
        retry_back_off: {base_interval: 0.025s, max_interval: $each}
        $elsewhere
    # When vaultauthz cannot be reached: refuse, and say 503 (a fault), not 403 (a verdict).
    failure_mode_allow: false
    status_on_error: {code: ServiceUnavailable}
    $validate
    # vaultauthz may change the headers that `inject` and `strip` name, and no other: not where the request
    # goes (host, :path), nor what Envoy itself says in x-envoy-* and x-forwarded-*. Print this anew when a
    # header is added to the configuration; until then its requests are answered 500.
    decoder_header_mutation_rules:
      disallow_all: true
      allow_expression: {regex: $headers}
      disallow_is_error: true
    # The route was chosen before the check and stays chosen, whatever headers are set.
    clear_route_cache: false
    # The caller's URI SAN goes along as source.principal; the whole certificate is not needed.
    include_peer_certificate: false
    $headers_sent
    $claims
    $body
"""

_QUICK: Final = """
# A check reads memory and takes well under a millisecond: half a second means that it hangs.
timeout: 0.5s
"""
_QUICK_AFAR: Final = """
# A check reads memory and takes well under a millisecond. A replica that hangs is given 0.4 s, for the connection
# (connect_timeout) or for an answer (max_interval), and then another one is asked.
timeout: 1s
"""
_ELSEWHERE: Final = """
# Where there are several replicas, one that has not been asked yet. A single one is asked again.
retry_host_predicate:
  - name: envoy.retry_host_predicates.previous_hosts
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
host_selection_retry_max_attempts: 3
"""
_SLOW: Final = """
# The first request of a lease of its own (`per: caller`, `per: request`) waits for Vault, for 80 % of
# this; any other check takes well under a millisecond.
timeout: 2s
"""
_VALIDATE: Final = """
# Nothing malformed may be set.
validate_mutations: true
"""
_NO_VALIDATE: Final = """
# Off, as a credential goes into the query: Envoy (1.40) would refuse values with %, + or ~ in them, with
# 500. vaultauthz encodes them, and refuses CR, LF and NUL by itself.
validate_mutations: false
"""
_CLAIMS: Final = """
# The claims of a verified token, for `callers: [{claims: …}]`.
metadata_context_namespaces: [envoy.filters.http.jwt_authn]
"""
_ALLOWED: Final = """
# What vaultauthz reads of the client's headers. The rest, its own credentials among them, does not leave
# Envoy, and costs nothing with each check. (Host, path and method go along by themselves.)
$overrides
$aliases
allowed_headers: {patterns: [$patterns]}
"""
_OVERRIDES: Final = """
# Rules ask for the method, and a service may take another one from X-HTTP-Method-Override and its kin.
"""
_ALIASES: Final = """
# A header with underscores may be read as one that vaultauthz sets or drops.
"""
_BODY: Final = """
# An upstream has the body signed, so vaultauthz needs all of it, byte for byte; Envoy answers 413 to a
# larger one. The whole check has to stay below 4 MiB, gRPC's limit. Not in a route's check_settings:
# there Envoy (1.40) does not read pack_as_bytes.
with_request_body: {max_request_bytes: $most, allow_partial_message: false, pack_as_bytes: true}
"""

_PER_ROUTE: Final = """
# Names the upstream and the stage in vaultauthz's configuration. A client cannot set these.
typed_per_filter_config:
  envoy.filters.http.ext_authz:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
    check_settings:
      context_extensions: $named
      $body
"""
_NO_BODY: Final = """
# Nothing is signed here, so the body is not held back to be sent along.
disable_request_body_buffering: true
"""
_UNNAMED: Final = """
typed_per_filter_config:
  envoy.filters.http.ext_authz:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
    check_settings: {disable_request_body_buffering: true}
"""

LOGGED: Final = """
# What vaultauthz tells about its answer; Envoy files it under this name, whatever the filter's is.
upstream: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:upstream)%"
stage: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:stage)%"
credential_id: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:credential_id)%"
request_id: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:request_id)%"
"""

UNKNOWN: Final = """
# Any other host is asked about too, so that vaultauthz answers 403 `no_upstream` and writes it down.
"""
UNKNOWN_PASSED: Final = """
# REPLACE: `unmatched: pass` lets requests for any other host go on; give them a cluster here.
"""

UNCHECKED: Final = """
# A route that needs no credential and no verdict would be, before the others of its host:
# - match: {path: /healthz}
#   route: {cluster: …}
#   typed_per_filter_config:
#     envoy.filters.http.ext_authz:
#       "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
#       disabled: true
"""

# The audit line is written by the check; what the upstream made of the credential comes this way.
REJECTIONS_LOG: Final = """
# Tells vaultauthz of each 401: a credential that the service refuses is replaced before its time.
- name: envoy.access_loggers.http_grpc
  filter:
    status_code_filter:
      comparison: {op: EQ, value: {default_value: 401, runtime_key: vaultauthz.log_status}}
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig
    common_config:
      log_name: vaultauthz
      transport_api_version: V3
      grpc_service: {envoy_grpc: {cluster_name: vaultauthz_logs}}
      buffer_flush_interval: 0.2s
      buffer_size_bytes: 16384
"""


def http_filter(plan: Plan) -> str:
    """The ext_authz filter."""
    timeout, each = _timeouts(plan)
    return fill(
        _FILTER,
        timeout=fill(timeout),
        each=each,
        elsewhere="" if clusters.on_socket(plan.config) else fill(_ELSEWHERE),
        validate=fill(_NO_VALIDATE if plan.sets_query else _VALIDATE),
        headers=scalar(_header_regex(plan)),
        headers_sent=_headers_sent(plan),
        claims=fill(_CLAIMS) if plan.reads_claims else "",
        body=fill(_BODY, most=str(MOST_OF_A_BODY)) if plan.signs_bodies else "",
    )


def _timeouts(plan: Plan) -> tuple[str, str]:
    """For a check, and for each time that it is asked: less only where somebody else may answer at once."""
    if plan.asks_vault:
        return _SLOW, "2s"
    return (_QUICK, "0.5s") if clusters.on_socket(plan.config) else (_QUICK_AFAR, "0.4s")


def _headers_sent(plan: Plan) -> str:
    """All of them where one is to be signed: any header may be part of a signature."""
    if plan.signs:
        return ""
    names = ["x-request-id", *(["cookie"] if plan.sets_cookies else [])]
    patterns = [f"{{exact: {name}}}" for name in names]
    if plan.reads_methods:
        overrides = "|".join(either(name) for name in OVERRIDES)
        patterns.append(f"{{safe_regex: {{regex: {scalar(overrides)}}}}}")
    if plan.has_long_headers:
        patterns.append("{contains: _}")
    return fill(
        _ALLOWED,
        overrides=fill(_OVERRIDES) if plan.reads_methods else "",
        aliases=fill(_ALIASES) if plan.has_long_headers else "",
        patterns=", ".join(patterns),
    )


def _header_regex(plan: Plan) -> str:
    """The headers that vaultauthz may change; ``x[-_]key`` for a name and its aliases."""
    names = plan.headers
    aliased = {folded_header(n) for n in names if "-" in n}
    single = (literal(n) for n in names if folded_header(n) not in aliased)
    regexes = sorted([*(either(n) for n in aliased), *single])
    return "|".join(regexes) or "x-none"  # where nothing but queries is set


def per_route(plan: Plan, target: Target) -> str:
    """What a route tells vaultauthz of its upstream."""
    named = flow({"upstream": target.upstream.name, "stage": target.stage})
    needless = plan.signs_bodies and not target.signs_body
    return fill(_PER_ROUTE, named=named, body=fill(_NO_BODY) if needless else "")


def unnamed(plan: Plan) -> str:
    """The same for a route that names no upstream."""
    return fill(_UNNAMED) if plan.signs_bodies else ""
