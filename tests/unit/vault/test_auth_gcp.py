"""What is signed for Google Cloud, without asking anybody."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.signed_tokens import Issuer, verified
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault import auth
from vaultauthz.vault.auth import gcp
from vaultauthz.vault.errors import VaultError

EMAIL = "gateway@project.iam.gserviceaccount.com"
ISSUER = Issuer("key-1")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A service account's key file."""
    path = tmp_path / "key.json"
    fields = {
        "client_email": EMAIL,
        "private_key": ISSUER.private_pem(),
        "private_key_id": "key-1",
        "token_uri": "http://127.0.0.1:1/",
    }
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("account", ["", EMAIL])
def test_a_key_file_signs_what_vault_checks(key: Path, account: str) -> None:
    """By its public key alone; it runs out well before Vault's 15 minutes."""
    values = Gcp("edge", type="iam", service_account=account, credentials_file=key)
    claims = verified(gcp.signed(values).reveal(), ISSUER.public)
    assert time.time() < claims.pop("exp") <= time.time() + 600
    assert claims == {"sub": EMAIL, "aud": "vault/edge"}


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=4))
def test_no_key_file_makes_another_kind_of_error(value: Any) -> None:
    """Whatever stands in the fields, it is refused and not quoted."""
    text = json.dumps({"client_email": EMAIL, "private_key": value, "token_uri": value})
    path = Path("/nowhere/key.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcp, "read_secret", lambda path, what: Secret(text))
        with pytest.raises(VaultError) as caught:
            gcp.signed(Gcp("edge", type="iam", credentials_file=path))
    assert caught.value.failure.verdict is Verdict.REFUSED
    assert caught.value.detail == str(path)


def test_a_key_file_that_is_missing_is_awaited() -> None:
    """Something may be about to write it."""
    with pytest.raises(VaultError) as caught:
        gcp.signed(Gcp("edge", type="iam", credentials_file=Path("/nowhere/key.json")))
    assert caught.value.failure.verdict is Verdict.RETRY


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth is not installed by itself; an instance's own identity does not need it."""
    monkeypatch.delitem(sys.modules, "vaultauthz.vault.auth.gcp", raising=False)
    monkeypatch.delattr(auth, "gcp", raising=False)
    monkeypatch.setitem(sys.modules, "google.auth", None)
    nobody: Any = None
    with pytest.raises(VaultError) as caught:
        auth.login(nobody, Gcp("edge", type="iam", service_account=EMAIL), {})
    assert caught.value.failure.verdict is Verdict.REFUSED
    assert "pip install 'google-auth[requests]>=2.38'" in caught.value.failure.reason
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    with pytest.raises(VaultError, match="metadata server cannot be reached"):
        auth.login(nobody, Gcp("edge"), {})
