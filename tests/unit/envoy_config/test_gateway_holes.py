"""Envoy Gateway: two ways past vaultauthz that its defaults leave open, and what in docs/envoy-gateway closes them."""

from __future__ import annotations

import itertools

import pytest

from tests.envoy_gateway import (
    EXT_AUTHZ,
    FEATURES,
    ROUTER,
    TRANSLATION,
    Document,
    filters_of,
    in_force,
    manifests,
    merged,
    ordered,
    patched,
)

OURS = manifests("vaultauthz.yaml")
GATEWAY: Document = OURS["SecurityPolicy"]["spec"]
ROUTE: Document = manifests("route.yaml")["SecurityPolicy"]["spec"]
ORDER: list[dict[str, str]] = OURS["EnvoyProxy"]["spec"]["filterOrder"]
ASKS = FEATURES["extAuth"]
JWT = FEATURES["jwt"]


class TestTheModel:
    """It says what Envoy Gateway's own tests say."""

    @pytest.mark.parametrize("case", TRANSLATION["order_cases"])
    def test_of_the_order(self, case: Document) -> None:
        """Each of their filters stands where theirs does, from whatever order."""
        for names in itertools.permutations(case["filters"]):
            assert ordered(names, case["filterOrder"]) == case["filters"]

    @pytest.mark.parametrize("case", TRANSLATION["merge_cases"])
    def test_of_the_merge(self, case: Document) -> None:
        """A route's policy adds to its parent's, and wins where both say something."""
        both = merged(case["route"], case["parent"])
        assert sorted(both.keys() & FEATURES.keys()) == case["security"]
        if "extAuth" in case:
            assert both["extAuth"] == case["extAuth"]


class TestARoutesOwnPolicy:
    """The first: a SecurityPolicy of a route replaces the Gateway's."""

    def test_the_gateways_own_asks(self) -> None:
        """A route without a policy of its own passes ext_authz and the router."""
        assert ordered(filters_of(in_force(None, GATEWAY)), ORDER) == [ASKS, ROUTER]

    def test_without_a_merge_nobody_is_asked(self) -> None:
        """The hole: jwt_authn lets the token through, and the router is next. vaultauthz is not in the chain."""
        alone = {key: value for key, value in ROUTE.items() if key != "mergeType"}
        assert ordered(filters_of(in_force(alone, GATEWAY)), ORDER) == [JWT, ROUTER]

    def test_what_is_shipped_merges(self) -> None:
        """Closed: the token is checked first, then vaultauthz is asked, at its own address, and fails closed."""
        both = in_force(ROUTE, GATEWAY)
        assert ordered(filters_of(both), ORDER) == [JWT, ASKS, ROUTER]
        assert both["extAuth"] == GATEWAY["extAuth"]
        assert both["extAuth"]["failOpen"] is False

    def test_a_route_that_merges_its_own_ext_auth_wins(self) -> None:
        """Why admission.yaml refuses `extAuth` at a route: the filter stays, and asks somebody else."""
        taken = {**ROUTE, "extAuth": {"failOpen": True, "grpc": {"backendRefs": [{"name": "x"}]}}}
        both = in_force(taken, GATEWAY)
        assert both["extAuth"]["failOpen"] is True
        assert both["extAuth"]["grpc"] == {"backendRefs": [{"name": "x"}]}


class TestTheOrder:
    """The second: ext_authz runs before the filters that authenticate."""

    def test_by_default_nobody_is_authenticated_yet(self) -> None:
        """The hole: ext_authz first. No claims yet; and what it sets is what jwt_authn reads."""
        assert ordered(filters_of(in_force(ROUTE, GATEWAY))) == [ASKS, JWT, ROUTER]

    def test_what_is_shipped_authenticates_first(self) -> None:
        """Closed: every filter that reads who calls, or whatever the request carries, comes before ext_authz."""
        default: list[str] = TRANSLATION["default_order"]
        chain = ordered(default, ORDER)
        at = chain.index(EXT_AUTHZ)
        assert chain[:at] == [
            "envoy.filters.http.custom_response",
            "envoy.filters.http.health_check",
            "envoy.filters.http.fault",
            "envoy.filters.http.cors",
            "envoy.filters.http.csrf",
            "envoy.filters.http.header_mutation",
            "envoy.filters.http.api_key_auth",
            "envoy.filters.http.basic_auth",
            "envoy.filters.http.oauth2",
            "envoy.filters.http.jwt_authn",
            "envoy.filters.http.lua",
            "envoy.filters.http.ext_proc",
            "envoy.filters.http.wasm",
            "envoy.filters.http.dynamic_modules",
            "envoy.filters.http.geoip",
            "envoy.filters.http.rbac",
            "envoy.filters.http.local_ratelimit",
            "envoy.filters.http.ratelimit",
        ]
        # docs/envoy.md says what each of these can see.
        assert chain[at + 1 :] == [
            "envoy.filters.http.stateful_session",
            "envoy.filters.http.buffer",
            "envoy.filters.http.bandwidth_limit",
            "envoy.filters.http.grpc_web",
            "envoy.filters.http.grpc_stats",
            "envoy.filters.http.credential_injector",
            "envoy.filters.http.compressor",
            "envoy.filters.http.dynamic_forward_proxy",
            ROUTER,
        ]

    def test_the_filters_of_one_kind_stay_together(self) -> None:
        """Two Lua scripts: both go before ext_authz, in their order."""
        lua = [f"envoy.filters.http.lua/envoyextensionpolicy/default/p/{n}" for n in (0, 1)]
        chain = ordered([*filters_of(in_force(ROUTE, GATEWAY)), *lua], ORDER)
        assert chain == [JWT, *lua, ASKS, ROUTER]


@pytest.mark.parametrize(
    "name",
    [
        ASKS,  # 1.8: the policy's that has the field
        "envoy.filters.http.ext_authz/securitypolicy/default/payments",  # 1.7, and where a route adds to it
        "envoy.filters.http.ext_authz/0123456789abcdef",  # later: a hash of its settings
    ],
)
def test_the_patches_find_the_filter_by_its_kind(name: str) -> None:
    """Each of them, whatever a version of Envoy Gateway calls it; and no other filter."""
    chain: list[Document] = [{"name": one, "typed_config": {}} for one in (JWT, name, ROUTER)]
    patches = OURS["EnvoyPatchPolicy"]["spec"]["jsonPatches"]
    assert patched(chain, patches) == len(patches)
    assert [bool(one["typed_config"]) for one in chain] == [False, True, False]
