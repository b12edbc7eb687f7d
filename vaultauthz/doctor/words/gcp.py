"""Google Cloud: ``plugin/path_login.go`` and ``authorizer_gce.go`` of vault-plugin-auth-gcp 0.22."""

from __future__ import annotations

from typing import Final

from vaultauthz.doctor.words.said import BOTH, CONFIG, ROLES, Said

ROWS: Final = (
    Said(
        ("is not authorized for role", "not in bound service accounts"),
        "bound_service_accounts of the role does not have this service account",
        "add the account's e-mail to bound_service_accounts",
    ),
    Said(
        ("not in bound projects",),
        "bound_projects of the role does not have this project",
        "add the project's ID (not its number) to bound_projects",
    ),
    Said(
        ("jwts expire within",),
        "the token lives for 5 minutes, and max_jwt_exp of the role is less",
        "raise max_jwt_exp to 10m or more",
    ),
    Said(
        ("jwt must expire in", "jwt is expired", "does not have proper 'exp'"),
        "Vault finds the token expired, or too long from its end: a clock is wrong",
        "set the clocks (NTP) of Vault's machine and of this one",
        (),
    ),
    Said(
        ("claim 'aud' must end in",),
        "the token's audience is not `vault/` and the role's name",
        "correct role: the token is made for the role that the configuration names",
        ROLES,
    ),
    Said(
        ("got gce token but iam role",),
        "the role is of type iam, and the configuration logs in by gce",
        "set type: iam here, or use a role of type gce",
    ),
    Said(
        ("claims with gce metadata", "could not get gce metadata"),
        "the role is of type gce, and the token is not an instance's",
        "use a role of type iam with type: iam; a GKE pod with workload identity has no instance "
        "identity of its own",
    ),
    Said(
        ("not in bound zones", "not in bound regions"),
        "bound_zones or bound_regions of the role are others than this instance's",
        "compare bound_zones and bound_regions",
    ),
    Said(
        ("missing bound label",),
        "the instance has not the labels that bound_labels of the role names",
        "label the instance, or correct bound_labels",
    ),
    Said(
        ("instance group", "list instances in"),
        "the instance is in none of the role's bound_instance_groups, or Vault may not list them",
        "compare bound_instance_groups; Vault's own credentials need compute.instanceGroups.list",
        BOTH,
    ),
    Said(
        ("attempting to find instance",),
        "Vault cannot look the instance up",
        "give Vault's own credentials compute.instances.get in the instance's project",
        BOTH,
    ),
    Said(
        ("could not find service account", "iam.serviceaccounts.get"),
        "Vault cannot look the service account up",
        "give Vault's own credentials iam.serviceAccounts.get on it",
        BOTH,
    ),
    Said(
        ("unable to get public key",),
        "Vault has not the key that signed: it cannot reach Google, the key was deleted, or the "
        "role is of type gce and an account signed",
        "let Vault out to www.googleapis.com; give its own credentials "
        "iam.serviceAccountKeys.get; compare the role's type with ours",
        BOTH,
    ),
    Said(
        ("default credentials", "failed to create iam client", "failed to create compute client"),
        "Vault has no Google credentials of its own",
        "write credentials to the method, or run Vault with an identity of Google's",
        CONFIG,
    ),
    Said(
        ("role … not found", "role is required"),
        "there is no such role",
        "correct role, or write it in Vault",
        ROLES,
    ),
)
