"""``secret`` of an upstream: where in Vault its credential comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final

from vaultauthz.config import durations, names
from vaultauthz.config.lifetimes import Lifetimes, read_lifetimes
from vaultauthz.config.reader import Table, Value, one_of
from vaultauthz.config.values import KvSecret, PathSecret, SecretSource
from vaultauthz.core.template import Template, TemplateError

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
METHODS: Final = ("read", "write")
KEYS: Final = tuple(sorted((*FORMS, *GOES_WITH)))
_HOUR = 3600.0
_MOST_STALE = 768 * _HOUR  # as long as Vault lets a lease live by default
REFRESH: Final = partial(durations.between, least=1.0, most=24 * _HOUR)
VERSION: Final = partial(Value.whole, least=1, most=999_999_999)


def read_secret(value: Value, *, stages: Mapping[str, Lifetimes]) -> Mapping[str, SecretSource]:
    """The source for each of ``stages``, its name in place of ``{stage}``.

    What a stage's secrets ask for holds where this one does not say it.
    """
    table = value.table(KEYS)
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
    paths = table.get(form, partial(read, stages=stages), dict[str, str]())
    if form == "kv":
        return _kv(table, paths)
    return _leased(table, form, paths, stages)


def _leased(
    table: Table, form: str, paths: Mapping[str, str], stages: Mapping[str, Lifetimes]
) -> Mapping[str, SecretSource]:
    write = (
        form == "pki"
        or table.get("method", partial(Value.choice, allowed=METHODS), "read") == "write"
    )
    if "params" in table and form == "path" and not write:
        table.place.report.refused(table.entries["params"].wrong("goes with method: write"))
    params = table.get("params", partial(_params, stages=stages), dict[str, dict[str, str]]())
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
    _check_mount(table.entries["kv"], paths)
    refresh = table.get("refresh", REFRESH, 300.0)
    stale = partial(durations.between, least=refresh, most=_MOST_STALE)
    max_stale = table.get("max_stale", stale, max(_HOUR, 3 * refresh))
    version = table.get("version", VERSION, None)
    return MappingProxyType(
        {stage: KvSecret(path, refresh, max_stale, version) for stage, path in paths.items()}
    )


def _refuse_others(table: Table, form: str) -> None:
    for key, forms in GOES_WITH.items():
        if key in table and form not in forms:
            table.place.report.refused(table.entries[key].wrong(f"goes with {one_of(forms)} only"))


def _params(value: Value, *, stages: Collection[str]) -> dict[str, dict[str, str]]:
    """The params of each stage; Vault takes text for numbers and booleans too."""
    templates = value.each_entry(lambda _, item: _template(item))
    return {
        stage: {name: _filled(template, stage) for name, template in templates.items()}
        for stage in stages
    }


def _paths(value: Value, *, stages: Collection[str]) -> dict[str, str]:
    names.vault_path(value)
    template = _template(value)
    return {stage: _filled(template, stage) for stage in stages}


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


def _check_mount(value: Value, paths: Mapping[str, str]) -> None:
    if any("/" not in path for path in paths.values()):
        raise value.wrong("has no name after its mount; write MOUNT/NAME, as in secret/geocoder")
