"""``upstreams``: the services behind the gateway."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from vaultauthz.config import durations, kong_logs, names
from vaultauthz.config.callers import HINT, read_callers, read_rules
from vaultauthz.config.inject import read_inject, read_strip
from vaultauthz.config.lifetimes import Lifetimes
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.sds_slots import never_answered
from vaultauthz.config.secret_source import read_secret
from vaultauthz.config.values import Upstream
from vaultauthz.core.callers import Callers
from vaultauthz.core.injection import Injection

KEYS: Final = (
    "callers",
    "callers_enforced_by",
    "deny",
    "hold",
    "idle",
    "inject",
    *kong_logs.KEYS,
    "max_callers",
    "optional",
    "per",
    "secret",
    "stages",
    "strip",
)
_MISPLACED: Final = dict.fromkeys(("increment", "ttl"), "belongs in secret, or in a stage")
PER: Final = ("instance", "caller", "request")
ENFORCERS: Final = ("vaultauthz", "envoy")
# Which value of `per` a key is for.
_OF_PER: Final = {"hold": "request", "idle": "caller", "max_callers": "caller"}
IDLE: Final = partial(durations.between, least=1.0, most=86_400.0)
HOLD: Final = partial(durations.between, least=1.0, most=3_600.0)
MOST_CALLERS: Final = partial(Value.whole, least=1, most=100_000)


def read_upstreams(value: Value, stages: Mapping[str, Lifetimes]) -> dict[str, Upstream]:
    """Every upstream by its name; ``stages`` are those of the file, none when unknown."""
    upstreams = value.each_entry(partial(_read_upstream, stages=stages))
    if not value.entries():
        raise value.wrong("has no upstream; add one")
    return upstreams


def _read_upstream(name: str, value: Value, *, stages: Mapping[str, Lifetimes]) -> Upstream:
    names.check_name(value, name, "an upstream")
    table = value.table(KEYS, _MISPLACED)
    own = table.get("stages", partial(_own_stages, known=stages), tuple(stages))
    accepted = [key for key in kong_logs.KEYS if table.get(key, kong_logs.word, "")]
    inject = table.require(
        "inject",
        partial(read_inject, accepted=accepted),
        tuple[Injection, ...](),
        "say where the credential goes",
    )
    for key, form in kong_logs.needless(accepted, inject):
        value.report.refused(table.entries[key].wrong(f"is for inject: {form}; remove it"))
    per = table.get("per", partial(Value.choice, allowed=PER), "instance")
    for key, wanted in _OF_PER.items():
        if key in table and per != wanted:
            raise table.entries[key].wrong(f"is for per: {wanted}; remove it, or set per")
    read = partial(read_secret, stages={stage: stages.get(stage, Lifetimes()) for stage in own})
    upstream = Upstream(
        name=name,
        stages=own,
        secrets=table.require("secret", read, MappingProxyType({})),
        inject=inject,
        callers=Callers(
            table.require("callers", read_callers, None, HINT), table.get("deny", read_rules, ())
        ),
        strip=table.get("strip", partial(read_strip, inject=inject), ()),
        optional=table.get("optional", Value.flag, default=False),
        per=per,
        callers_enforced_by=table.get(
            "callers_enforced_by", partial(Value.choice, allowed=ENFORCERS), "vaultauthz"
        ),
        max_callers=table.get("max_callers", MOST_CALLERS, 1000),
        idle=table.get("idle", IDLE, 600.0),
        hold=table.get("hold", HOLD, 30.0),
    )
    _warn_of_sds(table, upstream)
    return upstream


def _warn_of_sds(table: Table, upstream: Upstream) -> None:
    """Say so where Envoy would ask by SDS, and never be answered."""
    obstacle = never_answered(upstream)
    if obstacle and obstacle.key in table:
        table.entries[obstacle.key].warn(f"SDS hands nothing out: the upstream {obstacle.why}")


def _own_stages(value: Value, *, known: Collection[str]) -> tuple[str, ...]:
    own = value.each(lambda item: stage_name(item, known))
    if not value.items():
        raise value.wrong("is an empty list; name a stage, or remove it for every stage")
    return tuple(dict.fromkeys(own))


def stage_name(value: Value, known: Collection[str]) -> str:
    """The name of a stage that there is; any when ``known`` is empty."""
    name = value.text()
    if known and name not in known:
        raise value.wrong(f"{quoted(name)} is no stage; stages: {', '.join(known)}")
    return name
