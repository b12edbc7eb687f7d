"""``secret`` of an upstream: where in Vault its credential comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

from vaultauthz.config import durations, later, names
from vaultauthz.config.reader import Table, Value, one_of
from vaultauthz.config.values import KvSecret, PathSecret, SecretSource
from vaultauthz.core.template import Template, TemplateError

FORMS: Final = ("kv", "path", "pki", "static_role")
# Which forms each of the other keys goes with.
GOES_WITH: Final = {
    "max_stale": ("kv",),
    "method": ("path",),
    "params": ("path", "pki"),
    "refresh": ("kv",),
    "version": ("kv",),
}
KEYS: Final = tuple(sorted((*FORMS, *GOES_WITH)))
_HOUR = 3600.0
_MOST_STALE = 720 * _HOUR
_REFRESH = partial(durations.between, least=1.0, most=24 * _HOUR)
_VERSION = partial(Value.whole, least=1, most=999_999_999)


def read_secret(value: Value, *, stages: Sequence[str]) -> Mapping[str, SecretSource]:
    """The source for each of ``stages``, its name in place of ``{stage}``."""
    table = value.table(KEYS, later.SECRET)
    forms = [form for form in FORMS if form in table]
    if len(forms) > 1:
        raise value.wrong(f"has both {' and '.join(forms)}; keep one")
    if not forms:
        if table.complete:
            raise value.wrong(f"names no secret; add {one_of(FORMS)}")
        return {}
    (form,) = forms
    _refuse_others(table, form)
    paths = table.get(form, partial(_paths, stages=stages), dict[str, str]())
    if form == "kv":
        return _kv(table, paths)
    write = form == "pki" or table.get("method", _method, "read") == "write"
    if "params" in table and form == "path" and not write:
        table.place.report.refused(table.entries["params"].wrong("goes with method: write"))
    params = table.get("params", partial(_params, stages=stages), dict[str, dict[str, str]]())
    return MappingProxyType(
        {
            stage: PathSecret(path, write, tuple(params.get(stage, {}).items()))
            for stage, path in paths.items()
        }
    )


def _kv(table: Table, paths: Mapping[str, str]) -> Mapping[str, SecretSource]:
    _check_mount(table.entries["kv"], paths)
    refresh = table.get("refresh", _REFRESH, 300.0)
    stale = partial(durations.between, least=refresh, most=_MOST_STALE)
    max_stale = table.get("max_stale", stale, max(_HOUR, 3 * refresh))
    version = table.get("version", _VERSION, None)
    return MappingProxyType(
        {stage: KvSecret(path, refresh, max_stale, version) for stage, path in paths.items()}
    )


def _refuse_others(table: Table, form: str) -> None:
    for key, forms in GOES_WITH.items():
        if key in table and form not in forms:
            table.place.report.refused(table.entries[key].wrong(f"goes with {one_of(forms)} only"))


def _method(value: Value) -> str:
    return value.choice(("read", "write"))


def _params(value: Value, *, stages: Sequence[str]) -> dict[str, dict[str, str]]:
    """The params of each stage; Vault takes text for numbers and booleans too."""
    templates = value.each_entry(lambda _, item: _template(item))
    return {
        stage: {name: _filled(template, stage) for name, template in templates.items()}
        for stage in stages
    }


def _paths(value: Value, *, stages: Sequence[str]) -> dict[str, str]:
    names.vault_path(value)
    template = _template(value)
    return {stage: _filled(template, stage) for stage in stages}


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
