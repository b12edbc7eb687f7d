"""The commands around a policy: how it is written, and given to a stage's login."""

from __future__ import annotations

import shlex
from typing import Final, assert_never

from vaultauthz.config.methods import (
    AppRole,
    Auth,
    Aws,
    Azure,
    Cert,
    Gcp,
    Jwt,
    Kubernetes,
    Ldap,
    TokenFile,
    UserPass,
)
from vaultauthz.config.values import Config

_HEADER: Final = "sys/config/auditing/request-headers/X-Correlation-Id"
_ROLE: Final = "ROLE"  # where the configuration does not know the role's name


def policy_name(stage: str) -> str:
    """In lower case, as Vault keeps the names of policies."""
    return f"vaultauthz-{stage}".lower()


def header(config: Config, stage: str) -> list[str]:
    """What stands above the policy: what it is, and the commands that put it to use."""
    name, namespace = policy_name(stage), _namespace(config, stage)
    printed = shlex.join(["vaultauthz", "policy", "--stage", stage])
    return [
        f"Policy {name}: what vaultauthz asks of Vault in stage {stage}, and nothing else.",
        "With HashiCorp's Vault, say vault for bao.",
        "",
        "Write it:",
        f"  {printed} | {shlex.join(['bao', 'policy', 'write', *namespace, name, '-'])}",
        *_attach(config.stages[stage].auth, name, namespace),
        "See X-Correlation-Id in Vault's audit log, to join it with ours (once for the server):",
        f"  bao write {_HEADER} hmac=false",
    ]


def _namespace(config: Config, stage: str) -> list[str]:
    namespace = config.vault_of(stage).namespace
    return [f"-namespace={namespace}"] if namespace else []


def _attach(auth: Auth, name: str, namespace: list[str]) -> list[str]:
    if isinstance(auth, TokenFile):
        return [
            "Give it to whatever makes the token in the file: the role that its agent logs in by, or",
            f"  {shlex.join(['bao', 'token', 'create', *namespace, f'-policy={name}'])} -no-default-policy",
        ]
    write = ["bao", "write", *namespace]
    if isinstance(auth, Ldap):
        user, config = f"auth/{auth.mount}/users/{auth.username}", f"auth/{auth.mount}/config"
        return [
            "Give it to the user, and no `default` beside it (for all of this mount):",
            f"  {shlex.join([*write, user, f'policies={name}'])}",
            f"  {shlex.join([*write, config, 'token_no_default_policy=true'])}",
        ]
    role = f"auth/{auth.mount}/{_role(auth)}"
    alone = [f"token_policies={name}", "token_no_default_policy=true"]
    if isinstance(auth, Jwt):
        alone.insert(0, "role_type=jwt")  # without it Vault takes the role for one of OIDC
    return [
        "Give it to the login, in place of any other policy"
        + (f" ({_ROLE}: its role's name):" if role.endswith(f"/{_ROLE}") else ":"),
        f"  {shlex.join([*write, role, *alone])}",
    ]


def _role(
    auth: AppRole | Kubernetes | Jwt | Cert | UserPass | Aws | Gcp | Azure,
) -> str:
    """Where the method keeps what a login's policies come from."""
    match auth:
        case AppRole():
            return f"role/{_ROLE}"
        case Cert():
            return f"certs/{auth.role or _ROLE}"
        case UserPass():
            return f"users/{auth.username}"
        case Kubernetes() | Jwt() | Aws() | Gcp() | Azure():
            return f"role/{auth.role}"
        case _:
            assert_never(auth)
