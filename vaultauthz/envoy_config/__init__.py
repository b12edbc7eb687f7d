"""``vaultauthz envoy``: the Envoy configuration that fits a configuration of ours.

Text, not objects: people read it, so each setting stands beside its reason. ``plan`` says
what there is to configure, the other modules have a part of the file each, ``bootstrap``
puts them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from vaultauthz.config.sds_slots import TLS, kept_back, slots
from vaultauthz.config.values import Config
from vaultauthz.envoy_config import bootstrap, clusters, sds
from vaultauthz.envoy_config.plan import Plan

_CLIENT_CA: Final = "gateway.tls.client_ca"
_ELSEWHERE: Final = "a cluster for other hosts, which unmatched: pass lets go on"


@dataclass(frozen=True, slots=True)
class EnvoyOptions:
    """The command's options."""

    mode: str = "ext_authz"
    snippet: bool = False


def run(config: Config, file: Path, options: EnvoyOptions, out: TextIO, err: TextIO) -> int:
    """Print; the exit status.

    It is 1 when an upstream will not get its credential by what is printed, or a rule asks for what
    nobody has said how to know.
    """
    plan = Plan.of(config)
    reached = _reached(plan, err)
    status = 1 if len(reached.targets) < len(plan.targets) else 0
    plan = reached
    if options.mode == "ext_authz":
        status = _marked(plan, options, err) or status
        out.write(bootstrap.ext_authz(file.name, plan, snippet=options.snippet))
        return _without_certificate(plan, err) or status
    reasons = {upstream.name: sds.obstacle(upstream) for upstream in plan.upstreams}
    found = {name: obstacle for name, obstacle in reasons.items() if obstacle}
    err.writelines(
        f"vaultauthz: {name} is left out: upstreams.{name}.{obstacle.key}: it {obstacle.why}; "
        "--mode ext_authz has it\n"
        for name, obstacle in found.items()
    )
    left_out = {name: obstacle.why for name, obstacle in found.items()}
    kept = plan.only(target for target in plan.targets if target.upstream.name not in left_out)
    if not kept.targets:
        err.write("vaultauthz: no upstream is left for SDS; use --mode ext_authz\n")
        return 1
    status = _marked(kept, options, err) or status
    out.write(bootstrap.secrets(file.name, kept, left_out, snippet=options.snippet))
    return 1 if left_out else status


def _reached(plan: Plan, err: TextIO) -> Plan:
    """Without what no route leads to, where the gateway is to be finished: no host is made up for it."""
    if plan.config.gateway is None:
        return plan
    lost = plan.unreached
    err.writelines(
        f"vaultauthz: {target.upstream.name} is left out in stage {target.stage}: no route leads to it; "
        "add one to routes\n"
        for target in lost
    )
    return plan.only(target for target in plan.targets if target not in lost)


def _marked(plan: Plan, options: EnvoyOptions, err: TextIO) -> int:
    """Tell of what is still to be filled in; 1 where a rule does not hold before that."""
    keys = list(_unsaid(plan, options))
    err.writelines(f"vaultauthz: marked REPLACE: {key} says it\n" for key in keys)
    listens = options.mode == "ext_authz" and not options.snippet
    if plan.config.gateway and plan.config.unmatched == "pass" and listens:
        err.write(f"vaultauthz: marked REPLACE: {_ELSEWHERE}\n")
    return 1 if _CLIENT_CA in keys else 0


def _unsaid(plan: Plan, options: EnvoyOptions) -> Iterator[str]:
    """The keys that would say what is still marked REPLACE, where there is a section `gateway`."""
    config, side = plan.config, plan.config.gateway
    if side is None:
        return
    for name in dict.fromkeys(t.upstream.name for t in plan.targets if t.to is None):
        yield f"upstreams.{name}.to"
    if plan.reads_principals and not (side.tls and side.tls.client_ca) and not options.snippet:
        yield _CLIENT_CA
    if not side.node and (options.mode == "sds" or any(map(sds.certificate, plan.targets))):
        yield "gateway.node"
    if plan.reads_claims and side.jwt is None:
        yield "gateway.jwt"
    if clusters.unknown_address(config):
        yield "gateway.vaultauthz.address"
    tls = config.listen.grpc_tls
    if tls and side.vaultauthz.ca_cert is None:
        yield "gateway.vaultauthz.ca_cert"
    if tls and tls.client_ca and side.vaultauthz.client_cert is None:
        yield "gateway.vaultauthz.client_cert"


def _without_certificate(plan: Plan, err: TextIO) -> int:
    """Client certificates come by SDS in this mode, too."""
    found = [(u.name, kept_back(u)) for u in plan.upstreams if TLS in slots(u)]
    warnings = [
        f"vaultauthz: {name} gets no client certificate: upstreams.{name}.{obstacle.key}: it "
        f"{obstacle.why} (a check asks about callers all the same)\n"
        for name, obstacle in found
        if obstacle
    ]
    err.writelines(warnings)
    return 1 if warnings else 0
