"""The tables: Vault's nodes, the stages' logins, the upstreams' credentials."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import inf
from typing import Final

from vaultauthz.doctor.facts import Facts, Fetched, Node, Place, Stage
from vaultauthz.doctor.methods import method
from vaultauthz.doctor.rules.server import MOST_AHEAD
from vaultauthz.doctor.text import span
from vaultauthz.terminal import columns

_MANY: Final = 40  # credentials; of more, only those with a finding are shown
_UNKNOWN: Final = "?"

Wanting = Collection[tuple[str, str]]  # stage and upstream of each finding


def all_of(facts: Facts, wanting: Wanting, width: int | None) -> Iterator[list[str]]:
    """Each table's lines; none that would be empty."""
    # A node is seen anew by each stage that has a client certificate of its own.
    nodes = {node.address: _node(node) for server in facts.servers for node in server.nodes}
    yield columns([["VAULT", "STATE", "VERSION", "CLOCK", "TLS"], *nodes.values()], width, least=2)
    logins = [_login(stage) for stage in facts.stages]
    yield columns([["STAGE", "LOGIN", "POLICY", "TOKEN", "METHOD"], *logins], width, least=2)
    rows = [
        (stage.name, place.upstream, _credential(stage, place, fetched=facts.fetched))
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


def state_of(node: Node) -> str:
    """In one word, what this node is doing."""
    if node.health is None:
        return "away"
    if not node.health.initialized:
        return "new"
    if node.health.sealed:
        return "sealed"
    return "standby" if node.health.standby else "active"


def login_of(stage: Stage) -> str:
    """In one word, what the login came to."""
    if stage.crash:
        return "unknown"
    if stage.login:
        return "failed"
    if stage.wrapped:
        return "wrapped"
    return "done" if stage.tried else "not tried"


def engine_of(place: Place) -> str:
    """The engine's type, with the version of a KV engine."""
    if place.mount is None:
        return ""
    return f"kv v{place.mount.kv_version}" if place.mount.kv_version else place.mount.type


def _node(node: Node) -> list[str]:
    return [
        node.address,
        state_of(node),
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


def _tls(node: Node) -> str:
    if node.handshake is None:
        return "none"
    if node.handshake.ends_in is None:
        return node.handshake.version or "-"
    return f"{node.handshake.version}, certificate {span(node.handshake.ends_in)}"


def _login(stage: Stage) -> list[str]:
    how = method(stage.auth)
    lines = len(stage.accesses)
    allowed = sum(not access.missing for access in stage.accesses)
    return [
        stage.name,
        login_of(stage),
        f"{allowed} of {lines} lines" if lines else "-",
        _token(stage),
        f"{how.name} at auth/{how.mount}" if how.mount else how.name,
    ]


def _token(stage: Stage) -> str:
    if stage.token is None:
        return "-"
    if stage.token.ttl == inf:
        return "no end"
    kind = "batch" if stage.token.type == "batch" else "fixed"
    life = stage.token.creation_ttl if stage.own_token else stage.token.ttl
    return f"{span(life)} {'renewable' if stage.token.renewable else kind}"


def _credential(stage: Stage, place: Place, *, fetched: bool) -> list[str]:
    access = next((a for a in stage.accesses if a.need.path == place.path), None)
    allowed = _UNKNOWN if access is None else "NO" if access.missing else "yes"
    found = next((f for f in stage.fetched if f.upstream == place.upstream), None)
    fetch = _fetch(found) if fetched else []
    engine = engine_of(place) or _UNKNOWN
    return [place.upstream, stage.name, allowed, *fetch, engine, place.path]


def _fetch(fetch: Fetched | None) -> list[str]:
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
