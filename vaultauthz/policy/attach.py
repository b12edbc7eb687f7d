"""The commands around a policy: how it is written, and given to a stage's login."""

from __future__ import annotations

import shlex
from typing import Final

from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.values import Config

_HEADER: Final = "sys/config/auditing/request-headers/X-Correlation-Id"


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


def _attach(method: AuthMethod, policy: str, namespace: list[str]) -> list[str]:
    how = method.attached(policy)
    commands = (shlex.join(["bao", *verb, *namespace, *rest]) for verb, rest in how.commands)
    return [how.sentence, *(f"  {command}" for command in commands)]
