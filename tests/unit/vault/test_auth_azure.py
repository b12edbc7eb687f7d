"""What an Azure app knows of itself, and what is asked for which identity."""

from __future__ import annotations

import pytest

from vaultauthz.config.auth import azure
from vaultauthz.config.auth.azure import Azure

APP = {
    "WEBSITE_OWNER_NAME": "sub-1+apps-WestEuropewebspace-Linux",
    "WEBSITE_RESOURCE_GROUP": "apps",
    "WEBSITE_SITE_NAME": "gateway",
}


def test_an_app_is_a_resource() -> None:
    """Its id is put together as Azure writes it."""
    path = "/subscriptions/sub-1/resourceGroups/apps/providers/Microsoft.Web/sites/gateway"
    assert azure._app(APP) == {
        "subscription_id": "sub-1",
        "resource_group_name": "apps",
        "resource_id": path,
    }


@pytest.mark.parametrize("name", APP)
def test_half_a_place_is_none(name: str) -> None:
    """Vault would look up something else."""
    assert azure._app({key: value for key, value in APP.items() if key != name}) == {}


def test_a_user_assigned_identity_is_named() -> None:
    """Without a client id it is the system's own."""
    assert Azure("r")._params("v") == {"api-version": "v", "resource": Azure("r").resource}
    assert Azure("r", client_id="c")._params("v")["client_id"] == "c"


@pytest.mark.parametrize(
    ("given", "used"),
    [("", "http://169.254.169.254"), ("http://127.0.0.1:2579/", "http://127.0.0.1:2579")],
)
def test_the_metadata_service_can_be_elsewhere(given: str, used: str) -> None:
    """By the variable that azure-identity honours."""
    assert azure._metadata({"AZURE_POD_IDENTITY_AUTHORITY_HOST": given}) == used
