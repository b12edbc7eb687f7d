"""Each method of a stage's ``auth``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from vaultauthz.config import auth, auth_clouds
from vaultauthz.config.methods import Azure, Kubernetes
from vaultauthz.config.schema.forms import (
    Schema,
    choice,
    closed,
    exactly_one,
    file,
    flag,
    many,
    not_both,
    text,
)

_ROLE: Final = text("The role in Vault.")
_CREDENTIALS: Final = {
    "username": text("The user's name."),
    "password_file": file("Holds the password; read at each login."),
}


def methods() -> Sequence[Schema]:
    """``auth``: one of these."""
    return [_method(name) for name in auth.KEYS]


def _method(name: str) -> Schema:
    properties, required, rules = _METHODS[name]
    always = {"method": {"description": "The auth method.", "const": name}}
    if "mount" in auth.KEYS[name]:
        always["mount"] = text("Where it is mounted in Vault.", usual=name)
    return closed(
        auth.KEYS[name],
        {**always, **properties},
        f"Login by {name}.",
        required=("method", *required),
        **rules,
    )


_METHODS: Final[Mapping[str, tuple[Mapping[str, Schema], Sequence[str], Mapping[str, Any]]]] = {
    "approle": (
        {
            "role_id": text("The role's id."),
            "role_id_file": file("Holds the role's id; read at each login."),
            "secret_id": text("Better a file: a secret does not belong here."),
            "secret_id_file": file("Holds the secret_id; read at each login."),
            "secret_id_wrapped": flag(
                "The file holds a response-wrapping token, which gives the secret_id once."
            ),
        },
        (),
        {
            **exactly_one(("role_id", "role_id_file")),
            **not_both("secret_id", "secret_id_file"),
            "dependentRequired": {"secret_id_wrapped": ["secret_id_file"]},
        },
    ),
    "kubernetes": (
        {
            "role": _ROLE,
            "token_file": text(
                "The service account's token.", usual=str(Kubernetes("").token_file)
            ),
        },
        ("role",),
        {},
    ),
    "jwt": (
        {
            "role": _ROLE,
            "token_file": file("Holds the JWT; read at each login."),
            "token_command": many(
                text("A word of it."),
                "Prints the JWT: the program and its words; no shell is used.",
                least=1,
            ),
        },
        ("role",),
        exactly_one(("token_file", "token_command")),
    ),
    "cert": (
        {
            "client_cert": file("Our certificate, in PEM; default: vault.tls.client_cert."),
            "client_key": file("Its private key, in PEM; default: vault.tls.client_key."),
            "role": text("The certificate role; default: the one that fits."),
        },
        (),
        {"dependentRequired": {"client_cert": ["client_key"], "client_key": ["client_cert"]}},
    ),
    "userpass": (_CREDENTIALS, tuple(_CREDENTIALS), {}),
    "ldap": (_CREDENTIALS, tuple(_CREDENTIALS), {}),
    "aws": (
        {
            "role": _ROLE,
            "region": text("Of the STS endpoint, as in eu-central-1; default: the global one."),
            "server_id": text("The value of X-Vault-AWS-IAM-Server-ID that Vault wants."),
        },
        ("role",),
        {},
    ),
    "gcp": (
        {
            "role": _ROLE,
            "type": choice(
                auth_clouds.GCP_TYPES,
                "The instance's identity (gce), or a service account's (iam).",
                usual="gce",
            ),
            "service_account": text("With iam: the e-mail address to sign for."),
            "credentials_file": file("With iam: the service account's key, in JSON."),
        },
        ("role",),
        {},
    ),
    "azure": (
        {
            "role": _ROLE,
            "resource": text("Whom the token is for.", usual=Azure("").resource),
            "client_id": text("Of a user-assigned managed identity."),
        },
        ("role",),
        {},
    ),
    "token_file": (
        {
            "path": file("Holds a token that something else keeps fresh."),
            "allow_long_lived": flag("Accept a token that never ends."),
        },
        ("path",),
        {},
    ),
}
