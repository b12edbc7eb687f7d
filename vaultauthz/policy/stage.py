"""The policy of one stage: what was found out for it, its text, and how it is put to use."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.values import Config, KvSecret
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.policy import hcl
from vaultauthz.policy.hcl import PolicyError
from vaultauthz.policy.needs import Kind, Need, kv_path, needs
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.mounts import Mounts
from vaultauthz.vault.probe import Probe

_HEADER: Final = "sys/config/auditing/request-headers/X-Correlation-Id"


@dataclass(frozen=True, slots=True, eq=False)
class StagePolicy:
    """``kv_secrets``: the policy's KV paths → the secrets as the configuration has them."""

    stage: str
    namespace: str
    needs: tuple[Need, ...]
    text: str
    kv_secrets: dict[str, str]
    troubles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The policy's name in Vault."""
        return policy_name(self.stage)

    @property
    def warnings(self) -> Iterator[str]:
        """What the operator should know before using it."""
        if self.troubles:
            more = f" (and {len(self.troubles) - 1} more)" if len(self.troubles) > 1 else ""
            yield (
                f"stage {self.stage}: the KV version was not found out, version 2 is assumed: "
                f"{self.troubles[0]}{more}"
            )
        size = hcl.stored_size(self.text)
        if size > hcl.LARGEST:
            yield (
                f"stage {self.stage}: the policy takes {size:,} bytes in Vault, whose integrated "
                "storage takes 1 MiB unless max_entry_size says more; or make two stages of it"
            )

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        needs = [asdict(need) for need in self.needs]
        return {"policy": self.name, "hcl": self.text, "needs": needs}


# Vault asks for `create` where the engine says that nothing is there yet (its existence check).
_WRITES: Final = '(add "create" if Vault answers 403: some engines want it where nothing is yet)'


def _notes_on_writes(wanted: tuple[Need, ...]) -> dict[str, str]:
    """For paths that are written to; what issues certificates has no existence check."""
    return {
        need.path: _WRITES
        for need in wanted
        if "update" in need.capabilities and need.why.startswith(Kind.LEASE.value)
    }


def stage_policy(config: Config, stage: str, token: Secret | None) -> StagePolicy:
    """The policy; with a token, Vault is asked for the KV engines' mounts and versions.

    Raises:
        PolicyError: no policy can be written for it.
    """
    vault, found = config.vault_of(stage), _Engines()
    if token is not None:
        found = _ask(config, stage, Probe(vault, time.monotonic), token)
    wanted = needs(config, stage, found.mounts)
    notes = _notes(config, stage, found.mounts) | _notes_on_writes(wanted)
    try:
        text = hcl.policy(wanted, header(config, stage), notes)
    except PolicyError as exc:
        raise PolicyError(f"stage {stage}: {exc}") from None
    secrets = {kv_path(path, found.mounts): path for path in _kv_secrets(config, stage)}
    return StagePolicy(stage, vault.namespace, wanted, text, secrets, tuple(found.troubles))


# --- where its KV secrets are: asked of Vault when a token is at hand, else assumed ---


@dataclass(slots=True)
class _Engines:
    """``troubles`` says why the engines of KV paths are not among the ``mounts``."""

    mounts: Mounts = field(default_factory=Mounts)
    troubles: list[str] = field(default_factory=list)


def _kv_secrets(config: Config, stage: str) -> Iterator[str]:
    """The KV paths of a stage."""
    for upstream in config.upstreams.values():
        source = upstream.secrets.get(stage)
        if isinstance(source, KvSecret):
            yield source.path


def _ask(config: Config, stage: str, probe: Probe, token: Secret) -> _Engines:
    """Ask for each mount once; what cannot be asked at all is not asked again."""
    found = _Engines()
    for path in dict.fromkeys(_kv_secrets(config, stage)):
        if not found.mounts.of(path):
            try:
                mount = probe.mount(token, path)
            except VaultError as exc:
                found.troubles.append(f"{path}: {exc.explained}")
                if exc.failure.away or exc.failure.verdict is Verdict.TOKEN_DEAD:
                    break
                continue
            found.mounts.add(mount)
        if not found.mounts.kv(path):
            found.troubles.append(f"{path}: no KV engine is mounted there")
    return found


def _notes(config: Config, stage: str, mounts: Mounts) -> dict[str, str]:
    """For the line of each KV path whose engine is not known: what it was taken for."""
    return {
        kv_path(path, mounts): f"(assumed: KV version 2 at {path.partition('/')[0]}/; "
        f"for version 1: path {path})"
        for path in _kv_secrets(config, stage)
        if not mounts.kv(path)
    }


# --- the commands around it: how it is written, and given to the stage's login ---


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
