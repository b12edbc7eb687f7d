"""``callers`` and ``deny`` as rules of Envoy's RBAC filter, which decide as ``Callers`` does.

A rule becomes a policy of the same name: its methods and path are permissions, its claims
principals, its principal a condition. What Envoy cannot decide the same way is refused.
Header names have no underscores here: the printed listener refuses such requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from vaultauthz.core.callers import NO_WORD, SPACE, Callers, Claim, Rule
from vaultauthz.core.readings import IN_QUERY, OVERRIDES, TOKEN
from vaultauthz.envoy_config import expressions
from vaultauthz.envoy_config.expressions import AMBIGUOUS, decoded_under, has_one_reading, literal

Policies = dict[str, dict[str, Any]]
_ANY: dict[str, Any] = {"any": True}
Principal = dict[str, Any]
# Where the printed jwt_authn filter puts a token's claims, and the RBAC filter looks for them.
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD: Final = "jwt_payload"
# Parts of a name of which a rule names every way to put them together: 2**7 ways.
_MOST_PARTS: Final = 8


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
        f"not one method in {name}": {
            "permissions": [_ANY],
            "condition": expressions.not_one(name, TOKEN),
        }
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


def _policy(key: str, rule: Rule, header: str, *, denies: bool) -> dict[str, Any]:
    permissions: list[dict[str, Any]] = []
    if rule.methods is not None:
        permissions.append(_methods(rule.methods, header, denies=denies))
    if rule.path_prefix is not None:
        permissions.append(_prefix(key, rule.path_prefix, denies=denies))
    policy: dict[str, Any] = {
        "permissions": [_all("and_rules", "rules", permissions)],
        "principals": [_all("and_ids", "ids", _claims(key, rule, denies=denies))],
    }
    if rule.principal is not None:
        condition = expressions.caller_is(rule.principal, widely=denies)
        if condition is None:
            raise UnsayableError(f"{key}: its principal is too long from its first * on")
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


def _prefix(key: str, prefix: str, *, denies: bool) -> dict[str, Any]:
    if not has_one_reading(prefix):
        raise UnsayableError(
            f"{key}: its path_prefix holds a %, ;, //, a dot before a slash or at its end, or a "
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


def _claims(key: str, rule: Rule, *, denies: bool) -> list[dict[str, Any]]:
    found = [has_claim(claim, denies=denies) for claim in rule.claims]
    if None in found:
        raise UnsayableError(f"{key}: a claim's name has an empty part, or too many dots")
    return [claim for claim in found if claim is not None]


def has_claim(claim: Claim, *, denies: bool = False) -> Principal | None:
    """A principal whose token has this claim; None where Envoy cannot say so."""
    if not all(claim.path):
        return None  # a key of metadata is not empty
    if claim.double is not None and not denies:
        return {"not_id": {"any": True}}  # it is met by no token
    if len(claim.path) > _MOST_PARTS:
        return None
    wanted = _wanted(claim, NO_WORD if denies else SPACE, denies=denies)
    ways = tuple(_ways(claim.path))
    if len(ways) == 1:
        return _metadata(ways[0], wanted)
    one = {"or_ids": {"ids": [_metadata(way, wanted) for way in ways]}}
    if denies:
        return one
    # Where a token has several, all have to fit.
    each = [{"or_ids": {"ids": [_absent(w), _null(w), _metadata(w, wanted)]}} for w in ways]
    return {"and_ids": {"ids": [one, *each]}}


def _ways(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Each dot is one of a name, or leads into an object; as ``Claim`` looks."""
    yield (".".join(path),)
    for length in range(len(path) - 1, 0, -1):
        for rest in _ways(path[length:]):
            yield (".".join(path[:length]), *rest)


def _absent(path: tuple[str, ...]) -> Principal:
    return {"not_id": _metadata(path, {"present_match": True})}


def _null(path: tuple[str, ...]) -> Principal:
    return _metadata(path, {"null_match": {}})


def _metadata(path: tuple[str, ...], value: dict[str, Any]) -> Principal:
    keys = [{"key": key} for key in (PAYLOAD, *path)]
    return {
        "sourced_metadata": {
            "metadata_matcher": {"filter": JWT_FILTER, "path": keys, "value": value}
        }
    }


def _wanted(claim: Claim, space: str, *, denies: bool) -> dict[str, Any]:
    """The value itself, or a list with it."""
    wanted = claim.wanted
    one: dict[str, Any]
    if isinstance(wanted, bool):
        one = {"bool_match": wanted}
    elif isinstance(wanted, int):
        one = {"double_match": {"exact": wanted if claim.double is None else claim.double}}
    else:
        return _wanted_text(claim, wanted, space, denies=denies)
    return _or(one, _in_list(one))


def _wanted_text(claim: Claim, wanted: str, space: str, *, denies: bool) -> dict[str, Any]:
    exact = {"string_match": {"exact": wanted}}
    if not claim.is_scope:
        return _or(exact, _in_list(exact))
    if claim.word is None:
        return _in_list(exact)  # a word of a scope holds no space
    regex = f"(?s)(?:.*{space})?{literal(wanted)}(?:{space}.*)?"
    words = {"string_match": {"safe_regex": {"regex": regex}}}
    return _or(words, _in_list(words if denies else exact))


def _in_list(one: dict[str, Any]) -> dict[str, Any]:
    return {"list_match": {"one_of": one}}


def _or(*values: dict[str, Any]) -> dict[str, Any]:
    return {"or_match": {"value_matchers": list(values)}}
