"""What was found, as tables and findings for people, as one object for programs."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from vaultauthz.doctor import tables
from vaultauthz.doctor.facts import Access, Facts, Fetched, Node, Place, Stage
from vaultauthz.doctor.finding import ERROR, WARNING, Finding
from vaultauthz.doctor.methods import method
from vaultauthz.doctor.text import some
from vaultauthz.terminal import Told

_INDENT: Final = " " * 3
_QUOTED: Final = " " * 6  # before what is to be typed or pasted
_ENDLESS: Final = 1_000_000  # a line that is never broken


def as_text(facts: Facts, findings: Sequence[Finding], told: Told) -> None:
    """Tables of what there is, then the findings, then one line that counts them."""
    wanting = {(stage, name) for f in findings for stage in f.stages for name in f.upstreams}
    for table in tables.all_of(facts, wanting, told.width):
        told.lines(*table, "")
    verbatim = replace(told, width=None)  # a command that is broken in two cannot be pasted
    for number, finding in enumerate(findings, 1):
        told.lines(*_paragraphs(number, finding, told.width or _ENDLESS))
        verbatim.lines(*(f"{_QUOTED}{line}" for line in finding.lines), "")
    told.lines(*_summary(facts, findings))


def _paragraphs(number: int, finding: Finding, width: int) -> Iterator[str]:
    where = " of ".join(some(names) for names in (finding.upstreams, finding.stages) if names)
    head = f"{number}. {finding.severity}{' in ' if where else ''}{where}: "
    for first, text in (
        (head, finding.what),
        ("   why: ", finding.why),
        ("   mend: ", finding.mend),
    ):
        yield from textwrap.wrap(
            f"{first}{text}",
            width,
            subsequent_indent=_INDENT,
            break_on_hyphens=False,
            break_long_words=False,
        )


def _summary(facts: Facts, findings: Sequence[Finding]) -> Iterator[str]:
    if findings:
        counted = Counter(finding.severity for finding in findings)
        kinds = [(counted[ERROR], "error"), (counted[WARNING], "warning")]
        yield ", ".join(_count(number, noun) for number, noun in kinds if number)
    else:
        upstreams = sum(len(stage.places) for stage in facts.stages)
        logins = f"{_count(len(facts.stages), 'stage')}, {_count(upstreams, 'credential')}"
        yield f"all good: {logins}"
    if not facts.fetched and any(stage.logged_in for stage in facts.stages):
        yield "the secrets themselves were not read; --fetch does that, and gives them back"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# --- for programs ---


def as_json(facts: Facts, findings: Iterable[Finding]) -> dict[str, Any]:
    """``good`` is what the exit status says; durations in seconds, null for no end."""
    found = [asdict(finding) for finding in findings]
    return {
        "good": not found,
        "findings": found,
        "vault": [_node(node, s.stages) for s in facts.servers for node in s.nodes],
        "stages": [_stage(stage) for stage in facts.stages],
    }


def _node(node: Node, stages: Sequence[str]) -> dict[str, Any]:
    health, hello = node.health, node.handshake
    return {
        "address": node.address,
        "stages": list(stages),
        "state": tables.state_of(node),
        "version": health.version if health else "",
        "cluster": health.cluster_name if health else "",
        "tls": hello.version if hello else "",
        "certificate_ends_in": _number(hello.ends_in if hello else None),
        "clock_ahead": _number(node.ahead),
        "trouble": str(node.trouble or ""),
    }


def _stage(stage: Stage) -> dict[str, Any]:
    how = method(stage.auth)
    token = stage.token
    return {
        "stage": stage.name,
        "method": how.name,
        "mount": how.mount,
        "namespace": stage.namespace,
        "login": tables.login_of(stage),
        "trouble": str(stage.login or ""),
        "token": token
        and {
            "accessor": token.accessor,
            "type": token.type,
            "policies": list(stage.policies),
            "ttl": _number(token.ttl),
            "renewable": token.renewable,
            "explicit_max_ttl": token.explicit_max_ttl,
        },
        "policy": [_access(access) for access in stage.accesses],
        "upstreams": [_place(stage, place) for place in stage.places],
    }


def _access(access: Access) -> dict[str, Any]:
    need = access.need
    return {
        "path": need.path,
        "needs": list(need.capabilities),
        "has": list(access.found),
        "upstreams": list(need.upstreams),
    }


def _place(stage: Stage, place: Place) -> dict[str, Any]:
    fetch = next((f for f in stage.fetched if f.upstream == place.upstream), None)
    return {
        "upstream": place.upstream,
        "path": place.path,
        "mount": place.mount.path if place.mount else "",
        "engine": tables.engine_of(place),
        "fetch": fetch and _fetch(fetch),
    }


def _fetch(fetch: Fetched) -> dict[str, Any]:
    return {
        "wanted": list(fetch.wanted),
        "fields": sorted(fetch.fields),
        "lease": bool(fetch.lease_id),
        "ttl": _number(fetch.ttl) if fetch.lease_id else None,
        "ends_in": _number(fetch.ends_in),
        "renewable": fetch.renewable,
        "trouble": str(fetch.trouble or ""),
    }


def _number(seconds: float | None) -> float | None:
    """JSON has no infinity."""
    return None if seconds is None or abs(seconds) > 1e12 else round(seconds, 1)
