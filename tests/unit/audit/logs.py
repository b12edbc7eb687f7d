"""Audit logs as they are written: ours by the chain itself, Vault's as OpenBao 2.7 has it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Final

from vaultauthz.core.events import Access, Event
from vaultauthz.observe.chain import Chain
from vaultauthz.observe.record import of_access, of_event
from vaultauthz.terminal import Output

STAGE: Final = "production"
START: Final = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


def at(second: float) -> str:
    """A time as our log writes it."""
    when = START + timedelta(seconds=second)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def used(second: float, credential: str = "", **values: Any) -> tuple[float, Access | Event]:
    """A request, that many seconds after the start."""
    access = Access(
        STAGE,
        values.pop("upstream", "db"),
        START.timestamp() + second,
        credential_id=credential,
        gateway="envoy",
        method="GET",
        host="db.test",
        path="/rows",
        **values,
    )
    return second, access


def happened(second: float, name: str, **values: Any) -> tuple[float, Access | Event]:
    """Something that happened to a login or a lease."""
    return second, Event(name, STAGE, **values)


def written(*what: tuple[float, Access | Event], chain: Chain | None = None) -> bytes:
    """The log that has it, in this order."""
    chain = chain or Chain()
    entries = (
        of_access(one) if isinstance(one, Access) else of_event(START.timestamp() + second, one)
        for second, one in what
    )
    return b"".join(chain.link(entry) for entry in entries)


def call(second: float, request: str, **values: Any) -> dict[str, Any]:
    """The entry of a call that Vault answered; ``token`` is whose, ``lease`` what it issued."""
    token, lease = values.pop("token", "hmac-1"), values.pop("lease", "")
    auth = {
        "accessor": token,
        "display_name": "approle",
        "policies": ["default", "shop"],
        "token_policies": ["default", "shop"],
        "metadata": {"role_name": "shop"},
        "entity_id": "e-1",
    }
    when = START + timedelta(seconds=second)
    response: dict[str, Any] = {"secret": {"lease_id": lease}} if lease else {}
    if values.pop("login", False):
        response["auth"] = auth
    return {
        "time": when.strftime("%Y-%m-%dT%H:%M:%S.%f999Z"),
        "type": "response",
        "auth": auth,
        "request": {
            "id": request,
            "operation": "read",
            "path": "database/creds/shop",
            "namespace": {"id": "root"},
            "remote_address": "10.0.0.7",
            **values,
        },
        "response": response,
    }


def vaults(*entries: dict[str, Any]) -> bytes:
    """Vault's log: for each answered call also the entry from before it."""
    both: Iterable[dict[str, Any]] = (
        entry for one in entries for entry in ({**one, "type": "request", "response": {}}, one)
    )
    return b"".join(json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in both)


def file(path: Path, data: bytes) -> Path:
    """Write it there."""
    path.write_bytes(data)
    return path


def told(*, as_json: bool = False, width: int | None = None) -> tuple[Output, StringIO]:
    """Where a command prints, and what it has printed."""
    out = StringIO()
    return Output(out, as_json=as_json, width=width), out
