"""Azure: the token of a managed identity, and where the machine that has it stands.

Vault checks the token by itself. A role that is bound to subscriptions, resource groups,
locations or scale sets also looks the machine up, so its names go along. Most of what it says
comes with status 500. Sources: ``path_login.go`` of vault-plugin-auth-azure 0.22, and go-oidc,
which checks the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from vaultauthz.config.auth import (
    LIST_ROLES,
    READ_BOTH,
    READ_CONFIG,
    ROLE,
    LoginRequest,
    Refusal,
    RefusedLogin,
    RoleMethod,
    ServiceReply,
    Surroundings,
    fields_in,
    keys_of,
    no_login,
    not_this_identity,
    token_in,
)
from vaultauthz.config.keys import Key
from vaultauthz.config.kinds import TEXT
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret

_WHO: Final = "Azure's metadata service"
_APP_WHO: Final = "the app's identity endpoint"
_METADATA: Final = "http://169.254.169.254"
_VERSION: Final = "2018-02-01"
_APP_VERSION: Final = "2019-08-01"
_PRINCIPALS: Final = (
    "write bound_service_principal_ids (the object ID of the identity's service principal, "
    "`az identity show --query principalId`; not its client ID) or bound_group_ids"
)
_PLACES: Final = "bound_subscription_ids, bound_resource_groups, bound_locations, bound_scale_sets"


@dataclass(frozen=True, slots=True)
class Azure(RoleMethod):
    """A managed identity; ``client_id`` names a user-assigned one."""

    name: ClassVar[str] = "azure"
    first: ClassVar[str] = "role: gateway"

    role: str
    resource: str = "https://management.azure.com/"
    client_id: str = ""
    mount: str = "azure"

    def login(self, here: Surroundings) -> LoginRequest:
        """As the managed identity, with a new token and what is known of the machine."""
        endpoint = here.environ.get("IDENTITY_ENDPOINT")
        header = here.environ.get("IDENTITY_HEADER")
        if endpoint and header:  # App Service, Functions, Container Apps: these have no IMDS
            headers, params = {"X-IDENTITY-HEADER": header}, self._params(_APP_VERSION)
            token = _token(_APP_WHO, here.asked(_APP_WHO, endpoint, headers, params))
            place = _app(here.environ)
        else:
            token, place = self._machine_token(here), _machine(here)
        return LoginRequest(f"{self.at}/login", {"role": self.role, "jwt": token, **place})

    def _machine_token(self, here: Surroundings) -> Secret:
        url = f"{_metadata(here.environ)}/metadata/identity/oauth2/token"
        reply = here.asked(_WHO, url, {"Metadata": "true"}, self._params(_VERSION))
        return _token(_WHO, reply)

    def _params(self, version: str) -> dict[str, str]:
        params = {"api-version": version, "resource": self.resource}
        return {**params, "client_id": self.client_id} if self.client_id else params

    refusals: ClassVar = (
        Refusal(
            ("both cannot be empty",),
            "the role has neither bound_service_principal_ids nor bound_group_ids, or `*` for both, and "
            "Vault takes no such role, whatever else it is bound to",
            _PRINCIPALS,
        ),
        Refusal(
            ("service principal not authorized",),
            "bound_service_principal_ids of the role does not have this identity's object ID",
            _PRINCIPALS + "; Vault's answer has the ID that came, if it is not hidden here",
        ),
        Refusal(
            ("groups not authorized",),
            "this identity is in none of the role's bound_group_ids",
            "put the identity into the group, or bind the role to bound_service_principal_ids; a token "
            "that was issued before the group was joined is used for up to a day",
        ),
        Refusal(
            ("subscription not authorized",),
            "bound_subscription_ids of the role are others than this machine's",
            "compare bound_subscription_ids",
        ),
        Refusal(
            ("resource group not authorized",),
            "bound_resource_groups of the role are others than this machine's",
            "compare bound_resource_groups",
        ),
        Refusal(
            ("location not authorized", "location is empty"),
            "bound_locations of the role are others than this machine's, or this is no machine: Vault "
            "knows no location of an App Service or a Function",
            "compare bound_locations",
        ),
        Refusal(
            ("scale set not authorized", "bound scale set defined", "requires the vmss_name"),
            "bound_scale_sets of the role are others than this machine's, or it is in none",
            "compare bound_scale_sets",
        ),
        Refusal(
            (
                "subscription_id and resource_group_name are required",
                "one of vm_name, vmss_name, resource_id",
                "does not match resource_group_name",
            ),
            f"the role is bound to a place ({_PLACES}), and nothing here tells the place",
            "bind the role to bound_service_principal_ids only",
        ),
        Refusal(
            ("token object id", "xms_az_rid", "xms_mirid", "no app id was found"),
            "the token is of an identity that the machine does not have, as Vault reads the machine from "
            "Azure",
            "assign the identity to this machine, or correct client_id",
        ),
        Refusal(
            (
                "unable to retrieve virtual machine",
                "unable to retrieve user assigned identity",
                "unable to get the provider",
                "did not return identity information",
                "failed to create client",
            ),
            f"the role is bound to a place ({_PLACES}), and Vault's own application cannot look the "
            "machine up in Azure",
            "give it the role Reader on the resource group (Microsoft.Compute/virtualMachines/read and "
            "virtualMachineScaleSets/read), or bind the role to bound_service_principal_ids only",
            READ_BOTH,
        ),
        Refusal(
            ("expected audience",),
            "resource here is not Vault's resource, letter by letter",
            "write Vault's resource into resource",
            READ_CONFIG,
        ),
        Refusal(
            ("issued by a different provider",),
            "the token is of another tenant than Vault's tenant_id",
            "correct tenant_id in Vault, or have the identity made in that tenant",
            READ_CONFIG,
        ),
        Refusal(
            ("token is expired", "token is not yet valid", "before the nbf"),
            "Vault finds the token too old or not yet valid: a clock is wrong",
            "set the clocks (NTP) of Vault's machine and of this one",
            (),
        ),
        Refusal(
            ("failed to verify signature", "fetching keys"),
            "Vault cannot check the token's signature: Azure's keys cannot be fetched, or the token is of "
            "another cloud than Vault's environment",
            "let Vault out to login.microsoftonline.com, and check its tenant_id and environment",
            READ_CONFIG,
        ),
        Refusal(
            ("tenant_id is required", "resource is required", "failed to create client secret"),
            "Vault's method is not configured in full",
            "write tenant_id, resource, client_id and client_secret",
            READ_CONFIG,
        ),
        Refusal(
            ("invalid role name",),
            "there is no such role",
            "correct role, or write it in Vault",
            LIST_ROLES,
        ),
    )

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        return not_this_identity(self)


def _token(who: str, reply: ServiceReply) -> Secret:
    if reply.status == 400:
        text = f"{who} has no such managed identity, or it does not know the resource"
        raise no_login(text, Verdict.REFUSED)
    if reply.status != 200:  # 404 and 410 too: it answers so while it is updated
        raise no_login(f"{who} answered {reply.status}")
    return token_in(who, fields_in(who, reply).get("access_token"))


def _machine(here: Surroundings) -> dict[str, str]:
    url = f"{_metadata(here.environ)}/metadata/instance"
    reply = here.asked(_WHO, url, {"Metadata": "true"}, {"api-version": _VERSION})
    if reply.status == 404:  # a container group: it has an identity, but is no machine
        return {}
    if reply.status != 200:
        raise no_login(f"{_WHO} answered {reply.status}")
    compute: Any = fields_in(_WHO, reply).get("compute")
    if not isinstance(compute, dict):
        raise no_login(f"the answer of {_WHO} says nothing of the machine")
    names = {
        "subscription_id": compute.get("subscriptionId"),
        "resource_group_name": compute.get("resourceGroupName"),
        "vm_name": compute.get("name"),
        "vmss_name": compute.get("vmScaleSetName"),
    }
    return {key: value for key, value in names.items() if value and isinstance(value, str)}


def _app(environ: Mapping[str, str]) -> dict[str, str]:
    """What App Service and Functions tell an app of itself; {} elsewhere.

    Vault looks an app up by its resource_id.
    """
    subscription = environ.get("WEBSITE_OWNER_NAME", "").partition("+")[0]
    group = environ.get("WEBSITE_RESOURCE_GROUP", "")
    site = environ.get("WEBSITE_SITE_NAME", "")
    if not (subscription and group and site):
        return {}
    path = f"/subscriptions/{subscription}/resourceGroups/{group}"
    return {
        "subscription_id": subscription,
        "resource_group_name": group,
        "resource_id": f"{path}/providers/Microsoft.Web/sites/{site}",
    }


def _metadata(environ: Mapping[str, str]) -> str:
    """The service's address; azure-identity honours the same variable."""
    return environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", "").rstrip("/") or _METADATA


Azure.keys = keys_of(
    Azure,
    ROLE,
    Key("resource", TEXT, "Whom the token is for.", "As Vault has it configured."),
    Key(
        "client_id",
        TEXT,
        "Of a user-assigned managed identity.",
        "Without it the system-assigned one.",
    ),
)
