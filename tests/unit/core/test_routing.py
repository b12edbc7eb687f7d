from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vaultauthz.core.routing import (
    Route,
    Routes,
    ambiguous,
    bare_host,
    bare_path,
    has_fragment,
    path_of,
    under,
)


@pytest.mark.parametrize(
    ("prefix", "path", "found"),
    [
        ("/v1", "/v1", True),
        ("/v1", "/v1/", True),
        ("/v1", "/v1/x", True),
        ("/v1", "/v10", False),
        ("/v1", "/v1;x", False),
        ("/v1", "/V1", False),
        ("/v1", "/", False),
        ("/v1/", "/v1", False),
        ("/v1/", "/v1/", True),
        ("/v1/", "/v1/x", True),
        ("/", "/anything", True),
        ("/", "*", False),
        ("/", "", False),
    ],
)
def test_under(prefix: str, path: str, found: bool) -> None:
    """A prefix ends where a segment ends."""
    assert under(prefix, path) is found


@pytest.mark.parametrize("path", ["", "*"])
@pytest.mark.parametrize("host", ["tunnel.test:443", "Tunnel.TEST.", "tunnel.test"])
def test_what_has_no_path_is_for_a_route_by_host(host: str, path: str) -> None:
    """CONNECT, and OPTIONS * (RFC 9112, 3.2.3 and 3.2.4)."""
    below = Route("below", "prod", host="tunnel.test", path_prefix="/v1")
    alone = Route("alone", "prod", host="tunnel.test")
    anywhere = Route("anywhere", "prod", path_prefix="/")
    assert Routes.of([below, alone, anywhere]).find(host, path) == alone
    assert Routes.of([below, anywhere]).find(host, path) is None, "any path is no host"


@pytest.mark.parametrize("path", ["x", "v1/x", "http://tunnel.test/v1", "tunnel.test:443", "**"])
def test_what_is_no_path_is_for_no_route(path: str) -> None:
    """Gateways tell an absolute-form target by its host and path; another form is none."""
    assert Routes.of([Route("alone", "prod", host="tunnel.test")]).find("tunnel.test", path) is None


SEGMENTS = st.lists(st.sampled_from(["v1", "v10", "a", "", "v"]), max_size=4)


@given(SEGMENTS, SEGMENTS)
def test_under_goes_by_segments(prefix: list[str], path: list[str]) -> None:
    """Being under a prefix means beginning with its segments."""
    within = under("/" + "/".join(prefix), "/" + "/".join(path))
    cut = prefix[:-1] if prefix and prefix[-1] == "" else prefix
    whole = path or [""]
    longer = len(whole) > len(cut) or cut == prefix
    assert within is (whole[: len(cut)] == cut and longer)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a?b", "/a"),
        ("/a#b?c", "/a"),
        ("/a?b#c", "/a"),
        ("/a?b?c", "/a"),
        ("/a#b#c", "/a"),
        ("/a", "/a"),
        ("", ""),
        ("?x", ""),
    ],
)
def test_path_of(target: str, path: str) -> None:
    """The path ends at the query or the fragment, whichever comes first."""
    assert path_of(target) == path


@pytest.mark.parametrize(
    ("target", "found"),
    [("/a#b", True), ("/a#b?c", True), ("/a", False), ("/a?b#c", False), ("/a?b#c?d", False)],
)
def test_has_fragment(target: str, found: bool) -> None:
    """Only what stands before the query is left out of the path."""
    assert has_fragment(target) is found


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("pay.example.com", "pay.example.com"),
        ("Pay.Example.COM:8443", "pay.example.com"),
        ("pay.example.com.", "pay.example.com"),
        ("pay.example.com.:443", "pay.example.com"),
        ("[::1]:8080", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::1", "[::1"),
        ("[::1]:8]", "[::1]"),
        ("pay.example.com:443:80", "pay.example.com"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("", ""),
    ],
)
def test_bare_host(authority: str, host: str) -> None:
    """Letter case, port and trailing dot make no difference; an IPv6 address stays whole."""
    assert bare_host(authority) == host


def route(prefix: str, host: str = "", upstream: str = "") -> Route:
    """A route named after where it leads from."""
    return Route(upstream or f"{host}{prefix}", "prod", host, prefix)


@given(st.permutations(["/", "/v1", "/v1/", "/v1/pay", "/v10"]))
@example(["/", "/v1", "/v1/", "/v1/pay", "/v10"])
def test_longest_prefix_wins_in_any_order(prefixes: list[str]) -> None:
    """The order of the configuration does not matter."""
    routes = Routes.of([route(p) for p in prefixes])
    for path, prefix in {
        "/": "/",
        "/v": "/",
        "/v1": "/v1",
        "/v1/": "/v1/",
        "/v1/x": "/v1/",
        "/v1/pay": "/v1/pay",
        "/v1/pay/1": "/v1/pay",
        "/v1/payments": "/v1/",
        "/v10": "/v10",
        "/v100": "/",
    }.items():
        found = routes.find("any.test", path)
        assert found is not None
        assert found.path_prefix == prefix


def test_named_host_wins_over_any_host() -> None:
    """A route with a host is tried first, even if one without has the longer prefix."""
    routes = Routes.of([route("/v1/long"), route("/v1", "pay.test"), route("/x", "pay.test")])
    for authority in ("pay.test", "PAY.test:443", "pay.test."):
        assert routes.find(authority, "/v1/long") == route("/v1", "pay.test")
    assert routes.find("other.test", "/v1/long") == route("/v1/long")
    assert routes.find("pay.test", "/v2") is None


def test_host_falls_back_to_any_host() -> None:
    """Where no route of the host fits the path, one for any host may."""
    routes = Routes.of([route("/"), route("/v1", "pay.test")])
    assert routes.find("pay.test", "/v2") == route("/")


def test_no_route() -> None:
    """No routes, no upstream; and a target that is no path is under no prefix."""
    assert Routes().find("a.test", "/") is None
    assert Routes.of([route("/")]).find("a.test", "*") is None


@pytest.mark.parametrize(
    ("routes", "reads"),
    [([], False), ([route("/"), route("/", "a")], False), ([route("/"), route("/a")], True)],
)
def test_reads_path(routes: list[Route], reads: bool) -> None:
    """The path decides as soon as one prefix is more than the root."""
    assert Routes.of(routes).reads_path is reads


AMBIGUOUS = """
/. /.. /a/. /a/.. /a/./b /a/../b /../a ../a .. . /a/..;/b /a/..;x=1/b /a/.;/b
/a\\b /a/..\\b \\a /a/%5c..%5cb /a%5Cb
/%2e /%2E%2e/ /a/%2e%2E/b /a/.%2e/b /a/%2e./b /a/..%2fb /a%2f..%2fb /a%2F%2e%2e%2Fb /a/%2e%2e;/b
/a/..%3b/b /a/%2e%2e%3bx/b /a/..%5cb /a/..%3fx /a/..%23x /a/x%00 /a%00/..
/a/%252e%252e/b /a/%25252e%25252e/b /a/..%252fb /a/%25%32%65%25%32%65/b /a/..%255cb
/%61dmin /a/%41 /v%31 /a%5fb /a%2Db /index%2ephp
/a/%c0%ae%c0%ae/b /a/%C0%AF.. /a/%e0%80%ae/b /a/%f0%80%80%ae/b
/a/%25c0%25ae/b /a/%25C1%25A1 /a/%25e0%2580%25ae/b /a/%25f0%2580%2580%25ae/b /a/%25u002e/b
""".split()  # noqa: SIM905  one a line would be two pages
PLAIN = """
/ /a /a/b /a/ /a//b /a.b /a/.b /a/..b /a/b.. /a/b. /.well-known/x /a/...  /a/.../b /a/b;v=1.2 /a/b;..
/caf%c3%a9 /a%20b /a%2fb /a%3fb /a%23b /a%25b /a%2520b /a/100%25 /a/100% /a/%zz /%e2%82%ac /%7euser
/a/%F0%9F%98%80 /a;/b * /a/@b:c
""".split()  # noqa: SIM905  one a line would be two pages


@pytest.mark.parametrize("path", [*AMBIGUOUS, "/a\0", "/a\0b/c"])
def test_ambiguous(path: str) -> None:
    """A path that servers read in more than one way is found out."""
    assert ambiguous(path)


@pytest.mark.parametrize("path", PLAIN)
def test_not_ambiguous(path: str) -> None:
    """Paths as people and libraries write them are not refused."""
    assert not ambiguous(path)


PIECES = st.lists(
    st.sampled_from(
        "/ / . .. \\ ; ;x a v1 %2e %2E %2f %5c %5C %3b %252e %25 2e %00 ? # %61 %3f".split()  # noqa: SIM905
    ),
    max_size=9,
).map("".join)


def resolutions(path: str) -> set[str]:
    """What servers make of ``path``: decoding or not, once or twice, and resolving dots."""
    found = {path}
    for _ in range(2):
        found |= {unquote(p) for p in found}
    found |= {p.replace("\\", "/") for p in found}
    found |= {re.sub(r";[^/]*", "", p) for p in found}
    found |= {p.split("\0", 1)[0] for p in found}
    found |= {re.split(r"[?#]", p, maxsplit=1)[0] for p in found}
    return {re.sub("^/+", "/", posixpath.normpath(p)) for p in found}


@given(PIECES)
@example("../b")
@example("%252e%252e/b")
@example("..%3b/b")
@example("..%5cb")
def test_path_that_leaves_its_prefix_is_ambiguous(rest: str) -> None:
    """What any normalising server resolves outside the prefix is never taken as inside."""
    path = path_of(f"/v1/pay/{rest}")
    if any(not under("/v1/pay", resolved) for resolved in resolutions(path)):
        assert ambiguous(path)


@given(st.text(st.characters(categories=("L", "N"), include_characters="-_~/ ")))
def test_path_of_words_is_not_ambiguous(path: str) -> None:
    """Without dots, percent signs and backslashes there is nothing to misread."""
    assert not ambiguous("/" + path)


@given(st.text("%25e2", max_size=3000))
def test_deep_encoding_is_answered_quickly(path: str) -> None:
    """However often a path is encoded, it is looked at a few times only."""
    assert ambiguous("/%" + "25" * 2000 + path) is True


@pytest.mark.parametrize(
    ("path", "bare"),
    [
        ("//admin", "/admin"),
        ("/a;x=1/b;y", "/a/b"),
        ("/;x/admin", "/admin"),
        ("/a", "/a"),
        ("/\x01a/\x7fb", "/a/b"),
        ("/MAX./x", "/MAX/x"),
    ],
)
def test_bare_path(path: str, bare: str) -> None:
    """Path parameters and doubled slashes go, and what some servers trim off a segment."""
    assert bare_path(path) == bare
