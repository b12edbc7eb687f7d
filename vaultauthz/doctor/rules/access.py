"""What the token may do, against what vaultauthz asks of Vault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vaultauthz.config.values import KvSecret
from vaultauthz.doctor.evidence import DEFAULT, ROOT, ExaminedStage, PathRights
from vaultauthz.doctor.finding import ERROR, WARNING, Finding, some, warning
from vaultauthz.policy import Need, hcl
from vaultauthz.policy.hcl import PolicyError
from vaultauthz.policy.needs import CAPABILITIES

# What no credential's path needs, and what a gateway must not do to a KV secret.
_TOO_MUCH: Final = ("sudo", "delete")
_TOO_MUCH_ON_KV: Final = ("create", "update", "patch")
_ASK: Final = Need(CAPABILITIES, ("update",), (), "lets vaultauthz doctor ask", required=False)


def block_of(need: Need) -> tuple[str, ...]:
    """The policy's lines, as `vaultauthz policy` writes them."""
    try:
        return tuple(hcl.block(need).splitlines())
    except PolicyError as exc:
        return (f"# {exc}",)


def not_told(stage: ExaminedStage) -> Iterator[Finding]:
    """The token may not ask what it may do."""
    if stage.asked:
        yield warning(
            f"the token may not ask what it may do: {stage.asked}",
            "its policy cannot be judged; --fetch at least tries the secrets themselves",
            "add this to its policy",
            *block_of(_ASK),
        )


def missing(stage: ExaminedStage) -> Iterator[Finding]:
    """A line that the policy lacks, word by word."""
    if set(stage.policies) <= {DEFAULT} and stage.places and stage.token:
        return  # told at once, by token.only_default
    for access in stage.accesses:
        if access.missing:
            yield _lacking(stage, access)


def _lacking(stage: ExaminedStage, access: PathRights) -> Finding:
    need = access.need
    names = ", ".join(access.missing)
    policies = [name for name in stage.policies if name != DEFAULT]
    whose = f"to a policy of the token ({some(policies)})" if policies else "to its policy"
    return Finding(
        ERROR if need.required else WARNING,
        f"the policy does not allow {names} on {need.path}",
        f"it {need.why}{_perhaps_nowhere(stage, need)}",
        f"add this {whose}",
        block_of(need),
        upstreams=need.upstreams,
    )


def _perhaps_nowhere(stage: ExaminedStage, need: Need) -> str:
    """Vault tells nobody without rights whether there is an engine."""
    places = (place for place in stage.places if place.path == need.path)
    if any(place.trouble for place in places):
        mount = need.path.partition("/")[0]
        return f"; is {mount}/ the right mount? Vault does not say before it allows something there"
    return ""


def more_than_needed(stage: ExaminedStage) -> Iterator[Finding]:
    """Rights that only an attacker would use."""
    extra = {
        access.need.path: names
        for access in stage.accesses
        if ROOT not in access.found and access.need.upstreams
        for names in [_extra(stage, access)]
        if names
    }
    if extra:
        shown = [f"{path} ({', '.join(names)})" for path, names in extra.items()]
        yield warning(
            f"the policy allows more than is needed: {some(shown)}",
            "whoever takes over this process can change or delete what it only has to read",
            "narrow the policy to what this prints",
            f"vaultauthz policy --stage {stage.name}",
        )


def _extra(stage: ExaminedStage, access: PathRights) -> tuple[str, ...]:
    is_kv = any(
        place.path == access.need.path
        and (isinstance(place.source, KvSecret) or (place.mount and place.mount.kv_version))
        for place in stage.places
    )
    unwanted = _TOO_MUCH + (_TOO_MUCH_ON_KV if is_kv else ())
    return tuple(
        name for name in access.found if name in unwanted and name not in access.need.capabilities
    )
