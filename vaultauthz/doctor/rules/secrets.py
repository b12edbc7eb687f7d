"""The secrets: is the engine behind each path the right one, and what a dry fetch came to."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final

from vaultauthz.config.values import KvSecret, PathSecret
from vaultauthz.core.grant import Verdict
from vaultauthz.core.redaction import names
from vaultauthz.doctor.evidence import ExaminedStage, Fetched, Place
from vaultauthz.doctor.finding import Finding, error, span, warning
from vaultauthz.vault.ends import key_path

_BRIEF: Final = 60.0  # a lease of less is replaced all the time
_ROUNDING: Final = 2.0  # seconds


def _allowed(stage: ExaminedStage, path: str) -> bool:
    """Whether the token is known to have its rights there."""
    return any(a.need.path == path and not a.missing for a in stage.accesses)


def none_mounted(stage: ExaminedStage) -> Iterator[Finding]:
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


def no_kv(stage: ExaminedStage) -> Iterator[Finding]:
    """``kv`` that names an engine of another kind."""
    for place in stage.places:
        if isinstance(place.source, KvSecret) and place.mount and not place.mount.kv_version:
            yield error(
                f"secret.kv: at {place.mount.path}/ is an engine of type {place.mount.type}",
                "only KV engines are read this way",
                f"write secret: {{path: {place.source.path}}}",
                upstream=place.upstream,
            )


def data_twice(stage: ExaminedStage) -> Iterator[Finding]:
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


def kv_by_path(stage: ExaminedStage) -> Iterator[Finding]:
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


def no_versions(stage: ExaminedStage) -> Iterator[Finding]:
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


# --- the dry fetch of each secret: was it given, with the right fields, for long enough ---


def _pairs(stage: ExaminedStage) -> Iterator[tuple[Fetched, Place]]:
    places = {place.upstream: place for place in stage.places}
    return ((fetch, places[fetch.upstream]) for fetch in stage.fetched)


def not_given(stage: ExaminedStage) -> Iterator[Finding]:
    """Vault did not give it, for a reason that no other rule has told."""
    untold = {a.need.path for a in stage.accesses if a.missing}
    for fetch, place in _pairs(stage):
        if fetch.trouble is None or place.path in untold or place.trouble:
            continue
        mend, lines = _way_out(stage, fetch, place)
        yield error(
            f"{place.source.path} was not given: {fetch.trouble}",
            "requests for this upstream are answered 503",
            mend,
            *lines,
            upstream=fetch.upstream,
        )


def _way_out(stage: ExaminedStage, fetch: Fetched, place: Place) -> tuple[str, tuple[str, ...]]:
    assert fetch.trouble
    path = place.source.path
    if isinstance(place.source, KvSecret):
        if fetch.trouble.verdict is Verdict.SECRET_GONE:
            pairs = " ".join(f"{name}=…" for name in fetch.wanted)
            line = stage.command("kv put", f"{quote(path)} {pairs}")
            return "write it (or correct the path)", (line,)
        return "see whether it can be read with this", (stage.command("kv get", quote(path)),)
    if fetch.trouble.status >= 500:
        return "the engine could not reach its service: see its connection, and Vault's log", ()
    head, _, _ = path.rpartition("/")
    roles = head.replace("/static-creds", "/static-roles").replace("/creds", "/roles")
    listing = (stage.command("list", quote(roles.replace("/issue", "/roles"))),)
    return "see that the role is there, and that it is spelled so", listing


def fields(stage: ExaminedStage) -> Iterator[Finding]:
    """A field that ``inject`` asks for is not in the secret."""
    for fetch, place in _pairs(stage):
        if fetch.trouble or not fetch.lacking:
            continue
        has = names(fetch.fields) or "no fields"
        lines = []
        if isinstance(place.source, KvSecret):
            pairs = " ".join(f"{name}=…" for name in fetch.lacking)
            lines.append(stage.command("kv patch", f"{quote(place.source.path)} {pairs}"))
        yield error(
            f"{place.source.path} has no field {', '.join(fetch.lacking)}; it has: {has}",
            "inject cannot fill in what is not there; requests are answered 503",
            "correct the name in inject" + (", or add the field" if lines else ""),
            *lines,
            upstream=fetch.upstream,
        )


def unfit(stage: ExaminedStage) -> Iterator[Finding]:
    """A value that HTTP cannot carry, that is blank, or that has ended."""
    for fetch, place in _pairs(stage):
        if fetch.unfit:
            yield error(
                f"{place.source.path}: {fetch.unfit}",
                "it is refused, and requests are answered 503",
                fetch.unfit_mend,
                upstream=fetch.upstream,
            )


def brief(stage: ExaminedStage) -> Iterator[Finding]:
    """A lease that is gone before it is of use, or a credential that ends as soon without one."""
    for fetch, place in _pairs(stage):
        if fetch.lease_id and fetch.ttl < _BRIEF:
            yield warning(
                f"a lease of {place.source.path} lives for {span(fetch.ttl)}",
                "it is renewed or replaced every few seconds, and gone as soon as Vault is away "
                "for a moment",
                "let the role give at least five minutes (default_ttl), or ask for more with "
                "secret.ttl",
                upstream=fetch.upstream,
            )
        elif _ends_soon(fetch) and not key_path(place.source.path):
            yield warning(
                f"what {place.source.path} gives ends in {span(fetch.ends_in or 0)}, by its own word",
                "it is fetched anew every few seconds, and there is none as soon as Vault is away "
                "for a moment, or has nothing newer",
                "have it live for at least five minutes (a role's ttl), or write the new one",
                upstream=fetch.upstream,
            )


def _ends_soon(fetch: Fetched) -> bool:
    return not fetch.unfit and fetch.ends_in is not None and fetch.ends_in < _BRIEF


def less_than_asked(stage: ExaminedStage) -> Iterator[Finding]:
    """``secret.ttl`` that the role does not grant."""
    for fetch, place in _pairs(stage):
        asked = place.source.ttl if isinstance(place.source, PathSecret) else None
        if fetch.lease_id and asked is not None and fetch.ttl < asked - _ROUNDING:
            yield warning(
                f"secret.ttl asks for {span(asked)}, Vault gives {span(fetch.ttl)}",
                "the role, or the engine's tuning, bounds it: the credential is replaced more often",
                "ask for less, or raise max_ttl of the role",
                upstream=fetch.upstream,
            )


def left_behind(stage: ExaminedStage) -> Iterator[Finding]:
    """A lease of this examination is still there."""
    for fetch in stage.leases:
        if fetch.left:
            yield warning(
                f"the lease that doctor took could not be revoked: {fetch.left}",
                f"the login that Vault made for it lives for another {span(fetch.ttl)}",
                "revoke it",
                stage.command("lease revoke", quote(fetch.lease_id)),
                upstream=fetch.upstream,
            )
