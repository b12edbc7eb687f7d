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


@dataclass(frozen=True, slots=True)
class Mount:
    """An engine: where it is mounted and what it is."""

    path: str  # without slashes at its ends
    type: str
    kv_version: int | None = None  # None for one that is no KV engine

    @classmethod
    def of_answer(cls, answer: Answer) -> Mount:
        """As ``MOUNT`` answers; path and type are "" where it tells none."""
        data = part_of(answer, "data")
        kind, version = text_of(data, "type"), None
        if kind in _KV:
            version = 2 if part_of(data, "options").get("version") == "2" else 1
        return cls(text_of(data, "path").strip("/"), kind, version)

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
