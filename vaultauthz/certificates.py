"""The certificates that end: of our listeners, of our calls to Vault, of what Envoys are handed out.

Metrics, ``doctor``, ``config check``, ``leases`` and the page are all told by this one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Final

from vaultauthz.config.values import Config
from vaultauthz.core.certificate import (
    ADMIN,
    GRPC,
    UPSTREAM,
    USES,
    VAULT,
    EndingCertificate,
    date,
)
from vaultauthz.core.file_text import BOM
from vaultauthz.server_tls import FollowedTls
from vaultauthz.vault.certificates import Validity, validities

_DAY: Final = 86_400.0
# What becomes of one that has ended.
ENDED: Final = {
    GRPC: "nobody new can connect",
    ADMIN: "nobody new can connect",
    VAULT: "Vault takes no new connection with it",
}


def in_use(
    listeners: Mapping[str, FollowedTls],
    clients: Mapping[str, EndingCertificate],
    issued: Iterable[tuple[str, str, float | None]],
) -> list[EndingCertificate]:
    """What a server uses now, by use, stage and upstream.

    ``listeners`` by the name of ``listen.NAME_tls``, ``clients`` what each stage shows Vault, ``issued``
    stage, upstream and the end of the certificate in each credential, if there is one. Of an upstream
    whose callers have credentials of their own it is the one that ends first.
    """
    found = [
        EndingCertificate(
            use,
            tls.identity.validity.ends,
            not_before=tls.identity.validity.begins,
            file=str(tls.file),
            trouble=tls.trouble,
            taken=tls.taken,
            refused=tls.refused,
        )
        for use, tls in listeners.items()
    ]
    found += [replace(client, stage=stage) for stage, client in clients.items()]
    return sorted((*found, *_first(issued)), key=_order)


def _first(issued: Iterable[tuple[str, str, float | None]]) -> Iterator[EndingCertificate]:
    first: dict[tuple[str, str], float] = {}
    for stage, upstream, not_after in issued:
        if not_after is not None:
            first[stage, upstream] = min(not_after, first.get((stage, upstream), inf))
    for (stage, upstream), not_after in first.items():
        yield EndingCertificate(UPSTREAM, not_after, stage, upstream)


def _order(one: EndingCertificate) -> tuple[int, str, str]:
    return USES.index(one.use), one.stage, one.upstream


def configured(config: Config) -> list[EndingCertificate]:
    """Those in the files that the configuration names, as they are now; no private key is read.

    ``trouble`` of one that cannot be read says why.
    """
    listen = config.listen
    files = ((GRPC, listen.grpc_tls), (ADMIN, listen.admin_tls))
    found = [_in_file(EndingCertificate(use), tls.cert) for use, tls in files if tls]
    for stage in config.stages:
        vault = config.vault_of(stage)
        if vault.tls.client_cert and vault.address.startswith("https:"):
            found.append(_in_file(EndingCertificate(VAULT, stage=stage), vault.tls.client_cert))
    return found


def _in_file(one: EndingCertificate, path: Path) -> EndingCertificate:
    one = replace(one, file=str(path))
    try:
        first = next(iter(validities(path.read_bytes().removeprefix(BOM))), Validity())
    except OSError as exc:
        return replace(one, trouble=f"cannot read {path}: {exc.strerror}")
    return replace(one, not_after=first.ends, not_before=first.begins)


def ending(found: Iterable[EndingCertificate], now: float) -> Iterator[str]:
    """A line for each file whose certificate has ended, or whose end is near; ``now`` since 1970."""
    alike: dict[tuple[str, float], list[EndingCertificate]] = {}
    for one in found:
        if one.near(now):
            alike.setdefault((one.file, one.not_after), []).append(one)
    for (file, not_after), ones in alike.items():
        left = not_after - now
        span = f"{left / _DAY:.1f} days" if left > _DAY / 10 else f"{left / 60:.0f} minutes"
        when = f"ends in {span}" if left > 0 else "has ended"
        then = "" if left > 0 else f", and {ENDED[ones[0].use]}"
        yield (
            f"{ones[0].name}: {file} {when} ({date(not_after)}){then}; "
            "replace it, or see that what renews it runs"
        )
