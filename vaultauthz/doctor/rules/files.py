"""The files that a login reads, and what the configuration itself warns of."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from vaultauthz.certificates import ENDED
from vaultauthz.core.certificate import VAULT, date
from vaultauthz.doctor.evidence import Evidence, ExaminedStage, SecretFile
from vaultauthz.doctor.finding import Finding, error, span, warning
from vaultauthz.doctor.rules.server import clear_text

_READ_OR_WRITTEN_BY_ALL = 0o006
_WRITTEN_BY_GROUP = 0o020


def absent(stage: ExaminedStage) -> Iterator[Finding]:
    """A file that is not there, or that we may not look at."""
    for file in stage.files:
        if file.mode is None:
            yield error(
                f"{file.key}: {file.path} is not there, or may not be looked at",
                "there is no login without it",
                "put the file there, or name the right one; this shows who may go that way",
                f"namei -l {quote(str(file.path))}",
            )


def open_to_others(stage: ExaminedStage) -> Iterator[Finding]:
    """A secret that others on this machine can read, or replace by theirs."""
    for file in stage.files:
        if _is_open(file):
            assert file.mode is not None
            yield warning(
                f"{file.key}: {file.path} has mode {file.mode:04o}",
                "whoever else can read or write it can log in to Vault as this stage, "
                "or have us log in as theirs",
                "leave it to its owner",
                f"chmod 600 {quote(str(file.path))}",
            )


def _is_open(file: SecretFile) -> bool:
    if file.mode is None or not file.private:
        return False
    return bool(file.mode & (_READ_OR_WRITTEN_BY_ALL | _WRITTEN_BY_GROUP))


def not_shown(facts: Evidence) -> Iterator[Finding]:
    """A certificate of ours that is not taken, has ended, or is about to."""
    for shown in facts.shown:
        one = shown.certificate
        look = f"openssl x509 -noout -subject -dates -in {quote(one.file)}"
        if one.trouble:
            yield error(
                f"{one.name}: {one.trouble}",
                "a server that runs goes on with the one before; one that starts cannot be reached"
                if one.use != VAULT
                else "a server that runs goes on with the one before; one that starts cannot log in",
                "have it replaced; this shows what is there",
                look,
            )
        elif shown.ends_in <= 0:
            yield error(
                f"{one.name}: {one.file} has ended ({date(one.not_after)})",
                ENDED[one.use],
                "have it replaced; this shows what is there",
                look,
            )
        elif shown.near:
            yield warning(
                f"{one.name}: {one.file} ends in {span(shown.ends_in)} ({date(one.not_after)})",
                f"from then on {ENDED[one.use]}",
                "see that what renews it runs; a running server takes the next one by itself",
            )


def configured(facts: Evidence) -> Iterator[Finding]:
    """The configuration's own warnings, unless a rule of ours has told the same."""
    covered = [
        str(file.path)
        for stage in facts.stages
        for file in stage.files
        if file.mode is None or _is_open(file)
    ]
    covered += [s.vault.address for s in facts.servers for _ in clear_text(s)]
    for line in facts.warnings:
        if not any(part in line for part in covered):
            what, _, mend = line.rpartition("; ")
            why = "vaultauthz config check says so"
            yield warning(what or line, why, mend or "change it in the configuration")
