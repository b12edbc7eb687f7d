"""What was found, as tables and findings for people, as one object for programs."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from math import inf
from typing import Any, Final

from vaultauthz.core.certificate import date
from vaultauthz.core.routing import StageUpstream
from vaultauthz.doctor.evidence import (
    Evidence,
    ExaminedStage,
    Fetched,
    PathRights,
    Place,
    Shown,
    VaultNode,
)
from vaultauthz.doctor.finding import ERROR, WARNING, Finding, some, span
from vaultauthz.doctor.rules.server import MOST_AHEAD
from vaultauthz.terminal import Output, columns

_INDENT: Final = " " * 3
_QUOTED: Final = " " * 6  # before what is to be typed or pasted
_ENDLESS: Final = 1_000_000  # a line that is never broken
_MANY: Final = 40  # credentials; of more, only those with a finding are shown
_UNKNOWN: Final = "?"


def as_text(facts: Evidence, findings: Sequence[Finding], out: Output) -> None:
    """Tables of what there is, then the findings, then one line that counts them."""
    wanting = {(stage, name) for f in findings for stage in f.stages for name in f.upstreams}
    for table in _tables(facts, wanting, out.width):
        out.lines(*table, "")
    verbatim = replace(out, width=None)  # a command that is broken in two cannot be pasted
    for number, finding in enumerate(findings, 1):
        out.lines(*_paragraphs(number, finding, out.width or _ENDLESS))
        verbatim.lines(*(f"{_QUOTED}{line}" for line in finding.lines), "")
    out.lines(*_summary(facts, findings))


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


def _summary(facts: Evidence, findings: Sequence[Finding]) -> Iterator[str]:
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


# --- the tables: Vault's nodes, the stages' logins, the upstreams' credentials ---

_Wanting = Collection[StageUpstream]  # of each finding


def _tables(facts: Evidence, wanting: _Wanting, width: int | None) -> Iterator[list[str]]:
    """Each table's lines; none that would be empty."""
    # A node is seen anew by each stage that has a client certificate of its own.
    nodes = {node.address: _node_cells(node) for server in facts.servers for node in server.nodes}
    yield columns([["VAULT", "STATE", "VERSION", "CLOCK", "TLS"], *nodes.values()], width, least=2)
    logins = [_login_cells(stage) for stage in facts.stages]
    yield columns([["STAGE", "LOGIN", "POLICY", "TOKEN", "METHOD"], *logins], width, least=2)
    if facts.shown:
        shown = [_shown_cells(one) for one in facts.shown]
        yield columns([["CERTIFICATE", "LEFT", "ENDS", "FILE"], *shown], width, least=2)
    rows = [
        (stage.name, place.upstream, _credential_cells(stage, place, fetched=facts.fetched))
        for stage in facts.stages
        for place in stage.places
    ]
    few = rows if len(rows) <= _MANY else [row for row in rows if row[:2] in wanting]
    if few:
        fetch = ["GIVEN", "LEASE", "FIELDS"] if facts.fetched else []
        head = ["UPSTREAM", "STAGE", "ALLOWED", *fetch, "ENGINE", "PATH"]
        lines = columns([head, *(cells for *_, cells in few)], width, least=3)
        hidden = len(rows) - len(few)
        yield [*lines, f"({hidden} more, without a finding)"] if hidden else lines


def _state_of(node: VaultNode) -> str:
    """In one word, what this node is doing."""
    if node.health is None:
        return "away"
    if not node.health.initialized:
        return "new"
    if node.health.sealed:
        return "sealed"
    return "standby" if node.health.standby else "active"


def _login_of(stage: ExaminedStage) -> str:
    """In one word, what the login came to."""
    if stage.crash:
        return "unknown"
    if stage.login:
        return "failed"
    if stage.wrapped:
        return "wrapped"
    return "done" if stage.tried else "not tried"


def _engine_of(place: Place) -> str:
    """The engine's type, with the version of a KV engine."""
    if place.mount is None:
        return ""
    return f"kv v{place.mount.kv_version}" if place.mount.kv_version else place.mount.type


def _node_cells(node: VaultNode) -> list[str]:
    return [
        node.address,
        _state_of(node),
        (node.health.version if node.health else "") or "-",
        _clock(node.ahead),
        _tls(node),
    ]


def _clock(ahead: float | None) -> str:
    if ahead is None:
        return "-"
    if abs(ahead) <= MOST_AHEAD:
        return "right"
    return f"{'+' if ahead > 0 else '-'}{span(abs(ahead))}"


def _tls(node: VaultNode) -> str:
    if node.handshake is None:
        return "none"
    if node.handshake.ends_in is None:
        return node.handshake.version or "-"
    return f"{node.handshake.version}, certificate {span(node.handshake.ends_in)}"


def _login_cells(stage: ExaminedStage) -> list[str]:
    how = stage.auth
    lines = len(stage.accesses)
    allowed = sum(not access.missing for access in stage.accesses)
    return [
        stage.name,
        _login_of(stage),
        f"{allowed} of {lines} lines" if lines else "-",
        _token_cell(stage),
        f"{how.name} at {how.at}" if how.mount else how.name,
    ]


def _token_cell(stage: ExaminedStage) -> str:
    if stage.token is None:
        return "-"
    if stage.token.ttl == inf:
        return "no end"
    kind = "batch" if stage.token.type == "batch" else "fixed"
    life = stage.token.creation_ttl if stage.own_token else stage.token.ttl
    return f"{span(life)} {'renewable' if stage.token.renewable else kind}"


def _shown_cells(shown: Shown) -> list[str]:
    one = shown.certificate
    left = "?" if one.trouble else span(shown.ends_in) if shown.ends_in > 0 else "ENDED"
    return [one.name, left, date(one.not_after) if one.not_after < inf else "-", one.file]


def _credential_cells(stage: ExaminedStage, place: Place, *, fetched: bool) -> list[str]:
    access = next((a for a in stage.accesses if a.need.path == place.path), None)
    allowed = _UNKNOWN if access is None else "NO" if access.missing else "yes"
    found = next((f for f in stage.fetched if f.upstream == place.upstream), None)
    fetch = _fetch_cells(found) if fetched else []
    engine = _engine_of(place) or _UNKNOWN
    return [place.upstream, stage.name, allowed, *fetch, engine, place.path]


def _fetch_cells(fetch: Fetched | None) -> list[str]:
    if fetch is None:
        return ["-", "-", "-"]
    if fetch.trouble:
        return ["NO", "-", "-"]
    lease = _life(fetch)
    wanted = len(fetch.wanted)
    return ["yes", lease, f"{wanted - len(fetch.lacking)} of {wanted}"]


def _life(fetch: Fetched) -> str:
    if fetch.lease_id:
        ends_first = fetch.ends_in is not None and fetch.ends_in < fetch.ttl
        fixed = "" if fetch.renewable and not ends_first else " fixed"
        return f"{span(fetch.ends_in if ends_first and fetch.ends_in else fetch.ttl)}{fixed}"
    return "none" if fetch.ends_in is None else f"none, ends in {span(max(0.0, fetch.ends_in))}"


# --- for programs ---


def as_json(facts: Evidence, findings: Iterable[Finding]) -> dict[str, Any]:
    """``good`` is what the exit status says; durations in seconds, null for no end."""
    found = [asdict(finding) for finding in findings]
    return {
        "good": not found,
        "findings": found,
        "vault": [_node(node, s.stages) for s in facts.servers for node in s.nodes],
        "stages": [_stage(stage) for stage in facts.stages],
        "certificates": [_certificate(shown) for shown in facts.shown],
    }


def _certificate(shown: Shown) -> dict[str, Any]:
    one = shown.certificate
    return {
        "name": one.name,
        "use": one.use,
        "stage": one.stage,
        "file": one.file,
        "not_after": _number(one.not_after),
        "ends_in": _number(shown.ends_in),
        "trouble": one.trouble,
    }


def _node(node: VaultNode, stages: Sequence[str]) -> dict[str, Any]:
    health, hello = node.health, node.handshake
    return {
        "address": node.address,
        "stages": list(stages),
        "state": _state_of(node),
        "version": health.version if health else "",
        "cluster": health.cluster_name if health else "",
        "tls": hello.version if hello else "",
        "certificate_ends_in": _number(hello.ends_in if hello else None),
        "clock_ahead": _number(node.ahead),
        "trouble": str(node.trouble or ""),
    }


def _stage(stage: ExaminedStage) -> dict[str, Any]:
    how, token = stage.auth, stage.token
    return {
        "stage": stage.name,
        "method": how.name,
        "mount": how.mount,
        "namespace": stage.namespace,
        "login": _login_of(stage),
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


def _access(access: PathRights) -> dict[str, Any]:
    need = access.need
    return {
        "path": need.path,
        "needs": list(need.capabilities),
        "has": list(access.found),
        "upstreams": list(need.upstreams),
    }


def _place(stage: ExaminedStage, place: Place) -> dict[str, Any]:
    fetch = next((f for f in stage.fetched if f.upstream == place.upstream), None)
    return {
        "upstream": place.upstream,
        "path": place.path,
        "mount": place.mount.path if place.mount else "",
        "engine": _engine_of(place),
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
