"""``routes``: which upstream a request is for, when the gateway does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from vaultauthz.config.addresses import valid_host
from vaultauthz.config.callers import PATH_PREFIX
from vaultauthz.config.keys import Condition, Key, Section
from vaultauthz.config.kinds import TEXT
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.upstreams import stage_name
from vaultauthz.core.routing import Route

_BROKEN: Final = "?"  # neither a host nor a path: it compares to nothing


# The upstreams that a route may name, each with its stages. A list of stages is () and the
# whole None where a problem hides them: one mistake is then told once, and not for every route.
Routable = Mapping[str, Sequence[str]] | None


def _host(value: Value) -> str:
    host = value.text().lower().removesuffix(".")
    if "*" in host:
        raise value.wrong(f"{quoted(host)} has a wildcard; name each host, or leave host out")
    if "/" in host:
        raise value.wrong(f"{quoted(host)} is more than a host; leave out the scheme and path")
    if ":" in host and not host.startswith("["):
        raise value.wrong(f"{quoted(host)} has a port, or is IPv6 without [ ]; every port matches")
    if not host.isascii():
        raise value.wrong(f"{quoted(host)} is not ASCII; write it as requests have it, xn--…")
    if not valid_host(host):
        raise value.wrong(f"{quoted(host)} is no host; write a name, as in pay.example.com")
    return host


ROUTE: Final = Section(
    Route,
    "Which upstream a request is for.",
    Key("upstream", TEXT, "The name of an upstream.", missing="name the upstream"),
    Key("stage", TEXT, "The name of one of its stages; needed if it has several.", default=""),
    Key(
        "host",
        TEXT.by(_host),
        "The request's host, without a port.",
        otherwise="any",
        stand_in=_BROKEN,
    ),
    Key("path_prefix", PATH_PREFIX, "The path or what is below it.", stand_in=_BROKEN),
    conditions=(Condition({"anyOf": [{"required": ["host"]}, {"required": ["path_prefix"]}]}),),
)


def read_routes(value: Value, declared: Routable) -> tuple[Route, ...]:
    """Every route; no two of them are for the same requests."""
    found = value.each(lambda item: (item, _read_route(item, declared)))
    first: dict[tuple[str, str], Value] = {}
    for item, route in found:
        same = route.host, route.path_prefix
        if _BROKEN in same:
            continue
        if same in first:
            text = f"is for the same requests as line {first[same].line}; remove one of them"
            value.report.refused(item.wrong(text))
        first.setdefault(same, item)
    return tuple(route for _, route in found)


def _read_route(value: Value, declared: Routable) -> Route:
    table = ROUTE.open(value)
    if not {"host", "path_prefix"} & set(value.entries()):
        raise value.wrong("matches everything; add host or path_prefix (path_prefix: / for all)")
    upstream = ROUTE.get(table, "upstream", partial(_upstream_name, declared=declared))
    stages = (declared or {}).get(upstream, ())
    return ROUTE.build(table, {"upstream": upstream, "stage": _stage(table, upstream, stages)})


def _upstream_name(value: Value, *, declared: Routable) -> str:
    name = value.text()
    if declared is not None and name not in declared:
        raise value.wrong(f"{quoted(name)} is no upstream; upstreams: {', '.join(declared)}")
    return name


def _stage(table: Table, upstream: str, stages: Sequence[str]) -> str:
    if "stage" not in table:
        if len(stages) > 1:
            table.missing("stage", f"{upstream} is in {', '.join(stages)}: say which")
        return stages[0] if stages else ""
    return table.get("stage", partial(_stage_of, upstream=upstream, stages=stages), "")


def _stage_of(value: Value, *, upstream: str, stages: Sequence[str]) -> str:
    name = stage_name(value, ())
    if stages and name not in stages:
        raise value.wrong(
            f"{quoted(name)} is no stage of upstream {upstream}; its stages: {', '.join(stages)}"
        )
    return name
