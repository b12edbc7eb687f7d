"""``callers`` and ``deny`` as rules of Envoy's RBAC filter, which decide as ``Callers`` does.

A rule becomes a policy of the same name: its methods and path are permissions, its claims
principals, its principal a condition. What Envoy cannot decide the same way is refused.
Header names have no underscores here: the printed listener refuses such requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vaultauthz.core.callers import Callers, Rule
from vaultauthz.core.methods import IN_QUERY, OVERRIDES, TOKEN
from vaultauthz.envoy_config import cel
from vaultauthz.envoy_config.claims import has_claim
from vaultauthz.envoy_config.readings import AMBIGUOUS, decoded_under, literal, plain

Policies = dict[str, dict[str, Any]]
_ANY: dict[str, Any] = {"any": True}


class UnsayableError(Exception):
    """Envoy cannot enforce the rule as vaultauthz does; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Policies by name; ``allow`` is None where everybody may who is not denied.

    ``again`` are those by which a request must be allowed as well, by the header that would
    take the place of its method.
    """

    deny: Policies
    allow: Policies | None
    again: dict[str, Policies] = field(default_factory=dict)


def filters(callers: Callers) -> Filters:
    """The policies of the two filters, of which the denying one comes first.

    Raises:
        UnsayableError: Envoy cannot say the same.
    """
    deny = _ambiguous() if callers.reads_path else {}
    deny |= _other_methods() if callers.reads_method else {}
    deny |= _policies("deny", callers.deny, denies=True)
    if callers.allow is None:
        return Filters(deny, None)
    allow = _policies("callers", callers.allow, denies=False)
    if all(rule.methods is None for rule in callers.allow):
        return Filters(deny, allow)
    return Filters(deny, allow, {name: _again(name, callers.allow) for name in OVERRIDES})


def _ambiguous() -> Policies:
    """Where the path decides, one that servers read in more than one way is denied."""
    found = {name: _path({"safe_regex": {"regex": regex}}) for name, regex in AMBIGUOUS.items()}
    found["a fragment"] = _header(":path", "[^?]*#.*")  # which the path above has not
    # CONNECT: what goes through its tunnel has paths that nobody sees.
    found["a tunnel"] = {"not_rule": {"header": {"name": ":path", "present_match": True}}}
    return {name: {"permissions": [one], "principals": [_ANY]} for name, one in found.items()}


def _other_methods() -> Policies:
    """Where the method decides, one that nobody can tell is denied."""
    found = {
        "a method that is none": {"permissions": [_not(":method", TOKEN)]},
        "a method in the query": {"permissions": [_header(":path", IN_QUERY)]},
    } | {
        # By CEL, which has all copies of a header in one text: the matcher takes each for itself.
        f"not one method in {name}": {"permissions": [_ANY], "condition": cel.not_one(name, TOKEN)}
        for name in OVERRIDES
    }
    return {name: {**policy, "principals": [_ANY]} for name, policy in found.items()}


def _again(header: str, rules: tuple[Rule, ...]) -> Policies:
    """What allows a request whose method the header's value would be; or it has none."""
    absent = {"permissions": [_not(header, TOKEN)], "principals": [_ANY]}
    return {"no other method": absent} | _policies("callers", rules, denies=False, header=header)


def _policies(
    key: str, rules: tuple[Rule, ...], *, denies: bool, header: str = ":method"
) -> Policies:
    """``header`` is where the method is."""
    return {
        f"{key}[{number}]": _policy(f"{key}[{number}]", rule, header, denies=denies)
        for number, rule in enumerate(rules)
        if rule.consumer is None
        and rule.group is None  # Kong's; in Envoy such a rule matches nobody
    }


def _policy(place: str, rule: Rule, header: str, *, denies: bool) -> dict[str, Any]:
    permissions: list[dict[str, Any]] = []
    if rule.methods is not None:
        permissions.append(_methods(rule.methods, header, denies=denies))
    if rule.path_prefix is not None:
        permissions.append(_prefix(place, rule.path_prefix, denies=denies))
    policy: dict[str, Any] = {
        "permissions": [_all("and_rules", "rules", permissions)],
        "principals": [_all("and_ids", "ids", _claims(place, rule, denies=denies))],
    }
    if rule.principal is not None:
        condition = cel.caller_is(rule.principal, widely=denies)
        if condition is None:
            raise UnsayableError(f"{place}: its principal is too long from its first * on")
        policy["condition"] = condition
    return policy


def _all(key: str, inner: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    if len(parts) == 1:
        return parts[0]
    return {key: {inner: parts}} if parts else _ANY


def _methods(methods: frozenset[str], header: str, *, denies: bool) -> dict[str, Any]:
    regex = "|".join(literal(method) for method in sorted(methods))
    if denies:  # in any letter case, and wherever a method may be
        headers = (header, *OVERRIDES)
        return {"or_rules": {"rules": [_header(name, f"(?i){regex}") for name in headers]}}
    return _header(header, regex if header == ":method" else f"(?i){regex}")


def _header(name: str, regex: str) -> dict[str, Any]:
    return {"header": {"name": name, "string_match": {"safe_regex": {"regex": regex}}}}


def _not(name: str, regex: str) -> dict[str, Any]:
    return {"not_rule": _header(name, regex)}


def _prefix(place: str, prefix: str, *, denies: bool) -> dict[str, Any]:
    if not plain(prefix):
        raise UnsayableError(
            f"{place}: its path_prefix holds a %, ;, //, a dot before a slash or at its end, or a "
            "character that is not ASCII"
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
        raise UnsayableError(f"{place}: a claim's name has an empty part, or too many dots")
    return [claim for claim in found if claim is not None]
