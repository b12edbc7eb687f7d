"""The gcp login against Vault's plugin: instances, key files, and Google signing for us."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.auth.compute_engine import _metadata

from tests.contract.cloud_http import CloudService, Told
from tests.contract.gcp_plugin import GcpPlugin
from tests.contract.metadata import GoogleIam, GoogleMetadata
from tests.contract.signed_tokens import Issuer
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.config.values import Vault
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

GATEWAY = "gateway@project.iam.gserviceaccount.com"
DEPLOYER = "deployer@project.iam.gserviceaccount.com"
GOOGLE = Issuer("google-1")
ACCOUNTS = {GATEWAY: Issuer("key-1"), DEPLOYER: Issuer("key-2")}
ROLES = {"machine": ("gce", "gateway-1"), "other": ("gce", "else"), "app": ("iam", GATEWAY)}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment with no way to credentials, and no metadata server."""
    for name in os.environ:
        if name.startswith(("GOOGLE_", "GCE_", "CLOUDSDK_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:1")


@pytest.fixture
def plugin() -> Iterator[GcpPlugin]:
    """A Vault with the gcp method."""
    with GcpPlugin(GOOGLE, ACCOUNTS, ROLES) as vault:
        yield vault


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleMetadata]:
    """The metadata server of this instance."""
    with GoogleMetadata(GOOGLE) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.host)
        monkeypatch.setenv("GCE_METADATA_IP", server.host)
        # google-auth reads the variable once, when it is imported.
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", server.host)
        yield server


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleIam]:
    """Google's APIs: the deployer and the machine may act for the gateway."""
    may = {f"ya29.{DEPLOYER}": GATEWAY, "ya29.machine": GATEWAY}
    with GoogleIam(ACCOUNTS, may) as apis:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS", apis.address)
        yield apis


def key_file(folder: Path, email: str, token_uri: str = "http://127.0.0.1:1/token") -> Path:
    """The service account's key, as the console gives it out."""
    path = folder / f"{email.partition('@')[0]}.json"
    key = {
        "type": "service_account",
        "project_id": "project",
        "client_email": email,
        "private_key": ACCOUNTS[email].private_pem(),
        "private_key_id": ACCOUNTS[email].kid,
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(key))
    return path


def login(plugin: GcpPlugin, role: str = "app", **settings: Any) -> Grant:
    """Log in, as a stage does; with ``iam`` unless something else is said."""
    method = Gcp(role, **{"type": "iam", **settings})
    return Session(Vault(plugin.address), method, time.monotonic).login()


def refused(plugin: GcpPlugin, role: str = "app", **settings: Any) -> VaultError:
    """The error of a login that must not work; it quotes nobody."""
    with pytest.raises(VaultError) as caught:
        login(plugin, role, **settings)
    assert "s3cr3t" not in f"{caught.value!r} {caught.value.detail}"
    return caught.value


def test_an_instance_logs_in(plugin: GcpPlugin, machine: GoogleMetadata) -> None:
    """Its identity is for this role of Vault, in full, and new at each login."""
    assert login(plugin, "machine", type="gce").payload.reveal() == "hvs.cl0ud"
    login(plugin, "machine", type="gce")
    assert plugin.logins == [{"instance_name": "gateway-1"}] * 2
    assert len(machine.heard) == 2


def test_another_instances_role_is_refused(plugin: GcpPlugin, machine: GoogleMetadata) -> None:
    """As is one that does not exist."""
    for role in ("other", "nobody"):
        error = refused(plugin, role, type="gce")
        assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED)


def test_a_machine_without_a_metadata_server_waits_for_it(plugin: GcpPlugin) -> None:
    """It may only be starting; the words say what was asked."""
    error = refused(plugin, "machine", type="gce")
    reason = "Google's metadata server cannot be reached"
    assert (error.failure.verdict, error.failure.reason) == (Verdict.RETRY, reason)
    assert not error.failure.away  # Vault is not what is missing


@pytest.mark.parametrize(
    ("status", "verdict"), [(404, Verdict.REFUSED), (503, Verdict.RETRY), (302, Verdict.RETRY)]
)
def test_what_the_metadata_server_answers_decides(
    plugin: GcpPlugin, machine: GoogleMetadata, status: int, verdict: Verdict
) -> None:
    """No service account is for somebody to mend; the rest passes. Nothing it wrote is told."""
    machine.status = status
    assert refused(plugin, "machine", type="gce").failure.verdict is verdict
    assert not plugin.heard


@pytest.mark.parametrize("body", ["", "not a token", "x" * (1 << 21)])
def test_what_is_no_token_is_not_sent_to_vault(
    plugin: GcpPlugin, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """A portal's page, nothing, or more than a token can be."""
    with CloudService(lambda asked: Told(200, body)) as portal:
        monkeypatch.setenv("GCE_METADATA_HOST", portal.host)
        assert refused(plugin, "machine", type="gce").failure.verdict is Verdict.RETRY
    assert not plugin.heard


def test_a_proxy_of_the_environment_sees_no_identity(
    plugin: GcpPlugin, machine: GoogleMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata server is asked directly, whatever http_proxy says."""
    with CloudService(lambda asked: Told(200, "from.a.proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address)
        login(plugin, "machine", type="gce")
    assert not proxy.heard


def test_a_key_file_logs_in(plugin: GcpPlugin, tmp_path: Path) -> None:
    """The JWT is signed here: nobody but Vault is asked."""
    login(plugin, credentials_file=key_file(tmp_path, GATEWAY))
    assert plugin.logins == [{"service_account_email": GATEWAY}]


def test_a_key_of_another_account_is_refused(plugin: GcpPlugin, tmp_path: Path) -> None:
    """Vault knows whom the role is bound to."""
    error = refused(plugin, credentials_file=key_file(tmp_path, DEPLOYER))
    assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED)


def test_a_key_that_was_replaced_is_used_at_the_next_login(
    plugin: GcpPlugin, tmp_path: Path
) -> None:
    """The file is read anew each time."""
    path = key_file(tmp_path, DEPLOYER)
    refused(plugin, credentials_file=path)
    path.write_text(key_file(tmp_path, GATEWAY).read_text())
    login(plugin, credentials_file=path)
    assert plugin.logins


@pytest.mark.parametrize(
    "text", ["s3cr3t", "[]", "{}", '{"client_email": "a@b.c", "private_key": "s3cr3t"}']
)
def test_a_file_that_is_no_key_is_refused(plugin: GcpPlugin, tmp_path: Path, text: str) -> None:
    """With its name, and without a word of what is in it."""
    path = tmp_path / "key.json"
    path.write_text(text)
    error = refused(plugin, credentials_file=path)
    assert error.failure.verdict is Verdict.REFUSED
    assert error.detail == str(path)


def test_google_signs_for_a_key_that_may_act_for_the_account(
    plugin: GcpPlugin, iam: GoogleIam, tmp_path: Path
) -> None:
    """``service_account`` beside another account's key: signJwt of the IAM credentials API."""
    path = key_file(tmp_path, DEPLOYER, f"{iam.address}/token")
    login(plugin, credentials_file=path, service_account=GATEWAY)
    assert plugin.logins == [{"service_account_email": GATEWAY}]
    assert iam.signed == 1


def test_google_signs_for_the_default_credentials_of_a_file(
    plugin: GcpPlugin, iam: GoogleIam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GOOGLE_APPLICATION_CREDENTIALS, as with Google's own programs."""
    path = key_file(tmp_path, DEPLOYER, f"{iam.address}/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    login(plugin, service_account=GATEWAY)
    assert (plugin.logins, iam.signed) == ([{"service_account_email": GATEWAY}], 1)


def test_google_signs_for_the_machines_default_credentials(
    plugin: GcpPlugin, iam: GoogleIam, machine: GoogleMetadata
) -> None:
    """A pod with workload identity, or an instance, that acts for the account."""
    login(plugin, service_account=GATEWAY)
    assert (plugin.logins, iam.signed) == ([{"service_account_email": GATEWAY}], 1)


def test_google_refuses_to_sign_for_an_account(
    plugin: GcpPlugin, iam: GoogleIam, machine: GoogleMetadata
) -> None:
    """The words name the role that is missing; Google's own stay out."""
    error = refused(plugin, service_account=DEPLOYER)
    assert error.failure.verdict is Verdict.REFUSED
    assert "roles/iam.serviceAccountTokenCreator" in error.failure.reason
    assert not plugin.heard


def test_no_default_credentials_are_worth_another_try(plugin: GcpPlugin) -> None:
    """The metadata server of a new pod may not answer yet."""
    error = refused(plugin, service_account=GATEWAY)
    assert error.failure.verdict is Verdict.RETRY
    assert error.failure.reason.startswith("no Google credentials were found")


def test_a_key_that_google_does_not_know_any_more_is_refused(
    plugin: GcpPlugin, iam: GoogleIam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A deleted key buys no access token; nothing that Google wrote is told."""
    path = key_file(tmp_path, DEPLOYER, f"{iam.address}/token")
    monkeypatch.setitem(ACCOUNTS, DEPLOYER, Issuer("key-9"))
    error = refused(plugin, credentials_file=path, service_account=GATEWAY)
    assert (error.failure.verdict, error.detail) == (Verdict.REFUSED, "RefreshError")


def test_no_token_or_key_gets_into_a_log(
    plugin: GcpPlugin,
    iam: GoogleIam,
    machine: GoogleMetadata,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even when everything else logs at debug."""
    caplog.set_level(logging.DEBUG)
    login(plugin, service_account=GATEWAY)
    login(plugin, "machine", type="gce")
    assert "ya29." not in caplog.text
    assert "eyJ" not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("google")]
