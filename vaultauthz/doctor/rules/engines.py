"""The engine behind each path: is there one, and is it the kind that the upstream takes it for."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from vaultauthz.config.values import KvSecret, PathSecret
from vaultauthz.doctor.facts import Place, Stage
from vaultauthz.doctor.finding import Finding, error, warning


def _allowed(stage: Stage, path: str) -> bool:
    """Whether the token is known to have its rights there."""
    return any(a.need.path == path and not a.missing for a in stage.accesses)


def none_mounted(stage: Stage) -> Iterator[Finding]:
    """The policy allows the path, and Vault still knows no engine there."""
    for place in stage.places:
        trouble = place.trouble
        if trouble is None or trouble.away or not _allowed(stage, place.path):
            continue
        if trouble.status not in (403, 404):
            yield error(
                f"the engine at {place.path} is not known: {trouble}",
                f"the credential of {place.upstream} cannot be judged",
                "mend what Vault says",
                upstream=place.upstream,
            )
            continue
        yield error(
            f"no engine is mounted at {place.path}",
            f"there is nothing to fetch the credential of {place.upstream} from",
            "correct the path (or the namespace), or enable the engine; this shows which there are",
            stage.command("secrets list", ""),
            upstream=place.upstream,
        )


def no_kv(stage: Stage) -> Iterator[Finding]:
    """``kv`` that names an engine of another kind."""
    for place in stage.places:
        if isinstance(place.source, KvSecret) and place.mount and not place.mount.kv_version:
            yield error(
                f"secret.kv: at {place.mount.path}/ is an engine of type {place.mount.type}",
                "only KV engines are read this way",
                f"write secret: {{path: {place.source.path}}}",
                upstream=place.upstream,
            )


def data_twice(stage: Stage) -> Iterator[Finding]:
    """``kv: secret/data/name``: the HTTP API's path, where the command line's is wanted."""
    for place in stage.places:
        name = _name_in_kv2(place)
        if isinstance(place.source, KvSecret) and name.startswith("data/"):
            assert place.mount
            right = f"{place.mount.path}/{name.removeprefix('data/')}"
            yield error(
                f"secret.kv: {place.source.path} is read at {place.path}: data/ stands there twice",
                "data/ is put in by vaultauthz, as by `kv get`",
                f"write secret: {{kv: {right}}}",
                upstream=place.upstream,
            )


def kv_by_path(stage: Stage) -> Iterator[Finding]:
    """``path`` that names a secret of KV version 2, whose fields lie a level deeper."""
    for place in stage.places:
        name = _name_in_kv2(place)
        if isinstance(place.source, PathSecret) and name:
            assert place.mount
            yield error(
                f"secret.path: {place.source.path} is of a KV engine, version 2",
                "its fields are wrapped in data and metadata, and are not found",
                f"write secret: {{kv: {place.mount.path}/{name.removeprefix('data/')}}}",
                upstream=place.upstream,
            )


def _name_in_kv2(place: Place) -> str:
    if place.mount is None or place.mount.kv_version != 2:
        return ""
    return place.source.path.removeprefix(f"{place.mount.path}/")


def no_versions(stage: Stage) -> Iterator[Finding]:
    """``version`` of a KV engine that keeps none."""
    for place in stage.places:
        source = place.source
        pinned = isinstance(source, KvSecret) and source.version is not None
        if pinned and place.mount and place.mount.kv_version == 1:
            yield warning(
                f"secret.version pins one of {source.path}, and {place.mount.path}/ keeps none "
                "(KV version 1)",
                "what is newest is used, whatever version says",
                "remove version, or upgrade the engine",
                stage.command("kv enable-versioning", quote(f"{place.mount.path}/")),
                upstream=place.upstream,
            )
