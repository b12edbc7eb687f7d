"""The azure login against Vault's plugin: machines, scale sets and apps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.azure_plugin import AzurePlugin
from tests.contract.cloud_http import CloudService, Told
from tests.contract.metadata import AzureMetadata
from tests.contract.signed_tokens import Issuer
from vaultauthz.config.auth.azure import Azure
from vaultauthz.config.values import Vault
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

MICROSOFT = Issuer("microsoft-1")
RESOURCE = "https://management.azure.com/"
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
SITE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/apps/providers/Microsoft.Web/sites/gateway"
MACHINES = {"gateway-vm": "oid-system", "gateway-set": "oid-user", SITE: "oid-system"}
PLACE = {"subscription_id": SUBSCRIPTION, "resource_group_name": "edge"}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that is no app's, and no metadata service."""
    for name in os.environ:
        if name.startswith(("IDENTITY_", "WEBSITE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")


@pytest.fixture
def plugin() -> Iterator[AzurePlugin]:
    """A Vault with the azure method."""
    with AzurePlugin(MICROSOFT, RESOURCE, MACHINES) as vault:
        yield vault


@pytest.fixture
def imds(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMetadata]:
    """The metadata service of a machine with its own identity and a user-assigned one."""
    with AzureMetadata(MICROSOFT, {"": "oid-system", "client-1": "oid-user"}) as service:
        service.compute = {
            "name": "gateway-vm",
            "resourceGroupName": "edge",
            "subscriptionId": SUBSCRIPTION,
            "vmScaleSetName": "",
            "location": "westeurope",
        }
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"{service.address}/")
        yield service


@pytest.fixture
def app(imds: AzureMetadata, monkeypatch: pytest.MonkeyPatch) -> AzureMetadata:
    """The identity endpoint of an App Service."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{imds.address}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", imds.header)
    monkeypatch.setenv("WEBSITE_OWNER_NAME", f"{SUBSCRIPTION}+apps-WestEuropewebspace-Linux")
    monkeypatch.setenv("WEBSITE_RESOURCE_GROUP", "apps")
    monkeypatch.setenv("WEBSITE_SITE_NAME", "gateway")
    return imds


def login(plugin: AzurePlugin, role: str = "gateway", **settings: Any) -> Grant:
    """Log in, as a stage does."""
    return Session(Vault(plugin.address), Azure(role, **settings), time.monotonic).login()


def refused(plugin: AzurePlugin, role: str = "gateway", **settings: Any) -> VaultError:
    """The error of a login that must not work; it quotes nobody."""
    with pytest.raises(VaultError) as caught:
        login(plugin, role, **settings)
    assert "s3cr3t" not in f"{caught.value!r} {caught.value.detail}"
    return caught.value


def test_a_machine_logs_in_and_says_where_it_is(plugin: AzurePlugin, imds: AzureMetadata) -> None:
    """A role that is bound to a resource group can look it up."""
    plugin.bound_group = "edge"
    assert login(plugin).payload.reveal() == "hvs.cl0ud"
    assert plugin.logins == [{**PLACE, "vm_name": "gateway-vm"}]


def test_a_machine_of_a_scale_set_logs_in(plugin: AzurePlugin, imds: AzureMetadata) -> None:
    """Vault looks up the set in place of the machine; the identity is a user-assigned one."""
    imds.compute = {
        **(imds.compute or {}),
        "name": "gateway-set_0",
        "vmScaleSetName": "gateway-set",
    }
    plugin.bound_group = "edge"
    login(plugin, client_id="client-1")
    names = {"vm_name": "gateway-set_0", "vmss_name": "gateway-set"}
    assert plugin.logins == [{**PLACE, **names}]


def test_a_container_that_is_no_machine_logs_in(plugin: AzurePlugin, imds: AzureMetadata) -> None:
    """Its identity is enough for a role that is bound to identities."""
    imds.compute = None
    login(plugin)
    assert plugin.logins == [{}]


def test_an_app_logs_in(plugin: AzurePlugin, app: AzureMetadata) -> None:
    """App Service and Functions: their own endpoint, and the resource in place of a machine."""
    plugin.bound_group = "apps"
    login(plugin)
    place = {"subscription_id": SUBSCRIPTION, "resource_group_name": "apps", "resource_id": SITE}
    assert plugin.logins == [place]
    assert [asked.path for asked in app.heard] == ["/msi/token"]


def test_a_container_app_logs_in(
    plugin: AzurePlugin, app: AzureMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same endpoint and is told less of itself."""
    monkeypatch.delenv("WEBSITE_OWNER_NAME")
    login(plugin, client_id="client-1")
    assert plugin.logins == [{}]


def test_an_app_with_a_wrong_header_keeps_it_to_itself(
    plugin: AzurePlugin, app: AzureMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the endpoint says, the header's value is in no error."""
    monkeypatch.setenv("IDENTITY_HEADER", "wr0ng-s3cr3t")
    assert "answered 401" in refused(plugin).failure.reason
    monkeypatch.setenv("IDENTITY_HEADER", "s3cr3t\nX-Other: 1")
    assert refused(plugin).failure.verdict is Verdict.RETRY


def test_a_role_that_does_not_exist_is_refused(plugin: AzurePlugin, imds: AzureMetadata) -> None:
    """As Vault's 400 says."""
    error = refused(plugin, "nobody")
    assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED)


def test_a_token_for_another_resource_does_not_log_in(
    plugin: AzurePlugin, imds: AzureMetadata
) -> None:
    """The plugin answers 500 to what its verifier finds, so it is tried again."""
    error = refused(plugin, resource="https://vault.example/")
    assert (error.status, error.failure.verdict) == (500, Verdict.RETRY)
    assert "expected audience" in error.detail


def test_an_identity_that_is_not_assigned_is_refused(
    plugin: AzurePlugin, imds: AzureMetadata
) -> None:
    """Somebody has to assign it; Vault is not asked."""
    error = refused(plugin, client_id="client-9")
    assert error.failure.verdict is Verdict.REFUSED
    assert "no such managed identity" in error.failure.reason
    assert not plugin.heard


def test_a_machine_without_a_metadata_service_waits_for_it(plugin: AzurePlugin) -> None:
    """It may only be starting; the words say what was asked."""
    error = refused(plugin)
    reason = "Azure's metadata service cannot be reached"
    assert (error.failure.verdict, error.failure.reason) == (Verdict.RETRY, reason)
    assert not error.failure.away  # Vault is not what is missing


@pytest.mark.parametrize("status", [404, 410, 429, 500, 302])
def test_a_metadata_service_that_is_busy_is_asked_again(
    plugin: AzurePlugin, imds: AzureMetadata, status: int
) -> None:
    """404 and 410 too: it answers so while it is updated."""
    imds.status = status
    assert refused(plugin).failure.verdict is Verdict.RETRY


@pytest.mark.parametrize(
    "told",
    [
        Told(200, "<html>"),
        Told(200, {"access_token": "two\nlines"}),
        Told(200, {"access_token": 7}),
        Told(200, {}),
        Told(200, "[]"),
        Told(200, "x" * (1 << 21)),
        Told(307, "", {"Location": "http://127.0.0.1:1/"}),
    ],
)
def test_what_is_no_token_is_not_sent_to_vault(
    plugin: AzurePlugin, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    """A portal's page, another form, more than a token can be, another address."""
    with CloudService(lambda asked: told) as service:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.address)
        assert refused(plugin).failure.verdict is Verdict.RETRY
    assert not plugin.heard


@pytest.mark.parametrize("compute", ["text", ["list"], None])
def test_a_machine_that_is_not_described_is_asked_again(
    plugin: AzurePlugin, monkeypatch: pytest.MonkeyPatch, compute: object
) -> None:
    """A login without its place would be refused by a role that is bound to one."""
    answers = {"/metadata/identity/oauth2/token": {"access_token": "a.b.c"}}
    with CloudService(
        lambda asked: Told(200, answers.get(asked.path, {"compute": compute}))
    ) as bad:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", bad.address)
        assert "says nothing of the machine" in refused(plugin).failure.reason


def test_a_proxy_of_the_environment_sees_no_identity(
    plugin: AzurePlugin, imds: AzureMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata service is asked directly; it refuses what came through a proxy."""
    with CloudService(lambda asked: Told(200, {"access_token": "p.r.oxy"})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        monkeypatch.setenv("http_proxy", proxy.address)
        login(plugin)
    assert not proxy.heard
