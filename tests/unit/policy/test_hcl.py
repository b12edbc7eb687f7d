from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.policy.configured import one_stage
from tests.unit.policy.hcl_reader import read, said, says
from vaultauthz.config.values import KvSecret, PathSecret
from vaultauthz.policy import hcl
from vaultauthz.policy.hcl import PolicyError
from vaultauthz.policy.needs import Need, needs
from vaultauthz.vault.mounts import Mounts

EXPECTED = """\
# first line
#
# third

# issues the login of pay
path "database/creds/pay" {
  capabilities = ["read"]
}

# holds the secret of geo
# (assumed)
path "secret/data/geo" {
  capabilities = ["read"]
}

# renews its leases
path "sys/leases/renew" {
  capabilities = ["update"]
  allowed_parameters = {
    "lease_id" = [
      "database/creds/pay/*",
    ]
    "increment" = []
  }
}

# revokes its leases when they are replaced
path "sys/leases/revoke" {
  capabilities = ["update"]
  allowed_parameters = {
    "lease_id" = [
      "database/creds/pay/*",
    ]
  }
}

"""


def test_a_policy_is_comments_and_a_block_for_each_need() -> None:
    """The text, as it is printed."""
    found = needs(
        one_stage({"pay": PathSecret("database/creds/pay"), "geo": KvSecret("secret/geo")}),
        "prod",
        Mounts(),
    )
    text = hcl.policy(found, ["first line", "", "third"], {"secret/data/geo": "(assumed)"})
    assert text.startswith(EXPECTED)
    assert says(text) == said(found)


def test_the_upstreams_of_a_shared_path_are_all_named() -> None:
    """In comments, however many lines of them it takes."""
    names = tuple(f"upstream-{n:03}" for n in range(60))
    text = hcl.block(Need("secret/data/x", ("read",), names, "why"))
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert all(name in "".join(comments) for name in names)
    assert max(map(len, comments)) <= 102
    assert list(read(text)) == ["secret/data/x"]


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ('secret/a"b', r'"secret/a\"b"'),
        ("secret/a\\b", r'"secret/a\\b"'),
        ("secret/a${b}", r'"secret/a$\u007bb}"'),
        ("secret/a{b", '"secret/a{b"'),
        ("secret/a\nb", r'"secret/a\u000ab"'),
        ("secret/a\U000e0001b", r'"secret/a\U000e0001b"'),
        ("secret/é#", '"secret/é#"'),
        ("secret/a*b/+c", '"secret/a*b/+c"'),
    ],
)
def test_a_path_is_quoted(path: str, written: str) -> None:
    """What HCL would take for its own, and what a terminal would, is written as a code."""
    text = hcl.block(Need(path, ("read",), ("a",), "why"))
    assert f"path {written} {{" in text
    assert list(read(text)) == [path]


@pytest.mark.parametrize(
    "path",
    ["secret/a*", "secret/*", "*", "secret/+", "+/a", "a/+/b", "secret/x+*y", "a/{{b", "a}}"],
)
def test_a_path_that_a_policy_would_take_for_a_pattern_is_refused(path: str) -> None:
    """The error names upstream and path and says what to do."""
    with pytest.raises(PolicyError, match=r"^geo: a policy cannot name .*; give it another name"):
        hcl.block(Need(path, ("read",), ("geo",), "why"))


def test_a_lease_prefix_that_would_match_anything_is_refused() -> None:
    """A * in front is a pattern in a parameter's value, though not in a path."""
    with pytest.raises(PolicyError):
        hcl.block(Need("sys/leases/renew", ("update",), ("geo",), "why", ("*base/creds/x/",)))


@given(
    st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=5),
    st.lists(st.text(max_size=20), max_size=3),
    st.sampled_from(hcl.Form),
)
def test_no_text_breaks_out(paths: list[str], comments: list[str], form: hcl.Form) -> None:
    """Whatever paths and comments hold, the policy says exactly what it is to say."""
    wanted = []
    for path in paths:
        need = Need(path, ("read",), (path,), f"of {path}", (path + "/",) * len(comments))
        try:
            hcl.check_path(need)
        except PolicyError:
            continue
        wanted.append(need)
    text = "".join(map(hcl.comment, comments))
    text += "".join(hcl.block(need, "".join(comments), form) for need in wanted)
    assert says(text) == said(tuple(wanted))


def test_every_subset_of_blocks_is_a_policy() -> None:
    """Blocks stand for themselves: any of them can be left out."""
    found = needs(one_stage({"pay": PathSecret("database/creds/pay")}), "prod", Mounts())
    for some in itertools.combinations(found, len(found) - 1):
        assert says("".join(map(hcl.block, some))) == said(some)
