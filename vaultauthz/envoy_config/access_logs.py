"""``--mode sds``: what Envoy tells vaultauthz of requests, which it asks nobody about.

All of it over gRPC; or into a file, which costs Envoy less and lasts while vaultauthz is away,
and over gRPC the 401s alone, which must not wait for the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vaultauthz.config.values import GatewaySide
from vaultauthz.envoy.access_logs import fields
from vaultauthz.envoy_config.plan import Plan
from vaultauthz.envoy_config.rbac import JWT_FILTER, PAYLOAD
from vaultauthz.envoy_config.templates import fill, join, scalar


def node(plan: Plan) -> tuple[str, str]:
    """Cluster and id of the printed `node`."""
    return "gateway", (plan.config.gateway or GatewaySide("")).node or "gateway-1"


_GRPC: Final = """
$why
- name: envoy.access_loggers.http_grpc
  $filter
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig
    common_config:
      log_name: vaultauthz
      transport_api_version: V3
      grpc_service: {envoy_grpc: {cluster_name: vaultauthz_logs}}
      buffer_flush_interval: 0.2s
      buffer_size_bytes: 65536
      custom_tags:
        - {tag: $upstream, metadata: {kind: {cluster: {}}, metadata_key: {key: vaultauthz, path: [{key: upstream}]}}}
        - {tag: $stage, metadata: {kind: {cluster: {}}, metadata_key: {key: vaultauthz, path: [{key: stage}]}}}
        # For requests that a filter refused before a cluster was chosen.
        - {tag: $route_upstream, metadata: {kind: {route: {}}, metadata_key: {key: vaultauthz, path: [{key: upstream}]}}}
        - {tag: $route_stage, metadata: {kind: {route: {}}, metadata_key: {key: vaultauthz, path: [{key: stage}]}}}
"""  # noqa: E501 - YAML in one line

_ALL: Final = """
# Every request, for vaultauthz's audit log: it is asked about none of them. The names are metadata,
# which no client can set. While vaultauthz is away Envoy drops them; `audit.access_log` is the way that
# misses none. No grpc_stream_retry_policy: with one, Envoy (1.40) sometimes stops reporting for good when
# vaultauthz was away.
"""
_ONLY_401S: Final = """
# Tells vaultauthz of each 401, without waiting for the file: a credential that the service refuses is
# replaced before its time.
"""
_IS_401: Final = """
filter:
  status_code_filter:
    comparison: {op: EQ, value: {default_value: 401, runtime_key: vaultauthz.log_status}}
"""

_FILE: Final = """
# Every request, for vaultauthz's audit log, which follows this file (`audit.access_log`): it is asked about
# none of them. The names are metadata, which no client can set. Neither a query nor a header that is
# injected may be added here. Envoy writes every 10 s, or 64 KB; start it with --file-flush-interval-msec 200.
- name: envoy.access_loggers.file
  filter: {log_type_filter: {types: [DownstreamEnd]}}
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    # Envoy must be allowed to write there, and vaultauthz to read.
    path: $path
    log_format:
      omit_empty_values: true
      json_format:
        $whose
        node: $node
        $finished
        # For requests that a filter refused before a cluster was chosen.
        $refused
        # Of a request that vaultauthz was asked about after all: its check wrote the line.
        $checked
        $caller
        $sub
"""

_WHOSE: Final = "# REPLACE: this Envoy's CLUSTER/ID, as in `node`."

# The keys of a request that reached a cluster, in the order in which they are printed.
_FINISHED: Final = (
    *(fields.TIME, fields.SENT_US, fields.ATTEMPTS, fields.STATUS, fields.DETAILS),
    *(fields.REQUEST_ID, fields.METHOD, fields.HOST, fields.PATH),
    *(fields.UPSTREAM, fields.STAGE),
)

_CALLER: Final = """
# The caller as in a check: the certificate's first URI, else its first DNS name, else its subject.
$caller
"""


def access_logs(plan: Plan, *, snippet: bool) -> str:
    """The access logs for vaultauthz."""
    path = plan.config.audit.access_log
    if path is None:
        return _grpc(why=fill(_ALL))
    only_401s = _grpc(why=fill(_ONLY_401S), only=fill(_IS_401))
    return join(_file(plan, path, certified=snippet or plan.reads_principals), only_401s)


def _grpc(*, why: str, only: str = "") -> str:
    stage, upstream = fields.CLUSTER_TAGS
    route_stage, route_upstream = fields.ROUTE_TAGS
    return fill(
        _GRPC,
        why=why,
        filter=only,
        stage=stage,
        upstream=upstream,
        route_stage=route_stage,
        route_upstream=route_upstream,
    )


def _file(plan: Plan, path: Path, *, certified: bool) -> str:
    by_certificate = _keys(fields.CALLER)
    # Asked of a connection without TLS it would cost Envoy something, and tell nothing.
    caller = by_certificate if certified else f"# {by_certificate}"
    sub = fields.claim_operator(JWT_FILTER, PAYLOAD)
    return fill(
        _FILE,
        path=scalar(str(path)),
        whose="# This Envoy's CLUSTER/ID." if plan.has_node else _WHOSE,
        node=scalar("/".join(node(plan))),
        finished=_keys(*_FINISHED),
        refused=_keys(fields.ROUTE_UPSTREAM, fields.ROUTE_STAGE),
        checked=_keys(fields.CHECKED),
        caller=fill(_CALLER, caller=caller),
        sub=f'{fields.SUB}: "{sub}"' if plan.reads_claims else "",
    )


def _keys(*keys: str) -> str:
    return join(*(f'{key}: "{fields.OPERATORS[key]}"' for key in keys))
