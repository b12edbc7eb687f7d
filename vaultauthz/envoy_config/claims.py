"""Claims of a verified token, as Envoy's RBAC filter finds them in the metadata of jwt_authn."""

from __future__ import annotations

from typing import Any, Final

from vaultauthz.core.callers import Claim
from vaultauthz.envoy_config.readings import literal

# Where the printed jwt_authn filter puts a token's claims, and the RBAC filter looks for them.
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD: Final = "jwt_payload"
# What separates the words of a scope: what Python's str.split() splits ASCII at. A rule that denies
# takes all that no word may hold (RFC 6749, 3.3) for a separator, so that it errs on the safe side.
_SPACE: Final = r"[\t-\r\x1c-\x20]"
_NO_WORD: Final = "[^!-~]"
_NEVER: Final[dict[str, Any]] = {"not_id": {"any": True}}

Principal = dict[str, Any]


def has_claim(claim: Claim, *, denies: bool = False) -> Principal | None:
    """A principal whose token has this claim; None where Envoy cannot say so."""
    if not all(claim.path):
        return None  # a key of metadata is not empty
    wanted = _wanted(claim, _NO_WORD if denies else _SPACE)
    if wanted is None:
        return _NEVER
    whole = (".".join(claim.path),)
    if len(claim.path) == 1:
        return _metadata(whole, wanted)
    # A name with dots is the claim of that name, and only where there is none a nested one.
    absent = {"or_ids": {"ids": [_absent(whole), _metadata(whole, {"null_match": {}})]}}
    nested = {"and_ids": {"ids": [absent, _metadata(claim.path, wanted)]}}
    return {"or_ids": {"ids": [_metadata(whole, wanted), nested]}}


def _absent(path: tuple[str, ...]) -> Principal:
    return {"not_id": _metadata(path, {"present_match": True})}


def _metadata(path: tuple[str, ...], value: dict[str, Any]) -> Principal:
    keys = [{"key": key} for key in (PAYLOAD, *path)]
    return {
        "sourced_metadata": {
            "metadata_matcher": {"filter": JWT_FILTER, "path": keys, "value": value}
        }
    }


def _wanted(claim: Claim, space: str) -> dict[str, Any] | None:
    """The value itself, or a list with it; None for one that no claim can have."""
    wanted = claim.wanted
    one: dict[str, Any]
    if isinstance(wanted, bool):
        one = {"bool_match": wanted}
    elif isinstance(wanted, int):
        if int(float(wanted)) != wanted:
            return None  # all numbers in metadata are doubles, and this is none
        one = {"double_match": {"exact": wanted}}
    else:
        return _wanted_text(claim, wanted, space)
    return _or(one, _in_list(one))


def _wanted_text(claim: Claim, wanted: str, space: str) -> dict[str, Any]:
    exact = {"string_match": {"exact": wanted}}
    if claim.path[-1] not in ("scope", "scp"):
        return _or(exact, _in_list(exact))
    if wanted.split() != [wanted]:
        return _in_list(exact)  # a word of a scope holds no space
    regex = f"(?s)(?:.*{space})?{literal(wanted)}(?:{space}.*)?"
    return _or({"string_match": {"safe_regex": {"regex": regex}}}, _in_list(exact))


def _in_list(one: dict[str, Any]) -> dict[str, Any]:
    return {"list_match": {"one_of": one}}


def _or(*values: dict[str, Any]) -> dict[str, Any]:
    return {"or_match": {"value_matchers": list(values)}}
