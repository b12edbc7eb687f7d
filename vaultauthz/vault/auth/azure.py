"""Azure: the token of a managed identity, and where the machine that has it stands.

Vault checks the token by itself. A role that is bound to subscriptions, resource groups,
locations or scale sets also looks the machine up, so its names go along.
Source: vault-plugin-auth-azure, ``path_login.go``.
"""

from __future__ import annotations

import os
from typing import Any, Final, cast

from vaultauthz.config.methods import Azure
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault import paths
from vaultauthz.vault.auth import cloud
from vaultauthz.vault.errors import Call
from vaultauthz.vault.transport import Answer, Transport

_WHO: Final = "Azure's metadata service"
_APP_WHO: Final = "the app's identity endpoint"
_METADATA: Final = "http://169.254.169.254"
_VERSION: Final = "2018-02-01"
_APP_VERSION: Final = "2019-08-01"


def login(transport: Transport, auth: Azure) -> Answer:
    """Log in as the managed identity, with a new token and what is known of the machine."""
    endpoint, header = os.environ.get("IDENTITY_ENDPOINT"), os.environ.get("IDENTITY_HEADER")
    if endpoint and header:  # App Service, Functions, Container Apps: these have no IMDS
        token, place = _app_token(auth, endpoint, Secret(header)), _app_place()
    else:
        token, place = _machine_token(auth), _machine_place()
    transport.call = Call.LOGIN
    # hvac's own login() has no resource_id, which apps are looked up by.
    answer = transport.login(
        url=paths.url(f"auth/{auth.mount}/login"),
        use_token=False,
        json={"role": auth.role, "jwt": token.reveal(), **place},
    )
    return cast(Answer, answer)


def _machine_token(auth: Azure) -> Secret:
    params = _asked(auth, _VERSION)
    reply = cloud.exchange(
        _WHO,
        f"{_metadata()}/metadata/identity/oauth2/token",
        headers={"Metadata": "true"},
        params=params,
    )
    return _token(_WHO, reply)


def _app_token(auth: Azure, endpoint: str, header: Secret) -> Secret:
    reply = cloud.exchange(
        _APP_WHO,
        endpoint,
        headers={"X-IDENTITY-HEADER": header.reveal()},
        params=_asked(auth, _APP_VERSION),
    )
    return _token(_APP_WHO, reply)


def _asked(auth: Azure, version: str) -> dict[str, str]:
    params = {"api-version": version, "resource": auth.resource}
    return {**params, "client_id": auth.client_id} if auth.client_id else params


def _token(who: str, reply: cloud.Reply) -> Secret:
    if reply.status == 400:
        text = f"{who} has no such managed identity, or it does not know the resource"
        raise cloud.failed(text, verdict=Verdict.REFUSED)
    if reply.status != 200:  # 404 and 410 too: it answers so while it is updated
        raise cloud.failed(f"{who} answered {reply.status}")
    return cloud.as_token(who, cloud.fields(who, reply).get("access_token"))


def _machine_place() -> dict[str, str]:
    reply = cloud.exchange(
        _WHO,
        f"{_metadata()}/metadata/instance",
        headers={"Metadata": "true"},
        params={"api-version": _VERSION},
    )
    if reply.status == 404:  # a container group: it has an identity, but is no machine
        return {}
    if reply.status != 200:
        raise cloud.failed(f"{_WHO} answered {reply.status}")
    compute: Any = cloud.fields(_WHO, reply).get("compute")
    if not isinstance(compute, dict):
        raise cloud.failed(f"the answer of {_WHO} says nothing of the machine")
    names = {
        "subscription_id": compute.get("subscriptionId"),
        "resource_group_name": compute.get("resourceGroupName"),
        "vm_name": compute.get("name"),
        "vmss_name": compute.get("vmScaleSetName"),
    }
    return {key: value for key, value in names.items() if value and isinstance(value, str)}


def _app_place() -> dict[str, str]:
    """What App Service and Functions tell an app of itself; {} elsewhere."""
    subscription = os.environ.get("WEBSITE_OWNER_NAME", "").partition("+")[0]
    group = os.environ.get("WEBSITE_RESOURCE_GROUP", "")
    site = os.environ.get("WEBSITE_SITE_NAME", "")
    if not (subscription and group and site):
        return {}
    path = f"/subscriptions/{subscription}/resourceGroups/{group}"
    return {
        "subscription_id": subscription,
        "resource_group_name": group,
        "resource_id": f"{path}/providers/Microsoft.Web/sites/{site}",
    }


def _metadata() -> str:
    """The service's address; azure-identity honours the same variable."""
    return os.environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", "").rstrip("/") or _METADATA
