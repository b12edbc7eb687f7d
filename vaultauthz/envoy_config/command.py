"""The command: which upstreams are in, what is printed, and what is said about the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from vaultauthz.config.values import Config
from vaultauthz.envoy_config import bootstrap, sds
from vaultauthz.envoy_config.plan import Plan


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options."""

    mode: str = "ext_authz"
    snippet: bool = False


def run(config: Config, file: Path, asked: Asked, out: TextIO, err: TextIO) -> int:
    """Print; the exit status: 1 when an upstream will not get its credential by what is printed."""
    plan = Plan.of(config)
    if asked.mode == "ext_authz":
        out.write(bootstrap.ext_authz(file.name, plan, snippet=asked.snippet))
        return _without_certificate(plan, err)
    reasons = {upstream.name: sds.obstacle(upstream) for upstream in plan.upstreams}
    left_out = {name: why for name, why in reasons.items() if why}
    err.writelines(f"vaultauthz: {name} is left out: it {why}\n" for name, why in left_out.items())
    kept = plan.only(target for target in plan.targets if target.upstream.name not in left_out)
    if not kept.targets:
        err.write("vaultauthz: no upstream is left for SDS; use --mode ext_authz\n")
        return 1
    out.write(bootstrap.secrets(file.name, kept, left_out, snippet=asked.snippet))
    return 1 if left_out else 0


def _without_certificate(plan: Plan, err: TextIO) -> int:
    """Client certificates come by SDS in this mode, too."""
    names = [u.name for u in plan.upstreams if sds.TLS in sds.slots(u) and not sds.hands_out(u)]
    err.writelines(
        f"vaultauthz: {name} gets no client certificate: it has callers; say callers_enforced_by: "
        "envoy (a check asks about them all the same)\n"
        for name in names
    )
    return 1 if names else 0
