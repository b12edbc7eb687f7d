"""Which KV engines a stage reads: asked of Vault when a token is at hand, else assumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vaultauthz.config.values import Config, KvSecret
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.policy.failure import told
from vaultauthz.policy.needs import KvVersions, kv_path
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.probe import Probe


@dataclass(slots=True)
class Versions:
    """``known`` is for ``needs``; ``troubles`` says why the others are not known."""

    known: dict[str, tuple[str, int]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def kv_secrets(config: Config, stage: str) -> Iterator[str]:
    """The KV paths of a stage."""
    for upstream in config.upstreams.values():
        source = upstream.secrets.get(stage)
        if isinstance(source, KvSecret):
            yield source.path


def ask(config: Config, stage: str, probe: Probe, token: Secret) -> Versions:
    """Ask for each mount once; what cannot be asked at all is not asked again."""
    found = Versions()
    mounts: dict[str, int] = {}
    for path in dict.fromkeys(kv_secrets(config, stage)):
        mount = next((m for m in mounts if path.startswith(f"{m}/")), "")
        if not mount:
            try:
                mount = _add_mount(mounts, path, probe, token)
            except VaultError as exc:
                found.troubles.append(f"{path}: {told(exc)}")
                if exc.failure.away or exc.failure.verdict is Verdict.TOKEN_DEAD:
                    break
                continue
        if mount:
            found.known[path] = (mount, mounts[mount])
        else:
            found.troubles.append(f"{path}: no KV engine is mounted there")
    return found


def _add_mount(mounts: dict[str, int], path: str, probe: Probe, token: Secret) -> str:
    mount = probe.mount(token, path)
    if mount.kv_version is None or not mount.holds(path):
        return ""
    mounts[mount.path] = mount.kv_version
    return mount.path


def notes(config: Config, stage: str, known: KvVersions) -> dict[str, str]:
    """For the line of each KV path that is not known: what it was taken for."""
    return {
        kv_path(path, known): f"(assumed: KV version 2 at {path.partition('/')[0]}/; "
        f"for version 1: path {path})"
        for path in kv_secrets(config, stage)
        if path not in known
    }
