from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaultauthz.core.routing import ambiguous, bare_path, other_reading, under
from vaultauthz.envoy_config.readings import AMBIGUOUS, decoded_under, plain

PIECES = (
    *("/", "a", "b", "v1", "..", ".", "\\", ";", ";x", "%", "~", "+", "2", "3", "5", "e", "f"),
    *("%25", "%2525", "2e", "%2e", "%252e", "%252f", "%255C", "%00", "%2500", "%3b", "%253B"),
    *("%3f", "%23", "%2523", "%2532", "%2565", "%61", "%2561", "%c3%bc", "%25c3", "%7e", "%20"),
    *("%c0", "%e0%9", "%f0%8", "00"),
)
ANY_PATH = st.lists(st.sampled_from(PIECES), max_size=9).map(lambda parts: "/" + "".join(parts))
PREFIXES = st.lists(st.sampled_from(("a", "v1", "a~b", "x.y", "~")), max_size=3).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join(parts), "/" + "".join(f"{p}/" for p in parts)])
)
NEAR = (
    "/",
    "a",
    "v1",
    ";",
    ";q",
    "%3b",
    "%3B",
    "~",
    "%7e",
    "%7E",
    "x.y",
    "a~b",
    "//",
    "%20",
    "xzy",
)
NEAR_PATH = st.lists(st.sampled_from(NEAR), max_size=9).map(lambda parts: "/" + "".join(parts))


def denied(path: str) -> bool:
    """Whether Envoy would find it ambiguous."""
    return any(re.fullmatch(regex, path) for regex in AMBIGUOUS.values())


@given(ANY_PATH)
def test_the_same_paths_are_ambiguous(path: str) -> None:
    """Envoy's expressions find what the core's rule finds, of paths that the gateway lets in."""
    assert denied(path) == ambiguous(path)


@pytest.mark.parametrize(
    "path",
    [
        *("/a/../b", "/a/..", "/./a", "/a/.;x/b", "/a%2e", "/%61", "/a\\b", "/%5cb", "/a%00"),
        *(
            "/%252e%252e/b",
            "/a%252f..",
            "/a/..%3bx",
            "/..%253b",
            "/%252541",
            "/%%2532%2565",
            "/a%2Fb",
        ),
    ],
)
def test_ambiguous_paths(path: str) -> None:
    """Dot segments, backslashes, NUL and needless encoding are found in every disguise."""
    assert denied(path)


@pytest.mark.parametrize(
    "path", ["/", "/a.b/..c", "/a%20b", "/a;v=1", "/%c3%bc", "/a%252d", "/100%"]
)
def test_paths_that_mean_one_thing(path: str) -> None:
    """What has one reading is not found."""
    assert not denied(path)


@given(PREFIXES, NEAR_PATH)
def test_below_a_prefix_in_any_reading(prefix: str, path: str) -> None:
    """The expression finds a path that is below the prefix as it is, bare, or decoded and bare."""
    assume(not ambiguous(path))
    wanted = any(under(prefix, read) for read in (path, bare_path(path), other_reading(path)))
    assert (re.fullmatch(decoded_under(prefix), path) is not None) == wanted


@given(PREFIXES, NEAR_PATH)
def test_a_plain_prefix_is_one_in_both_readings(prefix: str, path: str) -> None:
    """A path below it stays so when it is decoded, so an allowing rule need not say it twice."""
    assert plain(prefix)
    assume(not ambiguous(path) and under(prefix, path))
    assert under(prefix, other_reading(path))


@pytest.mark.parametrize("prefix", ["/a%20b", "/a;v=1", "/a//b", "//", "/straße", "/a b"])
def test_prefixes_that_are_not_plain(prefix: str) -> None:
    """Those whose readings differ are told apart."""
    assert not plain(prefix)
