"""The login token: its policies, its life against that of its leases, its kind."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from shlex import quote
from typing import Final

from vaultauthz.config.values import PathSecret
from vaultauthz.doctor.evidence import DEFAULT, ROOT, ExaminedStage
from vaultauthz.doctor.finding import Finding, error, span, warning
from vaultauthz.policy import Need, hcl
from vaultauthz.policy.needs import LOOKUP, REVOKE
from vaultauthz.policy.stage import policy_name
from vaultauthz.vault.probe import TokenLookup

_HOUR: Final = 3600.0
_BRIEF: Final = 300.0  # a login that lasts no longer makes the leases rotate all the time


def _setting(stage: ExaminedStage, *settings: str) -> tuple[str, tuple[str, ...]]:
    """How to give this stage's tokens other settings: a sentence, and a line."""
    role = stage.auth.role_path(stage.role)
    if not role:
        return "have whatever writes the token file ask for another token", ()
    return "change it at the role", (stage.command("write", f"{quote(role)} {' '.join(settings)}"),)


def longest_lease(stage: ExaminedStage) -> float:
    """Seconds: of the leases that were seen, and those that the configuration asks for."""
    seen = [fetch.ttl for fetch in stage.leases]
    sources = (place.source for place in stage.places)
    asked = [s.ttl for s in sources if isinstance(s, PathSecret) and s.ttl is not None]
    return max([*seen, *asked], default=0.0)


def shut_out(stage: ExaminedStage) -> Iterator[Finding]:
    """The login works, and its token does not."""
    if stage.shut_out:
        mend, lines = _setting(stage, "token_bound_cidrs=")
        role = stage.auth.role_path(stage.role)
        yield error(
            f"Vault gives a token and does not take it from us: {stage.lookup}",
            "most likely token_bound_cidrs of the role name other addresses than ours (or something "
            "revokes the token at once); every request is answered 503",
            "compare them with the address that Vault sees us come from, which may be a proxy's or a "
            f"gateway's (NAT); {mend}, the second line lets every address in",
            *([stage.command("read", quote(role))] if role else []),
            *lines,
        )


def not_looked_up(stage: ExaminedStage) -> Iterator[Finding]:
    """The token works and its facts were not told."""
    named = any(access.need.path == LOOKUP and access.missing for access in stage.accesses)
    if stage.lookup and not named and not stage.shut_out:
        yield error(
            f"the token may not look itself up: {stage.lookup}",
            "its TTL cannot be judged, and a 403 whose text does not tell is not looked into",
            "add this to its policy",
            *hcl.block(
                Need(LOOKUP, ("read",), (), "tells a dead token from a policy")
            ).splitlines(),
        )


def root(stage: ExaminedStage) -> Iterator[Finding]:
    """Omnipotence in a gateway."""
    if ROOT in stage.policies:
        yield error(
            "the token has the root policy",
            "whoever takes over this process can read and change everything in Vault",
            "give the stage a token with its own policy, which this prints",
            f"vaultauthz policy --stage {stage.name}",
        )


def only_default(stage: ExaminedStage) -> Iterator[Finding]:
    """The role names no policy of its own."""
    if stage.token and stage.places and set(stage.policies) <= {DEFAULT}:
        name = policy_name(stage.name)
        mend, lines = _setting(stage, f"token_policies={name}")
        held = "only the policy default" if stage.policies else "no policy"
        yield error(
            f"the token has {held}",
            "it may read none of the stage's secrets",
            f"write its policy, then {mend}",
            f"vaultauthz policy --stage {stage.name} | {stage.command('policy write', f'{name} -')}",
            *lines,
        )


def few_uses(stage: ExaminedStage) -> Iterator[Finding]:
    """A token for a number of requests."""
    if stage.uses:
        mend, lines = _setting(stage, "token_num_uses=0")
        yield error(
            f"the token is good for a number of requests only ({stage.uses} left)",
            "each fetch and renewal is one; then it dies, and its leases with it",
            mend,
            *lines,
        )


def endless(stage: ExaminedStage) -> Iterator[Finding]:
    """A token that nothing ends, unless the configuration says that it may."""
    if stage.auth.takes_endless:
        return
    if stage.token and stage.token.ttl == inf and ROOT not in stage.policies:
        mend, lines = _setting(stage, "token_ttl=1h", "token_max_ttl=24h")
        yield warning(
            "the token never ends",
            "whoever gets hold of it has it for good, and its leases outlive a gateway that "
            "was killed",
            mend,
            *lines,
        )


def batch(stage: ExaminedStage) -> Iterator[Finding]:
    """A batch token."""
    if stage.token and stage.token.type == "batch":
        mend, lines = _setting(stage, "token_type=service")
        yield warning(
            f"the token is a batch token of {span(stage.token.creation_ttl)}",
            "it can be neither renewed nor revoked: all leases are replaced each time it nears "
            "its end, and after a stop it and they live on until then",
            mend,
            *lines,
        )


def _ours(stage: ExaminedStage) -> TokenLookup | None:
    """The token, if it is a service token with an end, of a login of ours."""
    token = stage.token
    if token is None or not stage.own_token or token.ttl == inf or token.type == "batch":
        return None
    return token


def shorter_than_leases(stage: ExaminedStage) -> Iterator[Finding]:
    """A lease ends with its token, whatever its own TTL says."""
    lease, token = longest_lease(stage), stage.token
    if token is None or token.ttl == inf:
        return
    life = token.creation_ttl  # what is left of a file's token is a matter of the moment
    if life >= min(lease, _HOUR):
        return
    if token.renewable:
        why = f"when Vault is away for {span(life)}, the token ends, and all leases with it"
    else:
        why = f"the token ends after {span(life)}, and all leases with it"
    mend, lines = _setting(stage, f"token_ttl={span(min(lease, _HOUR))}")
    yield warning(
        f"the token lives for {span(life)}, the longest lease for {span(lease)}",
        why,
        f"let the token live as long as its leases, up to an hour: {mend}",
        *lines,
    )


def cannot_be_renewed(stage: ExaminedStage) -> Iterator[Finding]:
    """A short login that ends for good."""
    token = _ours(stage)
    if token is None or token.renewable or token.creation_ttl >= _BRIEF:
        return
    mend, lines = _setting(stage, "token_ttl=1h", "token_explicit_max_ttl=0")
    yield warning(
        f"the token lives for {span(token.creation_ttl)} and cannot be renewed",
        "before each end a new login is made and every lease of the stage is replaced",
        mend,
        *lines,
    )


def explicit_max(stage: ExaminedStage) -> Iterator[Finding]:
    """A hard end that comes soon."""
    token, lease = _ours(stage), longest_lease(stage)
    if token and 0 < token.explicit_max_ttl < max(lease, _BRIEF):
        mend, lines = _setting(stage, "token_explicit_max_ttl=24h")
        yield warning(
            f"the token ends after {span(token.explicit_max_ttl)}, renewed or not "
            "(explicit_max_ttl)",
            "each time a new login is made and every lease of the stage is replaced",
            mend,
            *lines,
        )


def longer_than_an_hour(stage: ExaminedStage) -> Iterator[Finding]:
    """What a gateway that was killed leaves behind."""
    token = _ours(stage)
    if token and token.creation_ttl > max(_HOUR, longest_lease(stage)):
        mend, lines = _setting(stage, "token_ttl=1h")
        yield warning(
            f"the token lives for {span(token.creation_ttl)} without a renewal",
            "when vaultauthz is killed without warning, nothing revokes it: the token and its "
            "leases live that long",
            f"an hour is enough, as vaultauthz renews it: {mend}",
            *lines,
        )


def left_behind(stage: ExaminedStage) -> Iterator[Finding]:
    """The token of this examination is still there."""
    named = any(access.need.path == REVOKE and access.missing for access in stage.accesses)
    if (
        stage.left
        and not named
        and not stage.shut_out
        and not (stage.token and stage.token.type == "batch")
    ):
        accessor = stage.token.accessor if stage.token else ""
        yield warning(
            f"doctor's own token could not be revoked: {stage.left}",
            "it lives on until its TTL is over",
            "revoke it by its accessor",
            stage.command("token revoke", f"-accessor {accessor or 'ACCESSOR'}"),
        )
