"""Vault's JSON answers as our values; a field that is not as documented is refused."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from math import inf
from typing import Any

from vaultauthz.config.values import KvSecret
from vaultauthz.core.credential import NO_LOGIN, Login
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict, Version
from vaultauthz.core.secret import Secret
from vaultauthz.vault.errors import NOT_VAULT, VaultError
from vaultauthz.vault.transport import Answer

# What a path without a lease is taken for: a static secret, read again and again.
_READ_AGAIN = 300.0
_MAX_STALE = 3600.0

# A static role's password holds until Vault has rotated it, which it does a little late.
_ROTATION_GRACE = 10.0

_LONGEST = 1e10  # seconds; Go's durations, in which Vault counts, hold no more
# What JSON can say as an escape and no HTTP message can carry.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Fields = Mapping[str, Secret]


def token(answer: Answer, sent_at: float) -> Grant:
    """A login's answer: the payload is the token, the lease id its accessor."""
    auth = answer.get("auth")
    if not isinstance(auth, dict) or not is_token(auth.get("client_token")):
        raise VaultError(NOT_VAULT)
    ttl = _seconds(auth, "lease_duration") or inf
    accessor = _text(auth, "accessor")
    return Grant(
        payload=Secret(auth["client_token"]),
        ttl=ttl,
        # A batch token has no accessor; two of them must not be taken for one.
        lease_id=accessor or f"batch token {_digest(auth['client_token'])}",
        renewable=auth.get("renewable") is True,
        login=Login(sent_at + ttl, accessor),
        request_id=_text(answer, "request_id"),
        uses=_uses(auth.get("num_uses")),
    )


def _uses(value: object) -> int:
    """Older servers don't tell; it is only warned of, so whatever it is ends no login."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _digest(token: str) -> str:
    """A name for a token; there is no way back from it, as a token is random."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def is_token(value: object) -> bool:
    """Whether this can be a login token: it must travel in a header."""
    return isinstance(value, str) and re.fullmatch(r"[\x21-\x7e]+", value) is not None


def renewal(answer: Answer) -> Renewal:
    """The answer to renewing a lease, or (under ``auth``) a token."""
    part = answer.get("auth") if isinstance(answer.get("auth"), dict) else answer
    if not isinstance(part, dict):
        raise VaultError(NOT_VAULT)
    return Renewal(
        _seconds(part, "lease_duration"),
        part.get("renewable") is True,
        _text(answer, "request_id"),
    )


def path_secret(answer: Answer, login: Login, wall: float) -> Grant:
    """What any engine gave; the payload is the fields. ``wall``: the time since 1970.

    With a lease it is one. Without, it is a static role if it says when Vault last
    rotated it, ends at its ``expiration`` if it has one (a certificate), and is else
    a static secret that is read again and again.
    """
    data: Any = answer.get("data")
    fields = _fields(data)
    lease_id, request_id = _text(answer, "lease_id"), _text(answer, "request_id")
    if lease_id:
        return Grant(
            fields,
            _seconds(answer, "lease_duration"),
            lease_id,
            renewable=answer.get("renewable") is True,
            login=login,
            request_id=request_id,
        )
    rotated = _text(data, "last_vault_rotation")
    if rotated:
        ttl = _seconds(data, "ttl")
        return Grant(
            fields,
            ttl + _ROTATION_GRACE,
            rotates_in=ttl,
            version=Version(int(re.sub(r"\D", "", _sortable(rotated)) or 0)),
            request_id=request_id,
        )
    if isinstance(data.get("expiration"), int):
        ttl = min(max(0.0, data["expiration"] - wall), _LONGEST)
        return Grant(fields, ttl, request_id=request_id)
    return Grant(fields, _MAX_STALE, read_again=_READ_AGAIN, request_id=request_id)


def kv(answer: Answer, source: KvSecret, version: int) -> Grant:
    """A KV read; version 2 has ``metadata`` beside ``data``, version 1 does not."""
    data, edition = answer.get("data"), Version()
    if version == 2:
        data, edition = _kv2(data)
    return Grant(
        _fields(data),
        source.max_stale,
        read_again=source.refresh,
        version=edition,
        login=NO_LOGIN,
        request_id=_text(answer, "request_id"),
    )


def _kv2(outer: Any) -> tuple[Any, Version]:
    metadata = outer.get("metadata") if isinstance(outer, dict) else None
    if not isinstance(metadata, dict):
        raise VaultError(NOT_VAULT)
    # Not by deletion_time: with delete_version_after it is set for versions that still live.
    if outer.get("data") is None:
        failure = Failure(Verdict.SECRET_GONE, "the secret's current version is deleted")
        raise VaultError(failure)
    number = metadata.get("version")
    if isinstance(number, bool) or not isinstance(number, int):
        raise VaultError(NOT_VAULT)
    return outer["data"], Version(number, _sortable(_text(metadata, "created_time")))


def _sortable(created: str) -> str:
    """RFC 3339 with nine decimals: Go leaves trailing zeros out, and then text order lies."""
    whole, _, decimals = created.removesuffix("Z").partition(".")
    return f"{whole}.{decimals:0<9}" if created else ""


def _fields(data: Any) -> dict[str, Secret]:
    """Text and numbers as they are, a list of texts as lines; the rest goes on no request."""
    if not isinstance(data, dict):
        raise VaultError(NOT_VAULT)
    fields: dict[str, Secret] = {}
    for name, value in data.items():
        if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
            value = "\n".join(value)  # a certificate's chain  # noqa: PLW2901
        if isinstance(value, str):
            if not _LONE_SURROGATE.search(value):
                fields[name] = Secret(value)
        elif isinstance(value, (bool, int, float)):
            fields[name] = Secret(json.dumps(value))
    return fields


def _seconds(part: dict[str, Any], key: str) -> float:
    """A duration, which must be there: a proxy's 200 with ``{}`` must not end a lease."""
    value = part.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise VaultError(NOT_VAULT)
    if not 0 <= value <= _LONGEST:  # nor is NaN
        raise VaultError(NOT_VAULT)
    return float(value)


def _text(part: dict[str, Any], key: str) -> str:
    value = part.get(key)
    return value if isinstance(value, str) else ""
