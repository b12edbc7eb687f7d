"""What Vault's JSON answers grant; a field that is not as documented is refused."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from math import inf
from typing import Any

from vaultauthz.config.values import KvSecret
from vaultauthz.core import redaction
from vaultauthz.core.credential import NO_LOGIN, Login, on_the_way
from vaultauthz.core.grant import NOT_VAULT, Failure, Grant, Renewal, Verdict, Version
from vaultauthz.core.secret import Fields, Secret, is_token
from vaultauthz.vault import ends
from vaultauthz.vault.ends import Now, seconds
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.transport import Answer

# What a path without a lease is taken for: a static secret, read again and again.
_READ_AGAIN = 300.0
_MAX_STALE = 3600.0

# A static role's password holds until Vault has rotated it, which it does a little late.
_ROTATION_GRACE = 10.0

_LATEST = 10**18  # a version's number; more digits are no number of Vault's
_DIGITS = 40  # of a time in RFC 3339
_MOST_POLICIES = 64
_NAME = 128  # characters of a policy's name


class UnreadLeaseError(VaultError):
    """Vault made a lease and did not say how long it lives; it is there, and to be revoked."""

    def __init__(self, failure: Failure, lease_id: str) -> None:
        super().__init__(failure)
        self.lease_id = lease_id


def token(answer: Answer, sent_at: float) -> Grant:
    """A login's answer: the payload is the token, the lease id its accessor."""
    auth = answer.get("auth")
    if not isinstance(auth, dict) or not is_token(auth.get("client_token")):
        raise VaultError(NOT_VAULT)
    ttl = seconds(auth, "lease_duration") or inf
    accessor = _text(auth, "accessor")
    return Grant(
        payload=Secret(auth["client_token"]),
        ttl=ttl,
        # A batch token has no accessor; two of them must not be taken for one.
        lease_id=accessor or f"batch token {_digest(auth['client_token'])}",
        renewable=auth.get("renewable") is True,
        login=Login(sent_at + ttl, accessor, on_the_way(ttl)),
        request_id=_text(answer, "request_id"),
        uses=_uses(auth.get("num_uses")),
        policies=_policies(auth),
    )


def _policies(auth: dict[str, Any]) -> tuple[str, ...]:
    """What its login has; they are only shown, so what is no list of names is left out.

    Vault takes any text for one: it is shown as other texts of Vault's are.
    """
    named = [auth.get("policies") or (), auth.get("identity_policies") or ()]
    found = [name for names in named if isinstance(names, (list, tuple)) for name in names]
    texts = list(dict.fromkeys(name for name in found if isinstance(name, str)))[:_MOST_POLICIES]
    return tuple(dict.fromkeys(redaction.shown(text)[:_NAME] for text in texts))


def _uses(value: object) -> int:
    """Older servers don't tell; it is only warned of, so whatever it is ends no login."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _digest(token: str) -> str:
    """A name for a token; there is no way back from it, as a token is random."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def renewal(answer: Answer) -> Renewal:
    """The answer to renewing a lease, or (under ``auth``) a token."""
    part = answer.get("auth") if isinstance(answer.get("auth"), dict) else answer
    if not isinstance(part, dict):
        raise VaultError(NOT_VAULT)
    return Renewal(
        seconds(part, "lease_duration"),
        part.get("renewable") is True,
        _text(answer, "request_id"),
    )


def path_secret(answer: Answer, login: Login, now: Now, *, static: bool = False) -> Grant:
    """What any engine gave; the payload is the fields.

    With a lease it is one. Without, it is a static role if it says when Vault last
    rotated it or is read as one (``static``), and ends when it says so; else it is a
    static secret that is read again and again. What it says of its own end counts
    beside its lease, too.
    """
    data: Any = answer.get("data")
    fields = _fields(data)
    said = Grant(
        fields,
        request_id=_text(answer, "request_id"),
        field_ends=ends.of_tokens(fields, now.late),
        certificates=ends.of_certificates(fields),
    )
    if _text(answer, "lease_id"):
        return _leased(answer, said, login, now)
    if _text(data, "last_vault_rotation"):
        return _rotated(data, said)
    end = ends.of_engine(data, now, leased=False)
    if static and end.left < inf:
        return _to_rotate(said, end.left)
    if end.duration < inf:
        said = replace(said, field_ends=ends.of_tokens(fields, now.vault))
    if end.left < inf:
        return replace(said, ttl=max(0.0, end.duration), ends_in=end.moment)
    return replace(said, ttl=_MAX_STALE, read_again=_READ_AGAIN)


def _leased(answer: Answer, said: Grant, login: Login, now: Now) -> Grant:
    lease_id = _text(answer, "lease_id")
    try:
        ttl = seconds(answer, "lease_duration")
    except VaultError as exc:
        raise UnreadLeaseError(exc.failure, lease_id) from None
    return replace(
        said,
        ttl=ttl,
        lease_id=lease_id,
        renewable=answer.get("renewable") is True,
        login=login,
        ends_in=ends.of_engine(answer["data"], now, leased=True).left,
        field_ends=ends.of_tokens(said.payload, now.vault),
    )


def _rotated(data: dict[str, Any], said: Grant) -> Grant:
    """A static role as the database and ldap engines tell it."""
    ttl = seconds(data, "ttl")
    rotated = re.sub(r"\D", "", _sortable(_text(data, "last_vault_rotation")))
    if len(rotated) > _DIGITS:
        raise VaultError(NOT_VAULT)
    version = Version(int(rotated or 0))
    return replace(said, ttl=ttl + _ROTATION_GRACE, rotates_in=ttl, version=version)


def _to_rotate(said: Grant, left: float) -> Grant:
    """A static role whose next rotation is told as its end (aws/static-creds).

    One that is due is still the present one: Vault gives what there is.
    """
    left = min(max(0.0, left), ends.LONGEST)
    return replace(said, ttl=left + _ROTATION_GRACE, rotates_in=left)


def kv(answer: Answer, source: KvSecret, version: int | None, now: Now) -> Grant:
    """A KV read; version 2 has ``metadata`` beside ``data``, version 1 does not."""
    data, edition, deleted_at = answer.get("data"), Version(), inf
    if version == 2:
        data, edition, deleted_at = _kv2(data)
    fields = _fields(data)
    return Grant(
        fields,
        source.max_stale,
        read_again=source.refresh,
        version=edition,
        login=NO_LOGIN,
        request_id=_text(answer, "request_id"),
        # What Vault has given it has not deleted yet, whatever the clocks say.
        ends_in=min(ends.of_kv(data or {}, now), max(1.0, deleted_at - now.vault)),
        field_ends=ends.of_tokens(fields, now.late),
        certificates=ends.of_certificates(fields),
    )


def _kv2(outer: Any) -> tuple[Any, Version, float]:
    """The fields, their version, and when Vault will delete that (``delete_version_after``)."""
    metadata = outer.get("metadata") if isinstance(outer, dict) else None
    if not isinstance(metadata, dict):
        raise VaultError(NOT_VAULT)
    # Not by deletion_time: with delete_version_after it is set for versions that still live.
    if outer.get("data") is None:
        failure = Failure(Verdict.SECRET_GONE, "the secret's current version is deleted")
        raise VaultError(failure)
    number = metadata.get("version")
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) > _LATEST:
        raise VaultError(NOT_VAULT)
    deleted_at = ends.moment(metadata.get("deletion_time"))
    edition = Version(number, _sortable(_text(metadata, "created_time")))
    return outer["data"], edition, inf if deleted_at is None else deleted_at


def _sortable(created: str) -> str:
    """RFC 3339 with nine decimals: Go leaves trailing zeros out, and then text order lies."""
    whole, _, decimals = created.removesuffix("Z").partition(".")
    return f"{whole}.{decimals:0<9}" if created else ""


def _fields(data: Any) -> Fields:
    if not isinstance(data, dict):
        raise VaultError(NOT_VAULT)
    return Fields.of(data)


def _text(part: dict[str, Any], key: str) -> str:
    value = part.get(key)
    return value if isinstance(value, str) else ""
