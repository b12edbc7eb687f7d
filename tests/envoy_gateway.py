"""What Envoy Gateway makes of policies, as far as our manifests need it: merging, and the order of filters.

A model of its translation, held against its own test data (tests/data/envoy_gateway/translation.yaml says which).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

Document = dict[str, Any]

ROOT: Final = Path(__file__).parents[1]
MANIFESTS: Final = ROOT / "docs" / "envoy-gateway"
DATA: Final = ROOT / "tests" / "data" / "envoy_gateway"
TRANSLATION: Final[Document] = yaml.safe_load((DATA / "translation.yaml").read_text())
EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
# Of a SecurityPolicy, the fields that become a filter.
FEATURES: Final = {
    "extAuth": "envoy.filters.http.ext_authz/securitypolicy/default/vaultauthz",
    "jwt": "envoy.filters.http.jwt_authn",
    "basicAuth": "envoy.filters.http.basic_auth",
    "apiKeyAuth": "envoy.filters.http.api_key_auth",
    "oidc": "envoy.filters.http.oauth2",
    "authorization": "envoy.filters.http.rbac",
    "cors": "envoy.filters.http.cors",
}
ROUTER: Final = "envoy.filters.http.router"
# The one form of JSONPath that our EnvoyPatchPolicy uses: every filter of a name, wherever it is.
_PATH: Final = re.compile(
    r"\.\.http_filters\[\?match\(@\.name, '(?P<name>[^']+)'\)\]\.typed_config"
)


def manifests(name: str) -> dict[str, Document]:
    """The documents of a file in docs/envoy-gateway by their kinds."""
    documents = yaml.safe_load_all((MANIFESTS / name).read_text())
    return {document["kind"]: document for document in documents}


def merged(route: Mapping[str, Any], parent: Mapping[str, Any]) -> Document:
    """A route's policy with mergeType: StrategicMerge over its parent's, field by field; a list replaces a list."""
    found = dict(parent)
    for key, value in route.items():
        over = found.get(key)
        both = isinstance(value, Mapping) and isinstance(over, Mapping)
        found[key] = merged(value, over or {}) if both else value
    return found


def in_force(route: Mapping[str, Any] | None, gateway: Mapping[str, Any]) -> Document:
    """The policy that a route gets: the Gateway's, its own, or with a mergeType both."""
    if route is None:
        return dict(gateway)
    return merged(route, gateway) if "mergeType" in route else dict(route)


def filters_of(policy: Mapping[str, Any]) -> list[str]:
    """The names of the filters that a request on a route with this policy passes, the router with them."""
    return [*(name for field, name in FEATURES.items() if field in policy), ROUTER]


def ordered(names: Iterable[str], positions: Sequence[Mapping[str, str]] = ()) -> list[str]:
    """Filters in Envoy Gateway's default order, then moved by EnvoyProxy's `filterOrder`, one entry after the other."""
    default = TRANSLATION["default_order"]
    found = sorted(names, key=lambda name: (default.index(name.split("/", 1)[0]), name))
    for position in positions:
        moving = [name for name in found if name.startswith(position["name"])]
        before = "before" in position
        there = [n for n in found if n.startswith(position["before" if before else "after"])]
        if not moving or not there:
            continue
        others = [name for name in found if name not in moving]
        at = others.index(there[0]) if before else others.index(there[-1]) + 1
        found = [*others[:at], *moving, *others[at:]]
    return found


def patched(filters: Iterable[Document], patches: Iterable[Document]) -> int:
    """Apply an EnvoyPatchPolicy's jsonPatches to filters; how many places they found."""
    places = 0
    every = list(filters)
    for patch in patches:
        operation = patch["operation"]
        path = _PATH.fullmatch(operation["jsonPath"])
        assert path, f"a form of JSONPath that is not read here: {operation}"
        assert operation["op"] == "add"
        for one in every:
            if re.fullmatch(path["name"], one["name"]):
                one["typed_config"][operation["path"].removeprefix("/")] = operation["value"]
                places += 1
    return places
