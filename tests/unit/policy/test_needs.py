from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.policy.configured import APPROLE, TOKEN_FILE, config, one_stage
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.values import KvSecret, PathSecret, SecretSource
from vaultauthz.policy.needs import (
    CAPABILITIES,
    LEASE_RENEW,
    LEASE_REVOKE,
    LOOKUP,
    RENEW,
    REVOKE,
    Need,
    needs,
)
from vaultauthz.vault.mounts import Mount, Mounts

NOTHING = Mounts()
OF_TOKEN = (LOOKUP, RENEW, REVOKE, CAPABILITIES)


def of(
    sources: dict[str, SecretSource],
    auth: AuthMethod = APPROLE,
    mounts: Mounts = NOTHING,
) -> dict[str, Need]:
    """The needs of the one stage, by their paths."""
    found = needs(one_stage(sources, auth), "prod", mounts)
    assert len({need.path for need in found}) == len(found)
    return {need.path: need for need in found}


def test_a_lease_is_read_renewed_and_revoked_and_no_other_is() -> None:
    """Its path with `read`; renewing and revoking only below that path."""
    found = of({"pay": PathSecret("database/creds/pay")})
    assert tuple(found) == ("database/creds/pay", LEASE_RENEW, LEASE_REVOKE, *OF_TOKEN)
    assert found["database/creds/pay"] == Need(
        "database/creds/pay", ("read",), ("pay",), "issues the login of pay"
    )
    for path in (LEASE_RENEW, LEASE_REVOKE):
        need = found[path]
        assert (need.capabilities, need.upstreams) == (("update",), ("pay",))
        assert (need.lease_prefixes, need.required) == (("database/creds/pay/",), True)


def test_a_write_is_an_update() -> None:
    """`method: write` wants `update`, and its lease is treated like any other."""
    found = of({"ssh": PathSecret("ssh/creds/otp", write=True)})
    assert found["ssh/creds/otp"].capabilities == ("update",)
    assert found[LEASE_RENEW].lease_prefixes == ("ssh/creds/otp/",)


@pytest.mark.parametrize(
    ("mounts", "path"),
    [
        (Mounts(), "team/data/kv/app"),
        (Mounts(Mount("team/kv", "kv", 2)), "team/kv/data/app"),
        (Mounts(Mount("team/kv", "kv", 1)), "team/kv/app"),
        (Mounts(Mount("team", "kv", 1)), "team/kv/app"),
        (Mounts(Mount("team", "database"), Mount("tea", "kv", 1)), "team/data/kv/app"),
    ],
    ids=["unknown", "version 2", "version 1", "version 1, first segment", "no engine of kv"],
)
def test_a_kv_secret_is_read_where_its_version_has_it(mounts: Mounts, path: str) -> None:
    """Version 2 below data/ of its mount, version 1 at its own path; no lease, no metadata."""
    found = of({"app": KvSecret("team/kv/app")}, mounts=mounts)
    assert tuple(found) == (path, *OF_TOKEN)
    assert found[path].capabilities == ("read",)


def test_a_static_role_has_no_lease() -> None:
    """What Vault rotates by itself is read, and there is nothing to renew or revoke."""
    found = of({"fixed": PathSecret("database/static-creds/fixed")})
    assert tuple(found) == ("database/static-creds/fixed", *OF_TOKEN)


def test_a_certificate_may_be_revoked_and_is_never_renewed() -> None:
    """Only a role with generate_lease makes leases of them, so it is not required."""
    found = of({"cert": PathSecret("pki/issue/gateway", write=True)})
    assert tuple(found) == ("pki/issue/gateway", LEASE_REVOKE, *OF_TOKEN)
    assert found["pki/issue/gateway"].capabilities == ("update",)
    assert not found[LEASE_REVOKE].required


@pytest.mark.parametrize(
    ("path", "write"),
    [("static-creds/creds/app", False), ("issue/creds/app", True), ("issue/app", True)],
)
def test_a_mount_may_be_called_like_an_engines_path(path: str, write: bool) -> None:
    """Only the word after the mount is the engine's; anything else may be a lease."""
    assert LEASE_RENEW in of({"app": PathSecret(path, write)})


def test_a_totp_code_needs_its_key_described() -> None:
    """Vault tells the period there, and no secret."""
    found = of({"sms": PathSecret("team/totp/code/partner")})
    assert found["team/totp/code/partner"].capabilities == ("read",)
    assert found["team/totp/keys/partner"].capabilities == ("read",)
    assert LEASE_RENEW not in found


def test_another_programs_token_is_not_renewed_or_revoked() -> None:
    """A token file's token is only looked up."""
    found = of({"pay": PathSecret("database/creds/pay")}, TOKEN_FILE)
    assert tuple(found) == (
        "database/creds/pay", LEASE_RENEW, LEASE_REVOKE, LOOKUP, CAPABILITIES
    )  # fmt: skip


def test_only_the_doctors_question_may_be_left_out() -> None:
    """Everything that serving asks for is required."""
    found = of({"pay": PathSecret("database/creds/pay"), "app": KvSecret("secret/app")})
    assert [path for path, need in found.items() if not need.required] == [CAPABILITIES]


def test_upstreams_at_one_path_share_a_line() -> None:
    """With the capabilities of both, and both names."""
    found = of({"a": PathSecret("e/creds/x"), "b": PathSecret("e/creds/x", write=True)})
    need = found["e/creds/x"]
    assert (need.capabilities, need.upstreams) == (("read", "update"), ("a", "b"))
    assert need.why == "issues the login of a and b"
    assert found[LEASE_RENEW].lease_prefixes == ("e/creds/x/",)


def test_why_stays_short() -> None:
    """However many share a path, it names the first."""
    found = of({f"a{n}": KvSecret("secret/x") for n in range(40)})
    assert found["secret/data/x"].why == "holds the secret of a0 and 39 more"


def test_a_path_is_as_it_is_written() -> None:
    """Each character stands for itself, in the configuration as in Vault's policies."""
    found = of({"a": PathSecret("e/creds/a%20b c"), "k": KvSecret("secret/a%20b c")})
    assert "e/creds/a%20b c" in found
    assert "secret/data/a%20b c" in found
    assert found[LEASE_RENEW].lease_prefixes == ("e/creds/a%20b c/",)


def test_a_stage_needs_its_own_secrets_only() -> None:
    """An upstream of another stage adds nothing."""
    both = config(
        {
            "pay": {s: PathSecret(f"database/creds/pay-{s}") for s in ("prod", "test")},
            "geo": {"test": KvSecret("secret/geo")},
        },
        {"prod": APPROLE, "test": APPROLE},
    )
    assert [n.path for n in needs(both, "prod", Mounts()) if n.upstreams] == [
        "database/creds/pay-prod",
        LEASE_RENEW,
        LEASE_REVOKE,
    ]
    assert "secret/data/geo" in [n.path for n in needs(both, "test", Mounts())]


NAMES = st.text("abc", min_size=1, max_size=3)
PATHS = st.lists(st.sampled_from(("a", "b", "creds", "issue", "static-creds")), min_size=2).map(
    "/".join
)
SOURCES = st.one_of(PATHS.map(KvSecret), st.builds(PathSecret, PATHS, st.booleans()))


@given(st.dictionaries(NAMES, SOURCES, max_size=8), st.sampled_from((APPROLE, TOKEN_FILE)))
def test_every_secret_is_covered_and_nothing_twice(
    sources: dict[str, SecretSource], auth: AuthMethod
) -> None:
    """Each upstream has a line that lets its call through; each path is there once."""
    found = of(sources, auth)
    for name, source in sources.items():
        lines = [n for n in found.values() if name in n.upstreams and not n.lease_prefixes]
        assert len(lines) == 1
        writes = isinstance(source, PathSecret) and source.write
        assert ("update" if writes else "read") in lines[0].capabilities
    secret_lines = [n for n in found.values() if n.upstreams and not n.lease_prefixes]
    assert all(n.path + "/" in found[LEASE_REVOKE].lease_prefixes for n in secret_lines
               if n.why.startswith("issues"))  # fmt: skip
