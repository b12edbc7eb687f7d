"""What Vault's own commands read of the environment."""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import VALID, Folder, edited
from vaultauthz.config.values import Tls

MAKERS = ("VAULT_", "BAO_")
ADDRESS = "https://vault.test:8200"


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("section", ["", "vault: {}", f"vault: {{address: {ADDRESS}}}"])
def test_what_is_taken(folder: Folder, maker: str, section: str) -> None:
    """Each stands in for its key, wherever the address is from."""
    given = {
        "ADDR": ADDRESS,
        "NAMESPACE": "team/",
        "CACERT": str(folder.path / "ca.pem"),
        "TLS_SERVER_NAME": "vault.corp",
        "CLIENT_CERT": str(folder.path / "cert.pem"),
        "CLIENT_KEY": str(folder.path / "key.pem"),
    }
    text = section + "\n" + VALID.split("\n", 2)[2]
    config = folder.parse(text, {maker + name: value for name, value in given.items()})
    ca, cert, key = (folder.path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    assert (config.vault.address, config.vault.namespace) == (ADDRESS, "team")
    assert config.vault.tls == Tls(ca, cert, key, "vault.corp")
    assert config.warnings == ()


def test_the_file_wins(folder: Folder) -> None:
    """And a stage's namespace over both; `root` is the one that has no name."""
    text = VALID.replace(ADDRESS, f"{ADDRESS}\n  namespace: root\n  tls: {{server_name: a}}")
    text = text.replace("prod:\n", "prod:\n    namespace: ours\n")
    environ = {"VAULT_NAMESPACE": "team", "VAULT_TLS_SERVER_NAME": "b"}
    config = folder.parse(text, environ)
    assert (config.vault.namespace, config.vault.tls.server_name) == ("root", "a")
    assert config.vault_of("prod").namespace == "ours"
    assert folder.parse(VALID, environ).vault_of("prod").namespace == "team"


@pytest.mark.parametrize("root", ["root", "root/", "/root", "/"])
def test_the_namespace_without_a_name(folder: Folder, root: str) -> None:
    """It can be meant whatever the environment says; an empty text says neither."""
    text = edited("prod:\n", f"prod:\n    namespace: {root}\n")
    assert folder.parse(text, {"VAULT_NAMESPACE": "team"}).vault_of("prod").namespace == "root"
    assert folder.parse(VALID, {"VAULT_NAMESPACE": root}).vault.namespace == "root"
    (problem,) = folder.problems(edited("prod:\n", 'prod:\n    namespace: ""\n'))
    assert "is empty; write root for the one without a name" in problem


@pytest.mark.parametrize("name", ["NAMESPACE", "CACERT", "TLS_SERVER_NAME"])
def test_both_makers(folder: Folder, name: str) -> None:
    """Vault's goes first, and it is told where `bao` would take another value."""
    ours, theirs = (str(folder.path / file) for file in ("ca.pem", "cert.pem"))
    both = {f"VAULT_{name}": ours, f"BAO_{name}": theirs}
    if name == "NAMESPACE":
        both = {f"VAULT_{name}": "ours", f"BAO_{name}": "theirs"}
    (warning,) = folder.warnings(VALID, both)
    assert f"$BAO_{name} is not read: $VAULT_{name} goes first, and differs" in warning
    assert not folder.warnings(VALID, {**both, f"BAO_{name}": both[f"VAULT_{name}"]})
    text = edited(ADDRESS, f"{ADDRESS}\n  namespace: x\n  tls: {{ca_cert: ca.pem, server_name: x}}")
    assert not folder.warnings(text, both)


def test_half_a_certificate(folder: Folder) -> None:
    """A pair is taken whole, and never put together of two."""
    key = str(folder.path / "key.pem")
    environ = {"VAULT_CLIENT_CERT": str(folder.path / "cert.pem")}
    assert any("client_key" in line for line in folder.problems(VALID, environ))
    text = edited(ADDRESS, f"{ADDRESS}\n  tls: {{client_cert: token, client_key: secret_id}}")
    tls = folder.parse(text, {**environ, "VAULT_CLIENT_KEY": key}).vault.tls
    assert (tls.client_cert, tls.client_key) == (folder.path / "token", folder.path / "secret_id")


def test_paths_start_where_the_command_is_run(
    folder: Folder, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for every other program that reads the variable."""
    elsewhere = tmp_path_factory.mktemp("here")
    (elsewhere / "their.pem").write_text("anything")
    monkeypatch.chdir(elsewhere)
    found = folder.parse(VALID, {"VAULT_CACERT": "their.pem"}).vault.tls.ca_cert
    assert found == elsewhere / "their.pem"


def test_mistakes_name_their_origin(folder: Folder) -> None:
    """The variable stands beside the key."""
    environ = {"VAULT_NAMESPACE": "a//b", "BAO_CACERT": "/nowhere/ca.pem"}
    problems = folder.problems(VALID, environ)
    assert any("vault.namespace (from $VAULT_NAMESPACE): is no namespace" in p for p in problems)
    assert any("vault.tls.ca_cert (from $BAO_CACERT): /nowhere/ca.pem" in p for p in problems)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("SKIP_VERIFY", "true", "certificate is always verified"),
        ("SKIP_VERIFY", "1", "certificate is always verified"),
        ("CAPATH", "/etc/ca", "vault.tls.ca_cert"),
        ("CACERT_BYTES", "-----BEGIN", "vault.tls.ca_cert"),
        ("AGENT_ADDR", "http://127.0.0.1:8100", "vault.address"),
        ("HTTP_PROXY", "http://us:s3cr3t@proxy:3128", "straight to Vault"),
        ("PROXY_ADDR", "http://us:s3cr3t@proxy:3128", "straight to Vault"),
        ("SRV_LOOKUP", "true", "list the nodes"),
        ("CLIENT_TIMEOUT", "30s", "vault.timeout"),
        ("RATE_LIMIT", "10", "vault.calls_per_second"),
    ],
)
def test_what_is_not_taken_is_told(
    folder: Folder, maker: str, name: str, text: str, told: str
) -> None:
    """With the key to use; never with what it says, where a password may be."""
    (warning,) = folder.warnings(VALID, {maker + name: text})
    assert f"${maker}{name} is not read: " in warning
    assert told in warning
    assert "s3cr3t" not in warning


@pytest.mark.parametrize("text", ["", "0", "false", "FALSE", "no"])
def test_switches_that_are_off(folder: Folder, text: str) -> None:
    """There is nothing to tell."""
    assert folder.warnings(VALID, {"VAULT_SKIP_VERIFY": text, "BAO_SRV_LOOKUP": text}) == ()
