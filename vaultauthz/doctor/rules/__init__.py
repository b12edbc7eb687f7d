"""Evidence → findings. Each rule is one small pure function; these tables are all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from vaultauthz.doctor.evidence import Evidence, ExaminedStage, VaultServer
from vaultauthz.doctor.finding import ERROR, Finding
from vaultauthz.doctor.rules import access, files, login, secrets, server, token

OF_SERVER: Final[tuple[Callable[[VaultServer], Iterator[Finding]], ...]] = (
    server.away,
    server.not_initialized,
    server.sealed,
    server.several_clusters,
    server.clear_text,
    server.certificate_ends,
    server.clock,
)
OF_STAGE: Final[tuple[Callable[[ExaminedStage], Iterator[Finding]], ...]] = (
    login.crashed,
    server.too_old,
    files.absent,
    files.open_to_others,
    login.refused,
    login.gone,
    login.wrapping,
    token.shut_out,
    token.not_looked_up,
    token.root,
    token.only_default,
    token.few_uses,
    token.endless,
    token.batch,
    token.shorter_than_leases,
    token.cannot_be_renewed,
    token.explicit_max,
    token.longer_than_an_hour,
    token.left_behind,
    access.not_told,
    access.missing,
    access.more_than_needed,
    secrets.none_mounted,
    secrets.no_kv,
    secrets.data_twice,
    secrets.kv_by_path,
    secrets.no_versions,
    secrets.not_given,
    secrets.fields,
    secrets.unfit,
    secrets.brief,
    secrets.less_than_asked,
    secrets.left_behind,
    login.audit_header,
)


def judge(facts: Evidence) -> tuple[Finding, ...]:
    """Everything that is wrong, the errors first; what is wrong in several stages once."""
    found = [
        replace(finding, stages=seen.stages)
        for seen in facts.servers
        for rule in OF_SERVER
        for finding in rule(seen)
    ]
    found += [
        replace(finding, stages=(stage.name,))
        for stage in facts.stages
        for rule in OF_STAGE
        for finding in rule(stage)
    ]
    found += files.not_shown(facts)
    found += files.configured(facts)
    return tuple(sorted(_merged(found), key=lambda finding: finding.severity != ERROR))


def _merged(found: Iterable[Finding]) -> Iterator[Finding]:
    """The same finding of several stages as one that names them all."""
    alike: dict[Finding, list[str]] = {}
    for finding in found:
        alike.setdefault(replace(finding, stages=()), []).extend(finding.stages)
    return (replace(finding, stages=tuple(stages)) for finding, stages in alike.items())
