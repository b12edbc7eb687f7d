"""A request goes to the upstream that `routes` say, or to none: also where the file has not all upstreams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.envoy_config.printing import HEAD, bootstrap, manager_of
from tests.unit.envoy_config.test_finished import GATEWAY, said
from vaultauthz.config import parse
from vaultauthz.core.routing import Routes

KEYED = 'secret: {kv: secret/a}, inject: [{header: {name: X-Api-Key, value: "{k}"}}], callers: any'
QUERY = 'secret: {kv: secret/a}, inject: [{query: {name: key, value: "{k}"}}], callers: any'
NAMES = ("a", "b", "c")
HOSTS = ("", "x.test", "y.test")
PREFIXES = ("/", "/v1", "/v1/", "/v1/x", "/v10")
PATHS = ("/", "/v1", "/v1/", "/v1/x", "/v1/x/y", "/v1/xy", "/v10", "/v10/x", "/z")
Wanted = dict[tuple[str, str], str]


def configuration(left_out: set[str], routes: Wanted) -> str:
    """Upstreams, of which SDS can have some, and routes to them."""
    upstreams = (
        f"  {name}: {{{QUERY if name in left_out else KEYED}, to: 'https://{name}.test'}}\n"
        for name in NAMES
    )
    lines = (
        f"  - {{{f'host: {host}, ' if host else ''}path_prefix: {prefix}, upstream: {name}}}\n"
        for (host, prefix), name in routes.items()
    )
    return "upstreams:\n" + "".join(upstreams) + "routes:\n" + "".join(lines)


def answered(manager: dict[str, Any], host: str, path: str) -> str | int:
    """The cluster that Envoy would choose, or the status that it answers with."""
    hosts = {one["domains"][0]: one["routes"] for one in manager["route_config"]["virtual_hosts"]}
    for route in hosts.get(host, hosts["*"]):
        ((kind, prefix),) = route["match"].items()
        below = path.startswith(prefix)
        if kind == "path_separated_prefix":
            below = path == prefix or path.startswith(f"{prefix}/")
        if below:
            found: str | int = (
                route["route"]["cluster"]
                if "route" in route
                else route["direct_response"]["status"]
            )
            return found
    return 404


@given(
    st.sampled_from(("sds", "ext_authz")),
    st.sets(st.sampled_from(NAMES), max_size=2),
    st.dictionaries(
        st.tuples(st.sampled_from(HOSTS), st.sampled_from(PREFIXES)),
        st.sampled_from(NAMES),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
@example("sds", {"b"}, {("", "/"): "a", ("", "/v1"): "b"}, True)
@example("sds", {"b"}, {("", "/"): "a", ("x.test", "/"): "b"}, True)
def test_no_request_goes_to_another_upstream(
    mode: str, left_out: set[str], routes: Wanted, gateway: bool
) -> None:
    """For every host and path: the one that our own routing says, 503 where it is left out, else 404."""
    text = configuration(left_out, routes) + (GATEWAY if gateway else "")
    own = Routes.of(parse(HEAD + text, "c.yaml", Path("/etc"), {}, elsewhere=True).routes)
    _, out, _ = said(text, mode)
    if not out:  # nothing is left for SDS
        assert not set(routes.values()) - left_out
        return
    manager = manager_of(bootstrap(out))
    for host in (*HOSTS[1:], "other.test"):
        for path in PATHS:
            found = own.find(host, path)
            gone = mode == "sds" and found is not None and found.upstream in left_out
            wanted = 404 if found is None else 503 if gone else found.upstream
            assert answered(manager, host, path) == wanted, (host, path)


@pytest.mark.parametrize("gateway", ["", GATEWAY])
def test_the_file_says_why(gateway: str) -> None:
    """Beside the route."""
    text = configuration({"b"}, {("", "/"): "a", ("", "/v1"): "b"})
    status, out, err = said(text + gateway, "sds")
    assert (status, "b is left out" in err) == (1, True)
    above, _, _ = out.partition("- match: {path_separated_prefix: /v1}")
    assert above.rstrip().endswith("is for no other one.")
