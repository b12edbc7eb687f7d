"""The three commands: from what was asked to what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vaultauthz.audit import joined, ours, reported, told, verified
from vaultauthz.audit.files import Log, LogError
from vaultauthz.audit.order import by_chain, by_time
from vaultauthz.audit.vault_log import VaultLog
from vaultauthz.audit.wanted import Wanted
from vaultauthz.config.values import Audit
from vaultauthz.terminal import Told


@dataclass(frozen=True, slots=True)
class Asked:
    """What the commands have in common: which lines of which files."""

    paths: Sequence[Path]
    wanted: Wanted = field(default_factory=Wanted)


def paths_of(settings: Audit, config: Path) -> list[Path]:
    """The log that the configuration names.

    Raises:
        LogError: it names none.
    """
    if settings.file is None:
        raise LogError(
            f"{config}: audit.file is not set, so the log goes to standard output; name the file that "
            "keeps it, or - to read it from standard input"
        )
    return [settings.file]


def verify(paths: Sequence[Path], seal: str, out: Told) -> int:
    """Whether the log is whole; the exit status, 1 when it is not.

    Raises:
        LogError, SealError: what was asked for cannot be told.
    """
    wanted = verified.seal_of(seal) if seal else None
    return verified.tell(verified.verification(Log(paths, by_chain), wanted), out)


def report(asked: Asked, by: str, out: Told) -> int:
    """Who used what.

    Raises:
        LogError: a file cannot be read.
    """
    reported.tell(reported.report(Log(asked.paths, by_chain), by, asked.wanted), out)
    return 0


def join(asked: Asked, vault: Sequence[Path], out: Told) -> int:
    """Our log beside Vault's; the exit status, 1 when one has what the other lacks.

    Raises:
        LogError: a file cannot be read, or is no log of Vault.
    """
    mine = ours.read(Log(asked.paths, by_chain), asked.wanted)
    found = joined.join(mine, VaultLog(Log(vault, by_time)), asked.wanted)
    return told.tell(mine, found, out, whole=bool(asked.wanted.request))
