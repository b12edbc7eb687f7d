from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from vaultauthz.core.routing import ambiguous, bare_path, path_of, readings, under
from vaultauthz.envoy_config.expressions import AMBIGUOUS, decoded_under, has_one_reading

PIECES = (
    *("/", "a", "b", "v1", "..", ".", "\\", ";", ";x", "%", "~", "+", "2", "3", "5", "e", "f"),
    *("%25", "%2525", "2e", "%2e", "%252e", "%252f", "%255C", "%00", "%2500", "%3b", "%253B"),
    *("%3f", "%23", "%2523", "%2532", "%2565", "%61", "%2561", "%c3%bc", "%25c3", "%7e", "%20"),
    *("%c0", "%e0%9", "%f0%8", "00", "%25c0", "%25e0", "%85", "%c2%a0", "%u", "%25u", "61"),
    *("%ef%bc%8e", "%ef%bc%8f", "%25ef%bc%bc", "%ef%bc%9b", "%20", "%2509"),
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
    if ambiguous(path):
        assert denied(path)
    elif "%25" not in path:
        assert not denied(path)


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
        *("/x/%ef%bc%8e%ef%bc%8e/a", "/%25c0%25ae", "/%25u002e", "/..%20/a", "a", "*x", ""),
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


TWICE = (
    "%257e",
    "%2561",
    "%252f",
    "%253b",
    "%25ef%bd%81",
    "%ef%bd%81",
    "%ef%bc%8f",
    "%2520",
    "%ef%bf%bd",
)
BLANKS = ("%20", "%09", ".", "%c2%a0", "%85", "A", "V1", "%3f")
WILD_PATH = st.lists(st.sampled_from(NEAR + TWICE + BLANKS), max_size=9).map(
    lambda parts: "/" + "".join(parts)
)
TAME_PATH = st.lists(st.sampled_from(NEAR + BLANKS), max_size=9).map(
    lambda parts: "/" + "".join(parts)
)


def is_below(prefix: str, path: str) -> bool:
    """Whether a server may take the path for one below the prefix."""
    found = (path_of(read).lower() for read in (path, *readings(path)))
    return any(under(prefix, read) or under(prefix, bare_path(read)) for read in found)


@given(PREFIXES, TAME_PATH)
@example("/a", "/A.;x/y")
@example("/a", "/a%3fx")
@example("/a/v1", "/./a%20/.%20/v1")
def test_below_a_prefix_in_any_reading(prefix: str, path: str) -> None:
    """The expression finds a path that is below the prefix in one of its readings."""
    assume(not ambiguous(path))
    assert (re.fullmatch(decoded_under(prefix), path) is not None) == is_below(prefix, path)


@given(PREFIXES, WILD_PATH)
@example("/a", "/%2561%252fx")
@example("/a", "/%ef%bd%81%ef%bc%8fx")
def test_no_reading_below_a_prefix_is_missed(prefix: str, path: str) -> None:
    """Encoded twice or in fullwidth characters as well."""
    assume(not ambiguous(path))
    if is_below(prefix, path):
        assert re.fullmatch(decoded_under(prefix), path)


@given(PREFIXES, WILD_PATH)
def test_a_plain_prefix_is_one_in_all_readings(prefix: str, path: str) -> None:
    """A path below it stays so however it is read, so an allowing rule need not say it twice."""
    assert has_one_reading(prefix)
    below = prefix.rstrip("/") + path
    assume(not ambiguous(below) and under(prefix, below))
    assert all(under(prefix, path_of(read)) for read in readings(below))


@pytest.mark.parametrize(
    "prefix", ["/a%20b", "/a;v=1", "/a//b", "//", "/straße", "/a b", "/a.", "/a./b"]
)
def test_prefixes_that_are_not_plain(prefix: str) -> None:
    """Those whose readings differ are told apart."""
    assert not has_one_reading(prefix)
