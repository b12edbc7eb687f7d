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

FORMS: Final = ("kv", "path")
KEYS: Final = ("kv", "max_stale", "path", "refresh")
_HOUR = 3600.0
_MOST_STALE = 720 * _HOUR
_REFRESH = partial(durations.between, least=1.0, most=24 * _HOUR)


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
    paths = table.get(forms[0], partial(_paths, stages=stages), dict[str, str]())
    if forms == ["path"]:
        _refuse_schedule(table)
        return MappingProxyType({stage: PathSecret(path) for stage, path in paths.items()})
    _check_mount(table.entries["kv"], paths)
    refresh = table.get("refresh", _REFRESH, 300.0)
    stale = partial(durations.between, least=refresh, most=_MOST_STALE)
    max_stale = table.get("max_stale", stale, max(_HOUR, 3 * refresh))
    return MappingProxyType({s: KvSecret(path, refresh, max_stale) for s, path in paths.items()})


def _paths(value: Value, *, stages: Sequence[str]) -> dict[str, str]:
    path = names.vault_path(value)
    try:
        template = Template.parse(path)
    except TemplateError:
        raise value.wrong("has a stray { or }; {stage} is the only placeholder") from None
    for name in template.fields:
        if name != "stage":
            raise value.wrong(f"{{{name}}} is unknown in a path; {{stage}} is the only placeholder")
    return {stage: _filled(template, stage) for stage in stages}


def _filled(template: Template, stage: str) -> str:
    return "".join(stage if is_field else text for text, is_field in template.parts)


def _refuse_schedule(table: Table) -> None:
    for name in ("max_stale", "refresh"):
        if name in table:
            wrong = table.entries[name].wrong("goes with kv only: a lease sets its own times")
            table.place.report.refused(wrong)


def _check_mount(value: Value, paths: Mapping[str, str]) -> None:
    if any("/" not in path for path in paths.values()):
        raise value.wrong("has no name after its mount; write MOUNT/NAME, as in secret/geocoder")
