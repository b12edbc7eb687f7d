"""``secret`` of an upstream: where in Vault its credential comes from, and for how long."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final

from vaultauthz.config import kinds
from vaultauthz.config.keys import Condition, Key, Reader, Section
from vaultauthz.config.kinds import TEXT, choice, duration, whole
from vaultauthz.config.reader import Table, Value, one_of
from vaultauthz.config.values import KvSecret, PathSecret, SecretSource
from vaultauthz.core.template import Template, TemplateError

# The role and the mount bound it. Vault's own bound is 768h unless it is set, and certificates
# of an authority live for ten years.
LIFETIME: Final = duration(1.0, 87_600 * 3600.0)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """What is asked for, in seconds; None: as the role in Vault has it.

    ``ttl`` when a credential is issued, ``increment`` at each renewal of its lease.
    """

    ttl: float | None = None
    increment: float | None = None


def read_lifetimes(table: Table, usual: Lifetimes) -> Lifetimes:
    """Both keys of ``table``, each as in ``usual`` where it is absent."""
    return Lifetimes(
        ttl=table.get("ttl", LIFETIME.read, usual.ttl),
        increment=table.get("increment", LIFETIME.read, usual.increment),
    )


FORMS: Final = ("kv", "path", "pki", "static_role")
# Which forms each of the other keys goes with.
GOES_WITH: Final = {
    "increment": ("path",),
    "max_stale": ("kv",),
    "method": ("path",),
    "params": ("path", "pki"),
    "refresh": ("kv",),
    "ttl": ("path", "pki"),
    "version": ("kv",),
}
_HOUR = 3600.0
_MOST_STALE = 768 * _HOUR  # as long as Vault lets a lease live by default


def _params(value: Value, *, stages: Collection[str]) -> dict[str, dict[str, str]]:
    """The params of each stage; Vault takes text for numbers and booleans too."""
    templates = value.each_entry(lambda _, item: _template(item))
    return {
        stage: {name: _filled(template, stage) for name, template in templates.items()}
        for stage in stages
    }


def by_stage(value: Value, stages: Collection[str]) -> dict[str, str]:
    """The text for each of ``stages``, its name in place of ``{stage}``."""
    template = _template(value)
    return {stage: _filled(template, stage) for stage in stages}


def _paths(value: Value, *, stages: Collection[str]) -> dict[str, str]:
    kinds.vault_path(value)
    return by_stage(value, stages)


def _trimmed_paths(value: Value, *, stages: Collection[str]) -> dict[str, str]:
    # `vault read` would read another secret; `vault kv get` takes a name as it is.
    if value.text() != value.text().strip():
        raise value.wrong("has white space at its ends, which vault read leaves out; remove it")
    return _paths(value, stages=stages)


def _template(value: Value) -> Template:
    try:
        template = Template.parse(value.text())
    except TemplateError:
        raise value.wrong("has a stray { or }; {stage} is the only placeholder") from None
    for name in template.fields:
        if name != "stage":
            raise value.wrong(f"{{{name}}} is unknown here; {{stage}} is the only placeholder")
    return template


def _filled(template: Template, stage: str) -> str:
    return "".join(stage if is_field else text for text, is_field in template.parts)


_STALE: Final = replace(duration(1.0, _MOST_STALE), bounds="")  # at least `refresh`
_TEXTS: Final = {"type": "object", "additionalProperties": TEXT.about("A parameter.")}
_EITHER: Final = {
    key: {"anyOf": [{"required": [form]} for form in forms]} for key, forms in GOES_WITH.items()
}

SECRET: Final = Section(
    KvSecret,
    "Where in Vault the credential comes from; {stage} is the stage's name.",
    Key(
        "path",
        TEXT,
        "What `vault read PATH` gives, of any engine.",
        "With a lease it is renewed and replaced in time; without one it is replaced before the "
        "end that it tells (below), or read again every 5 minutes.",
        default=None,
    ),
    Key("kv", TEXT, "A KV secret, MOUNT/NAME; version 1 or 2.", default=None),
    Key(
        "static_role",
        TEXT,
        "A database login whose password Vault rotates.",
        "So are keys of `ldap` and `aws`. It is read when a rotation is due, and every second "
        "from then until it has happened.",
        default=None,
    ),
    Key(
        "pki",
        TEXT,
        "A certificate, as in pki/issue/ROLE.",
        "Written with `params`, such as `{common_name: …}`, and replaced before its `expiration`.",
        default=None,
    ),
    Key(
        "method",
        choice("read", "write"),
        "With path.",
        "`write`: what `vault write PATH key=value …` gives.",
        default="read",
    ),
    Key(
        "params",
        Reader(partial(_params, stages=()), _TEXTS),
        "What is written, as in `vault write PATH key=value`.",
        "With `method: write`, and with `pki`.",
        default=None,
    ),
    Key("ttl", LIFETIME, "The life that a credential is asked to have.", otherwise="the stage's"),
    Key("increment", LIFETIME, "What renewals of the lease ask for.", otherwise="the stage's"),
    Key("refresh", duration(1.0, 24 * _HOUR), "How often it is read."),
    Key(
        "max_stale",
        _STALE,
        "How long it is used without having been read.",
        otherwise="1h, or three times refresh",
    ),
    Key("version", whole(1, 999_999_999), "Pins a version of KV v2.", otherwise="the newest"),
    conditions=(
        Condition({"oneOf": [{"required": [form]} for form in FORMS]}),
        Condition({"dependentSchemas": _EITHER}),
    ),
)


def read_secret(value: Value, *, stages: Mapping[str, Lifetimes]) -> Mapping[str, SecretSource]:
    """The source for each of ``stages``, its name in place of ``{stage}``.

    What a stage's secrets ask for holds where this one does not say it.
    """
    table = SECRET.open(value)
    forms = [form for form in FORMS if form in table]
    if len(forms) > 1:
        raise value.wrong(f"has both {' and '.join(forms)}; keep one")
    if not forms:
        if table.complete:
            raise value.wrong(f"names no secret; add {one_of(FORMS)}")
        return {}
    (form,) = forms
    _refuse_others(table, form)
    read = _paths if form == "kv" else _trimmed_paths
    paths: dict[str, str] = SECRET.get(table, form, partial(read, stages=stages), {form: {}})
    if form == "kv":
        return _kv(table, paths)
    return _leased(table, form, paths, stages)


def _leased(
    table: Table, form: str, paths: Mapping[str, str], stages: Mapping[str, Lifetimes]
) -> Mapping[str, SecretSource]:
    write = form == "pki" or SECRET.get(table, "method") == "write"
    if "params" in table and form == "path" and not write:
        table.place.report.refused(table.entries["params"].wrong("goes with method: write"))
    params = SECRET.get(table, "params", partial(_params, stages=stages), {"params": {}})
    sources = {}
    for stage, path in paths.items():
        own = params.get(stage, {})
        asked = _asked(table, form, own, stages[stage])
        sources[stage] = PathSecret(path, write, tuple(own.items()), asked.ttl, asked.increment)
    return MappingProxyType(sources)


def _asked(table: Table, form: str, params: Collection[str], usual: Lifetimes) -> Lifetimes:
    """What this secret asks for in one stage; nothing where Vault would not look at it."""
    if "ttl" in params:
        if "ttl" in table:
            text = "is there, and params.ttl too; keep one of them"
            table.place.report.refused(table.entries["ttl"].wrong(text))
        usual = replace(usual, ttl=None)
    asked = read_lifetimes(table, usual)
    return Lifetimes(
        ttl=asked.ttl if form in GOES_WITH["ttl"] else None,
        increment=asked.increment if form in GOES_WITH["increment"] else None,
    )


def _kv(table: Table, paths: Mapping[str, str]) -> Mapping[str, SecretSource]:
    if any("/" not in path for path in paths.values()):
        text = "has no name after its mount; write MOUNT/NAME, as in secret/geocoder"
        raise table.entries["kv"].wrong(text)
    refresh: float = SECRET.get(table, "refresh")
    usual = {"max_stale": max(_HOUR, 3 * refresh)}
    max_stale = SECRET.get(table, "max_stale", duration(refresh, _MOST_STALE).read, usual)
    version = SECRET.get(table, "version")
    return MappingProxyType(
        {stage: KvSecret(path, refresh, max_stale, version) for stage, path in paths.items()}
    )


def _refuse_others(table: Table, form: str) -> None:
    for key, forms in GOES_WITH.items():
        if key in table and form not in forms:
            table.place.report.refused(table.entries[key].wrong(f"goes with {one_of(forms)} only"))
