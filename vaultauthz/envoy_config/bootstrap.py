"""The whole files: a bootstrap that Envoy runs, or the parts that go into one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from vaultauthz.envoy_config import access_logs, check, clusters, gateway, sds, services
from vaultauthz.envoy_config.plan import Plan, Target
from vaultauthz.envoy_config.templates import (
    comment,
    fill,
    join,
    printable,
    scalar,
    without_repeats,
)

_BOOTSTRAP: Final = """
$head

admin:
  # It can stop Envoy: keep it on loopback.
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}

# A limit on connections keeps Envoy from running out of file descriptors.
overload_manager:
  resource_monitors:
    - name: envoy.resource_monitors.global_downstream_max_connections
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
        max_active_downstream_connections: 10000

static_resources:
  listeners:
    $listener

  clusters:
    $clusters
"""  # noqa: E501 - a type's name

_NODE: Final = """
$which
node: {id: $id, cluster: $cluster}
"""

_OWN_ID: Final = """
# SDS wants both. REPLACE the id: a different one for each Envoy, as vaultauthz keeps account by it of which
# Envoy has which credential.
"""
_ITS_ID: Final = """
# SDS wants both. vaultauthz keeps account by the id of which Envoy has which credential: `gateway.node` of
# its configuration, a different one for each Envoy.
"""

_RUNTIME: Final = """
# Envoy takes no regular expression that it compiles to more than 100 instructions; a long one is below.
layered_runtime:
  layers: [{name: vaultauthz, static_layer: {re2.max_program_size.error_level: 30000}}]
"""
_REGEX: Final = re.compile(r'regex: ("(?:[^"\\\\]|\\\\.)*"|[^\s}]+)')
_LONG: Final = 50  # characters that surely stay below the limit

_CHECK_SNIPPET: Final = """
$head

# Into `http_filters` of the connection manager, after what authenticates callers.
http_filters:
  $filters

# Into `access_log` of the connection manager.
access_log:
  $access_logs

# Into each route (or virtual host) that leads to an upstream. The connection manager should have
# normalize_path, merge_slashes, path_with_escaped_slashes_action: REJECT_REQUEST,
# headers_with_underscores_action: REJECT_REQUEST, forward_client_cert_details: SANITIZE and an access log
# without queries, as in the whole file, which is printed without --snippet and says why.
routes:
  $routes

# Into `static_resources.clusters`.
clusters:
  $clusters

$runtime
"""

_SDS_SNIPPET: Final = """
$head

$node

# Into the connection manager, beside normalize_path, merge_slashes, path_with_escaped_slashes_action:
# REJECT_REQUEST, headers_with_underscores_action: REJECT_REQUEST and forward_client_cert_details: SANITIZE,
# which the rules count on.
$local_replies
access_log:
  $access_logs
$identity

# Into `static_resources.clusters`; the filters and metadata of each upstream's go into the cluster
# that you have. Routes to them need nothing but the cluster's name.
clusters:
  $clusters

$runtime
"""

_IDENTITY: Final = """
http_filters:
  $filters
"""

_TO_REPLACE: Final = (
    "# What is yours to change is marked REPLACE. `envoy --mode validate -c FILE` checks it."
)
_FINISHED: Final = "# Nothing in it is to be filled in by hand: print it again after each change."
_WHY_OURS: Final = "# vaultauthz: the `listen.grpc` of its configuration."
_WHY_LOGS: Final = "# vaultauthz again, over a connection of its own: a log that has to wait must not hold up the rest."


def ext_authz(config_name: str, plan: Plan, *, snippet: bool) -> str:
    """What ``--mode ext_authz`` prints."""
    filters = join(
        gateway.jwt_filter(plan) if plan.reads_claims else "",
        check.http_filter(plan),
        fill(gateway.ROUTER) if not snippet else "",
    )
    rejections_log = fill(check.REJECTIONS_LOG)
    certified = [target for target in plan.targets if sds.certificate(target)]
    known = [target for target in plan.targets if target.to or sds.certificate(target)]
    parts = _clusters(
        plan,
        health=True,
        upstreams=known if snippet else plan.targets,
        protocol=services.protocols,
    )
    node = _node(plan) if certified else ""
    if snippet:
        return without_repeats(
            fill(
                _CHECK_SNIPPET,
                head=join(_head(config_name, "ext_authz", snippet=True), node, between="\n\n"),
                filters=filters,
                access_logs=rejections_log,
                routes=join(*(_route_example(plan, target) for target in plan.targets)),
                clusters=parts,
                runtime=_runtime(filters),
            )
        )
    passed = plan.config.unmatched == "pass"
    manager = gateway.manager(
        plan,
        filters=filters,
        named=partial(check.per_route, plan),
        unnamed=check.unnamed(plan),
        outcome_fields=fill(check.LOGGED),
        access_logs=rejections_log,
        unknown=join(
            fill(check.UNKNOWN_PASSED if passed else check.UNKNOWN), fill(check.UNCHECKED)
        ),
    )
    return _bootstrap(plan, manager, parts, _head(config_name, "ext_authz"), node)


def secrets(config_name: str, plan: Plan, left_out: Mapping[str, str], *, snippet: bool) -> str:
    """What ``--mode sds`` prints; ``left_out`` says why, for each upstream that is not in it."""
    head = join(_head(config_name, "sds", snippet=snippet), _left_out(left_out), between="\n#\n")
    parts = _clusters(
        plan,
        health=False,
        upstreams=plan.targets,
        metadata=sds.metadata,
        protocol=sds.protocol,
    )
    tokens = gateway.jwt_filter(plan) if plan.reads_claims else ""
    logs = access_logs.access_logs(plan, snippet=snippet)
    if snippet:
        return without_repeats(
            fill(
                _SDS_SNIPPET,
                head=head,
                node=_node(plan),
                local_replies=sds.local_replies(),
                access_logs=logs,
                identity=fill(_IDENTITY, filters=tokens) if tokens else "",
                clusters=parts,
                runtime=_runtime(parts),
            )
        )
    manager = gateway.manager(
        plan,
        filters=join(tokens, fill(gateway.ROUTER)),
        named=sds.metadata,
        outcome_fields=fill(sds.LOGGED),
        access_logs=logs,
        unknown=fill(sds.UNKNOWN),
        local_replies=sds.local_replies(),
    )
    return _bootstrap(plan, manager, parts, head, _node(plan))


def _bootstrap(plan: Plan, manager: str, clusters_text: str, head: str, node: str = "") -> str:
    listener = gateway.listener(plan, manager)
    unfinished = "REPLACE" in join(listener, clusters_text, node)
    todo = _TO_REPLACE if unfinished else _FINISHED
    return without_repeats(
        fill(
            _BOOTSTRAP,
            head=join(f"{head}\n{todo}", node, _runtime(manager + clusters_text), between="\n\n"),
            listener=listener,
            clusters=clusters_text,
        )
    )


def _node(plan: Plan) -> str:
    cluster, own_id = access_logs.node(plan)
    which = fill(_ITS_ID if plan.has_node else _OWN_ID)
    return fill(_NODE, which=which, id=scalar(own_id), cluster=cluster)


def _runtime(text: str) -> str:
    longest = max((len(found) for found in _REGEX.findall(text)), default=0)
    return fill(_RUNTIME) if longest > _LONG else ""


def _nothing(_target: Target) -> str:
    return ""


def _clusters(
    plan: Plan,
    *,
    health: bool,
    upstreams: Iterable[Target],
    metadata: Callable[[Target], str] = _nothing,
    protocol: Callable[[Target], str] = _nothing,
) -> str:
    config = plan.config
    return join(
        clusters.vaultauthz_cluster(config, "vaultauthz", _WHY_OURS, health=health),
        clusters.vaultauthz_cluster(config, "vaultauthz_logs", _WHY_LOGS, health=False),
        gateway.jwt_cluster(plan) if plan.reads_claims else "",
        *(
            services.upstream_cluster(
                target,
                metadata=metadata(target),
                protocol=protocol(target),
                certificate=sds.certificate(target),
            )
            for target in upstreams
        ),
        between="\n\n",
    )


def _route_example(plan: Plan, target: Target) -> str:
    return fill(
        "- match: {prefix: /}\n  route: {cluster: $cluster}\n  $named",
        cluster=scalar(target.cluster)
        if target.to
        else f"REPLACE-{target.cluster.replace('/', '-')}",
        named=check.per_route(plan, target),
    )


def _head(config_name: str, mode: str, *, snippet: bool = False) -> str:
    options = f"--mode {mode}" + (" --snippet" if snippet else "")
    lines = (
        f"# Printed by `vaultauthz envoy -c {printable(config_name)} {options}`.",
        "# No credential stands here, and none appears in Envoy's /config_dump.",
    )
    return "\n".join(lines)


def _left_out(left_out: Mapping[str, str]) -> str:
    if not left_out:
        return ""
    lines = [comment(f"- {name} {why}.") for name, why in left_out.items()]
    return "\n".join(["# LEFT OUT; --mode ext_authz has them:", *lines])
