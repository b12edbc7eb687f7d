"""``vaultauthz audit``: whether a log is whole, what it tells, and how it joins Vault's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vaultauthz.audit import joining, logs, usage, verification
from vaultauthz.audit.files import Log, LogError, Selection, by_chain, by_time
from vaultauthz.audit.logs import VaultLog
from vaultauthz.config.values import Audit
from vaultauthz.terminal import Output


@dataclass(frozen=True, slots=True)
class SelectedLines:
    """What the commands have in common: which lines of which files."""

    paths: Sequence[Path]
    selection: Selection = field(default_factory=Selection)


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


def verify(paths: Sequence[Path], seal: str, out: Output) -> int:
    """Whether the log is whole; the exit status, 1 when it is not.

    Raises:
        LogError, SealError: what was asked for cannot be told.
    """
    expected = verification.seal_of(seal) if seal else None
    found = verification.verification(Log(paths, by_chain), expected)
    return verification.print_verification(found, out)


def report(selected: SelectedLines, by: str, out: Output) -> int:
    """Who used what.

    Raises:
        LogError: a file cannot be read.
    """
    usage.print_usage(usage.count_usage(Log(selected.paths, by_chain), by, selected.selection), out)
    return 0


def join(selected: SelectedLines, vault: Sequence[Path], out: Output) -> int:
    """Our log beside Vault's; the exit status, 1 when one has what the other lacks.

    Raises:
        LogError: a file cannot be read, or is no log of Vault.
    """
    own = logs.read_own(Log(selected.paths, by_chain), selected.selection)
    found = joining.join(own, VaultLog(Log(vault, by_time)), selected.selection)
    return joining.print_joined(own, found, out, whole=bool(selected.selection.request))
