"""The engine of a path: where it is mounted, and which version a KV engine has.

Vault mounts nothing below a mount, so one that holds a path is the path's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from vaultauthz.vault.transport import Answer

MOUNT: Final = "sys/internal/ui/mounts"  # tells the engine of a path to who has any right there
_KV: Final = ("kv", "generic")  # the second is what version 1 was called once


def part_of(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object there; {} where there is none."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def text_of(data: Mapping[str, Any], key: str) -> str:
    """The text there; "" where there is none."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def number_of(data: Mapping[str, Any], key: str) -> float | None:
    """The number there; None where there is none."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


@dataclass(frozen=True, slots=True)
class Mount:
    """An engine: where it is mounted and what it is. Leases in seconds, None if not told."""

    path: str  # without slashes at its ends
    type: str
    kv_version: int | None = None  # None for one that is no KV engine
    default_lease_ttl: float | None = None
    max_lease_ttl: float | None = None

    @classmethod
    def of_answer(cls, answer: Answer) -> Mount:
        """As ``MOUNT`` answers; path and type are "" where it tells none."""
        data = part_of(answer, "data")
        options, config = part_of(data, "options"), part_of(data, "config")
        kind, version = text_of(data, "type"), None
        if kind in _KV:
            version = 2 if options.get("version") == "2" else 1
        return cls(
            text_of(data, "path").strip("/"),
            kind,
            version,
            number_of(config, "default_lease_ttl"),
            number_of(config, "max_lease_ttl"),
        )

    @classmethod
    def assumed(cls, path: str) -> Mount:
        """What a KV secret's engine is taken for as long as nobody has told."""
        return cls(path.partition("/")[0], "kv", 2)

    def holds(self, path: str) -> bool:
        """Whether ``path`` is below it."""
        return bool(self.path) and path.startswith(f"{self.path}/")

    def below(self, path: str) -> str:
        """The part of ``path`` after it."""
        return path.removeprefix(f"{self.path}/")

    def kv_path(self, path: str) -> str:
        """Where a KV secret is read over HTTP: version 2 has ``data/`` after its mount."""
        return f"{self.path}/data/{self.below(path)}" if self.kv_version == 2 else path


class Mounts:
    """Those that were told, each of which need not be asked for again."""

    def __init__(self, *known: Mount) -> None:
        self._known = {mount.path: mount for mount in known}

    def of(self, path: str) -> Mount | None:
        """The engine of ``path``; None where it was not told."""
        parents = (str(parent) for parent in PurePosixPath(path).parents)
        return next((self._known[at] for at in parents if at in self._known), None)

    def kv(self, path: str) -> Mount | None:
        """The KV engine of ``path``; None where it was not told, or is another kind of engine."""
        mount = self.of(path)
        return mount if mount and mount.kv_version else None

    def add(self, mount: Mount) -> None:
        """Remember it."""
        self._known[mount.path] = mount

    def forget(self, mount: Mount) -> None:
        """It may have been upgraded or moved."""
        self._known.pop(mount.path, None)
