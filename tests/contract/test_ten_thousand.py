"""Ten thousand upstreams: what a configuration and a policy of them come to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.config.conftest import VALID
from tests.unit.policy.configured import one_stage
from tests.unit.policy.hcl_reader import read, said, says
from vaultauthz.config import parse
from vaultauthz.config.values import KvSecret, PathSecret
from vaultauthz.policy import hcl
from vaultauthz.policy.needs import needs
from vaultauthz.vault.mounts import Mounts

MANY = 10_000


def test_a_configuration_of_them_is_not_too_large(tmp_path: Path) -> None:
    """The size limit leaves room for ten thousand upstreams."""
    head = VALID.split("upstreams:")[0]
    body = "".join(
        f'  u{n}: {{secret: {{path: db/creds/u{n}}}, inject: [bearer: "{{t}}"], callers: any}}\n'
        for n in range(MANY)
    )
    config = parse(f"{head}upstreams:\n{body}", "c.yaml", tmp_path, {}, elsewhere=True)
    assert len(config.upstreams) == MANY


def test_their_policy_fits_into_what_vault_takes() -> None:
    """Its lines get shorter until it does, and say the same."""
    secrets = {f"app-{n:05}": PathSecret(f"database/creds/app-{n:05}") for n in range(MANY)}
    found = needs(one_stage(secrets), "prod", Mounts())
    text = hcl.policy(found, ["head"], {})
    assert hcl.stored_size(text) <= hcl.LARGEST
    assert says(text) == said(found)
    assert text.count('"database/creds/*"') == 2  # what leases it is for: their one folder
    assert "# app-00042\n" in text
    longer = hcl.policy([replace(n, upstreams=("n" * 60,)) for n in found], [], {})
    assert hcl.stored_size(longer) <= hcl.LARGEST
    assert "nnn" not in longer


def test_at_one_path_they_are_one_line() -> None:
    """A path is named once, whoever wants it."""
    found = needs(one_stage({f"a{n}": KvSecret("secret/x") for n in range(MANY)}), "prod", Mounts())
    assert len(read(hcl.policy(found, [], {}))) == len(found) == 5
