"""What the README shows is what works: its configuration, its policy, its filter."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.policy_bed import printed
from tests.integration.printed_bed import printed as envoy_printed
from tests.patience import PATIENCE
from vaultauthz.config import load, parse
from vaultauthz.core.request import Request
from vaultauthz.demo.parts import OpenBao, Postgres, binaries, wait_for
from vaultauthz.engine import Engine

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[2]
_README = (_ROOT / "README.md").read_text()


def _block(language: str, containing: str) -> str:
    """The code block that holds this text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", _README, re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return str(found)


def test_the_smallest_configuration_works_with_the_policy_that_is_printed_for_it(
    bao: OpenBao, postgres: Postgres, tmp_path: Path, secret_id: Path
) -> None:
    """A caller that it allows gets a login that PostgreSQL takes, and nothing is left after."""
    bao.database(postgres, "payments", default_ttl="1h", max_ttl="2h")
    role_id, secret = bao.enable_approle("readme", 'path "none" { capabilities = ["deny"] }')
    secret_id.write_text(secret)
    text = _block("yaml", "stages:")
    for ours, here in {
        "https://vault.internal:8200": bao.address,
        "role_id: 3f1d9c52-7b0e-4f4a-9c1e-5a2b8d60e7f4": f"role_id: {role_id}",
        "/run/secrets/secret_id": str(secret_id),
    }.items():
        assert ours in text
        text = text.replace(ours, here)
    (tmp_path / "vaultauthz.yaml").write_text(text)
    status, policy, _ = printed(tmp_path / "vaultauthz.yaml", "--stage", "production")
    assert status == 0
    bao.client().sys.create_or_update_policy("readme", policy)
    with Engine(load(tmp_path / "vaultauthz.yaml", {})) as engine:
        _until_ready(engine)
        request = Request("test", host="pay.example.com", principal="spiffe://corp/checkout/web")
        assert engine.check(request).allowed
        request.principal = "spiffe://corp/billing"
        assert not engine.check(request).allowed
        assert len(_logins(postgres)) == 1
        # By itself it waits for 5 s, and leaves the rest to Vault: too short on a starved machine.
        assert engine.close(PATIENCE)
    # Vault ends a token's leases soon after it has answered that the token is revoked.
    assert wait_for(lambda: not _logins(postgres), PATIENCE)


def _logins(postgres: Postgres) -> list[str]:
    """Those of the README's role; other tests may have theirs."""
    return [user for user in postgres.users() if "-payments-" in user]


@pytest.mark.parametrize("mode", ["ext_authz", "sds"])
def test_what_is_printed_for_it_is_what_envoy_takes(tmp_path: Path, mode: str) -> None:
    """The README's configuration leaves nothing to replace, and Envoy takes it (certificates are the user's)."""
    text = _block("yaml", "stages:")
    if mode == "sds":  # which wants to be told that Envoy asks who the caller is
        text = text.replace("    callers: [", "    callers_enforced_by: envoy\n    callers: [")
    (tmp_path / "vaultauthz.yaml").write_text(text)
    status, out, err = envoy_printed(tmp_path / "vaultauthz.yaml", "--mode", mode)
    assert status == 0, err
    assert "REPLACE" not in out
    _validate(yaml.safe_load(_with_certificates(out, tmp_path)), tmp_path)


@pytest.mark.parametrize("name", ["ext_authz.yaml", "demo.yaml"])
def test_the_bootstrap_files_are_ones_that_envoy_takes(name: str, tmp_path: Path) -> None:
    """Each file in envoy/ passes Envoy's validation (certificates apart, which are the user's)."""
    text = (_ROOT / "envoy" / name).read_text()
    _validate(yaml.safe_load(_with_certificates(text, tmp_path)), tmp_path)


def test_the_documented_configuration_keys_are_read() -> None:
    """docs/configuration.md's injection block is one that the reader takes as it stands."""
    document = (_ROOT / "docs" / "configuration.md").read_text()
    found = re.search(r"```yaml\n(inject:.*?)```", document, re.DOTALL)
    assert found
    slots = found.group(1).replace('  - bearer: "{token}"', "  #")  # a second Authorization
    text = (
        "vault: {address: 'http://127.0.0.1:8200'}\n"
        "stages: {s: {auth: {method: token_file, path: t, allow_long_lived: true}}}\n"
        "upstreams:\n u:\n  secret: {kv: secret/u}\n  callers: any\n"
        + re.sub("^", "  ", slots, flags=re.MULTILINE)
    )
    assert len(parse(text, "doc", _ROOT, {}).upstreams["u"].inject) == 4


def _until_ready(engine: Engine) -> None:
    deadline = time.monotonic() + PATIENCE
    while not engine.ready:
        assert time.monotonic() < deadline, engine.keeper.rows()
        time.sleep(0.01)


def _with_certificates(text: str, folder: Path) -> str:
    """The bootstrap with every certificate file it names put in place."""
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    files = {"ca": folder / "ca.pem", "cert": folder / "cert.pem", "key": folder / "key.pem"}
    authority.cert_pem.write_to_path(files["ca"])
    leaf.cert_chain_pems[0].write_to_path(files["cert"])
    leaf.private_key_pem.write_to_path(files["key"])
    for pattern, kind in (
        (r"(certificate_chain: \{filename: )[^}]+", "cert"),
        (r"(private_key: \{filename: )[^}]+", "key"),
        (r"(trusted_ca: \{filename: )[^}]+", "ca"),
    ):
        text = re.sub(pattern, rf"\g<1>{files[kind]}", text)
    return text


def _validate(bootstrap: dict[str, Any], folder: Path) -> None:
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(bootstrap))
    done = subprocess.run(
        [binaries.envoy(), "--mode", "validate", "-c", path, "--log-level", "error"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
