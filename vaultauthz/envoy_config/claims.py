"""Claims of a verified token, as Envoy's RBAC filter finds them in the metadata of jwt_authn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from vaultauthz.core.callers import NO_WORD, SPACE, Claim
from vaultauthz.envoy_config.readings import literal

# Where the printed jwt_authn filter puts a token's claims, and the RBAC filter looks for them.
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD: Final = "jwt_payload"
# Parts of a name of which a rule names every way to put them together: 2**7 ways.
_MOST_PARTS: Final = 8
Principal = dict[str, Any]


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
