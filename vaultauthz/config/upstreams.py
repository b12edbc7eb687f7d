"""``upstreams``: the services behind the gateway."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from vaultauthz.config import kinds, kong_logs
from vaultauthz.config.callers import CALLERS, HINT, RULES
from vaultauthz.config.gateway import TO_READER, read_to
from vaultauthz.config.inject import INJECTION, read_inject, read_strip
from vaultauthz.config.keys import Key, Reader, Section
from vaultauthz.config.kinds import FLAG, TEXT, choice, duration, many, whole
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.sds_slots import never_answered
from vaultauthz.config.secret_source import SECRET, Lifetimes, read_secret
from vaultauthz.config.values import Destination, Upstream
from vaultauthz.core.callers import Callers
from vaultauthz.core.injection import Injection

_MISPLACED: Final = dict.fromkeys(("increment", "ttl"), "belongs in secret, or in a stage")
# Which value of `per` a key is for.
_OF_PER: Final = {"hold": "request", "idle": "caller", "max_callers": "caller"}


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


def _accepted(name: str, text: str) -> Key:
    read = choice(kong_logs.WORD).read
    more = f"`{kong_logs.WORD}`, see `inject`."
    return Key(name, Reader(read, {"const": kong_logs.WORD}), text, more, default="")


UPSTREAM: Final = Section(
    Upstream,
    "A service behind the gateway and the credential it wants.",
    Key("secret", SECRET.reader(apart=True), stand_in=MappingProxyType({})),
    Key(
        "to",
        TO_READER,
        "Where the service is, for the gateway's printed configuration.",
        "`https://HOST:PORT`, or a mapping of the keys below it. Its certificate is verified.",
        otherwise="a placeholder is printed",
    ),
    Key(
        "inject",
        many(INJECTION, read_inject, least=1),
        "Where the credential goes.",
        missing="say where the credential goes",
    ),
    Key("callers", CALLERS, "Who may use the credential.", missing=HINT),
    Key("deny", RULES, "Who may not, whatever callers says.", default=()),
    Key(
        "stages",
        many(TEXT.about("The name of a stage."), partial(_own_stages, known=()), least=1),
        more="In which stages there is this upstream.",
        otherwise="every stage",
    ),
    Key(
        "strip",
        many(TEXT.about("A header's name."), partial(read_strip, inject=())),
        "Headers of the client to drop.",
        "Besides those that are set.",
    ),
    Key("optional", FLAG, "Readiness does not wait for it."),
    Key(
        "callers_enforced_by",
        choice("vaultauthz", "envoy"),
        "envoy: SDS hands the credential out, and Envoy's RBAC filter asks about callers.",
        "SDS asks nobody about a request: Envoy must enforce `callers`, as the RBAC filter of "
        "`vaultauthz envoy --mode sds` does. A check (ext_authz) asks about them all the same.",
    ),
    _accepted(kong_logs.QUERY, "With inject: query, under Kong, whose error.log has it then."),
    _accepted(
        kong_logs.USERNAME,
        "With a credential as the user name of basic, which Kong's access.log has then.",
    ),
    Key(
        "per",
        choice("instance", "caller", "request"),
        "Who shares a lease.",
        "All callers one, each caller its own, or each request its own.",
    ),
    Key("max_callers", whole(1, 100_000), "With per: caller: leases at once.", "See below."),
    Key("idle", duration(1.0, 86_400.0), "With per: caller: how long a lease is kept without use."),
    Key(
        "hold",
        duration(1.0, 3_600.0),
        "With per: request: how long until its lease is revoked.",
        "At most 1000 are alive at once.",
    ),
    refused=_MISPLACED,
)


def read_upstreams(value: Value, stages: Mapping[str, Lifetimes]) -> dict[str, Upstream]:
    """Every upstream by its name; ``stages`` are those of the file, none when unknown."""
    upstreams = value.each_entry(partial(_read_upstream, stages=stages))
    if not value.entries():
        raise value.wrong("has no upstream; add one")
    return upstreams


def _read_upstream(name: str, value: Value, *, stages: Mapping[str, Lifetimes]) -> Upstream:
    kinds.check_name(value, name, "an upstream")
    table = UPSTREAM.open(value)
    own = UPSTREAM.get(
        table, "stages", partial(_own_stages, known=stages), {"stages": tuple(stages)}
    )
    accepted = [key for key in kong_logs.KEYS if UPSTREAM.get(table, key)]
    inject = UPSTREAM.get(table, "inject", partial(read_inject, accepted=accepted))
    for key, form in kong_logs.needless(accepted, inject):
        value.report.refused(table.entries[key].wrong(f"is for inject: {form}; remove it"))
    per = UPSTREAM.get(table, "per")
    for key, wanted in _OF_PER.items():
        if key in table and per != wanted:
            raise table.entries[key].wrong(f"is for per: {wanted}; remove it, or set per")
    read = partial(read_secret, stages={stage: stages.get(stage, Lifetimes()) for stage in own})
    known = {
        "name": name,
        "stages": own,
        "secrets": UPSTREAM.get(table, "secret", read),
        "inject": inject,
        "callers": Callers(UPSTREAM.get(table, "callers"), UPSTREAM.get(table, "deny")),
        "per": per,
    }
    if "to" in table:
        known["to"] = UPSTREAM.get(table, "to", partial(read_to, stages=own))
        _refuse_misfits(table, known["to"].values(), inject)
    upstream = UPSTREAM.build(table, known, strip=partial(read_strip, inject=inject))
    _warn_of_sds(table, upstream)
    return upstream


def _refuse_misfits(
    table: Table, services: Iterable[Destination], inject: Iterable[Injection]
) -> None:
    """What the service is told of itself and what it is to be shown have to fit."""
    for one in services:
        if not one.has_tls and any(injection.is_certificate for injection in inject):
            raise table.entries["to"].wrong("inject has a certificate, which wants https://")
        if one.preserve_host and any(i.signature and i.signature.host for i in inject):
            raise table.entries["to"].wrong(
                "preserve_host would send another host than the one that inject signs; remove one of them"
            )


def _warn_of_sds(table: Table, upstream: Upstream) -> None:
    """Say so where Envoy would ask by SDS, and never be answered."""
    obstacle = never_answered(upstream)
    if obstacle and obstacle.key in table:
        table.entries[obstacle.key].warn(f"SDS hands nothing out: the upstream {obstacle.why}")
