"""``callers`` and ``deny`` as rules of Envoy's RBAC filter, which decide as ``Callers`` does.

A rule becomes a policy of the same name: its methods and path are permissions, its claims
principals, its principal a condition. What Envoy cannot decide the same way is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vaultauthz.core.callers import Callers, Rule
from vaultauthz.envoy_config import cel
from vaultauthz.envoy_config.claims import has_claim
from vaultauthz.envoy_config.readings import AMBIGUOUS, decoded_under, literal, plain

Policies = dict[str, dict[str, Any]]
_ANY: dict[str, Any] = {"any": True}


class UnsayableError(Exception):
    """Envoy cannot enforce the rule as vaultauthz does; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Policies by name; ``allow`` is None where everybody may who is not denied."""

    deny: Policies
    allow: Policies | None


def filters(callers: Callers) -> Filters:
    """The policies of the two filters, of which the denying one comes first.

    Raises:
        UnsayableError: Envoy cannot say the same.
    """
    deny = _ambiguous() if callers.reads_path else {}
    deny |= _policies("deny", callers.deny, denies=True)
    if callers.allow is None:
        return Filters(deny, None)
    return Filters(deny, _policies("callers", callers.allow, denies=False))


def _ambiguous() -> Policies:
    """Where the path decides, one that servers read in more than one way is denied."""
    return {
        name: {"permissions": [_path({"safe_regex": {"regex": regex}})], "principals": [_ANY]}
        for name, regex in AMBIGUOUS.items()
    }


def _policies(key: str, rules: tuple[Rule, ...], *, denies: bool) -> Policies:
    return {
        f"{key}[{number}]": _policy(f"{key}[{number}]", rule, denies=denies)
        for number, rule in enumerate(rules)
        if rule.consumer is None
        and rule.group is None  # Kong's; in Envoy such a rule matches nobody
    }


def _policy(place: str, rule: Rule, *, denies: bool) -> dict[str, Any]:
    permissions: list[dict[str, Any]] = []
    if rule.methods is not None:
        permissions.append(_methods(rule.methods))
    if rule.path_prefix is not None:
        permissions.append(_prefix(place, rule.path_prefix, denies=denies))
    policy: dict[str, Any] = {
        "permissions": [_all("and_rules", "rules", permissions)],
        "principals": [_all("and_ids", "ids", _claims(place, rule, denies=denies))],
    }
    if rule.principal is not None:
        condition = cel.caller_is(rule.principal)
        if condition is None:
            raise UnsayableError(f"{place}: its principal is too long for one with several *")
        policy["condition"] = condition
    return policy


def _all(key: str, inner: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    if len(parts) == 1:
        return parts[0]
    return {key: {inner: parts}} if parts else _ANY


def _methods(methods: frozenset[str]) -> dict[str, Any]:
    regex = "|".join(literal(method) for method in sorted(methods))
    return {"header": {"name": ":method", "string_match": {"safe_regex": {"regex": regex}}}}


def _prefix(place: str, prefix: str, *, denies: bool) -> dict[str, Any]:
    if not plain(prefix):
        raise UnsayableError(
            f"{place}: its path_prefix holds a %, ;, // or a character that is not ASCII"
        )
    if denies:  # also what a server may take for a path below it
        return _path({"safe_regex": {"regex": decoded_under(prefix)}})
    if prefix.endswith("/"):
        return _path({"prefix": prefix})
    below = [_path({"exact": prefix}), _path({"prefix": f"{prefix}/"})]
    return {"or_rules": {"rules": below}}


def _path(matcher: dict[str, Any]) -> dict[str, Any]:
    return {"url_path": {"path": matcher}}


def _claims(place: str, rule: Rule, *, denies: bool) -> list[dict[str, Any]]:
    found = [has_claim(claim, denies=denies) for claim in rule.claims]
    if None in found:
        raise UnsayableError(f"{place}: a claim's name has an empty part")
    return [claim for claim in found if claim is not None]
