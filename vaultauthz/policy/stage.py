"""The policy of one stage, and what was found out for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from vaultauthz.config.values import Config
from vaultauthz.core.secret import Secret
from vaultauthz.policy import attach, hcl, versions
from vaultauthz.policy.hcl import PolicyError
from vaultauthz.policy.needs import Kind, Need, kv_path, needs
from vaultauthz.policy.versions import Versions
from vaultauthz.vault.probe import Probe


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
        return attach.policy_name(self.stage)

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
    vault, found = config.vault_of(stage), Versions()
    if token is not None:
        found = versions.ask(config, stage, Probe(vault, time.monotonic), token)
    wanted = needs(config, stage, found.known)
    notes = versions.notes(config, stage, found.known) | _notes_on_writes(wanted)
    try:
        text = hcl.policy(wanted, attach.header(config, stage), notes)
    except PolicyError as exc:
        raise PolicyError(f"stage {stage}: {exc}") from None
    secrets = {kv_path(path, found.known): path for path in versions.kv_secrets(config, stage)}
    return StagePolicy(stage, vault.namespace, wanted, text, secrets, tuple(found.troubles))
