"""Azure: ``path_login.go`` of vault-plugin-auth-azure 0.22, and go-oidc, which checks the token.

Most of it comes with status 500.
"""

from __future__ import annotations

from typing import Final

from vaultauthz.doctor.words.said import BOTH, CONFIG, ROLES, Said

_PRINCIPALS: Final = (
    "write bound_service_principal_ids (the object ID of the identity's service principal, "
    "`az identity show --query principalId`; not its client ID) or bound_group_ids"
)
_PLACES: Final = "bound_subscription_ids, bound_resource_groups, bound_locations, bound_scale_sets"

ROWS: Final = (
    Said(
        ("both cannot be empty",),
        "the role has neither bound_service_principal_ids nor bound_group_ids, or `*` for both, and "
        "Vault takes no such role, whatever else it is bound to",
        _PRINCIPALS,
    ),
    Said(
        ("service principal not authorized",),
        "bound_service_principal_ids of the role does not have this identity's object ID",
        _PRINCIPALS + "; Vault's answer has the ID that came, if it is not hidden here",
    ),
    Said(
        ("groups not authorized",),
        "this identity is in none of the role's bound_group_ids",
        "put the identity into the group, or bind the role to bound_service_principal_ids; a token "
        "that was issued before the group was joined is used for up to a day",
    ),
    Said(
        ("subscription not authorized",),
        "bound_subscription_ids of the role are others than this machine's",
        "compare bound_subscription_ids",
    ),
    Said(
        ("resource group not authorized",),
        "bound_resource_groups of the role are others than this machine's",
        "compare bound_resource_groups",
    ),
    Said(
        ("location not authorized", "location is empty"),
        "bound_locations of the role are others than this machine's, or this is no machine: Vault "
        "knows no location of an App Service or a Function",
        "compare bound_locations",
    ),
    Said(
        ("scale set not authorized", "bound scale set defined", "requires the vmss_name"),
        "bound_scale_sets of the role are others than this machine's, or it is in none",
        "compare bound_scale_sets",
    ),
    Said(
        (
            "subscription_id and resource_group_name are required",
            "one of vm_name, vmss_name, resource_id",
            "does not match resource_group_name",
        ),
        f"the role is bound to a place ({_PLACES}), and nothing here tells the place",
        "bind the role to bound_service_principal_ids only",
    ),
    Said(
        ("token object id", "xms_az_rid", "xms_mirid", "no app id was found"),
        "the token is of an identity that the machine does not have, as Vault reads the machine from "
        "Azure",
        "assign the identity to this machine, or correct client_id",
    ),
    Said(
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
        BOTH,
    ),
    Said(
        ("expected audience",),
        "resource here is not Vault's resource, letter by letter",
        "write Vault's resource into resource",
        CONFIG,
    ),
    Said(
        ("issued by a different provider",),
        "the token is of another tenant than Vault's tenant_id",
        "correct tenant_id in Vault, or have the identity made in that tenant",
        CONFIG,
    ),
    Said(
        ("token is expired", "token is not yet valid", "before the nbf"),
        "Vault finds the token too old or not yet valid: a clock is wrong",
        "set the clocks (NTP) of Vault's machine and of this one",
        (),
    ),
    Said(
        ("failed to verify signature", "fetching keys"),
        "Vault cannot check the token's signature: Azure's keys cannot be fetched, or the token is of "
        "another cloud than Vault's environment",
        "let Vault out to login.microsoftonline.com, and check its tenant_id and environment",
        CONFIG,
    ),
    Said(
        ("tenant_id is required", "resource is required", "failed to create client secret"),
        "Vault's method is not configured in full",
        "write tenant_id, resource, client_id and client_secret",
        CONFIG,
    ),
    Said(
        ("invalid role name",), "there is no such role", "correct role, or write it in Vault", ROLES
    ),
)
