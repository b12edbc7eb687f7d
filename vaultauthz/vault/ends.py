"""When a credential ends by what it says of itself, where no lease says it.

Vault's engines and their plugins tell it in a field: a duration (``ttl`` of an identity
token, ``token_ttl`` of a GCP one, ``expires_in``) or a moment (``expiration`` of pki and
of aws/static-creds, ``expires_at_seconds`` of GCP, ``expires_at`` of the GitHub plugin).
A JSON Web Token carries its own ``exp`` (RFC 7519, 4.1.4), a certificate its ``notAfter``,
wherever they are stored.

Everything here is a function of the answer and of the time; ends are told as seconds from
now, so that they go on by the keeper's clock: a wall clock that is set back later
prolongs nothing.

A TOTP code ends with the time step that it was made for (RFC 6238). OpenBao says with the code when
it ends. Vault's answer holds the code and nothing else: how long a step is, it says where the key
is described, which shows no secret.
"""

from __future__ import annotations

import base64
import json
import re
from calendar import timegm
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from math import floor, inf, isfinite
from typing import Any, Final

from vaultauthz.core.duration import length_of
from vaultauthz.core.grant import NOT_VAULT, Failure, Grant, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.certificates import not_after
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.transport import Answer

LONGEST: Final = 1e10  # seconds; Go's durations, in which Vault counts, hold no more

# As they are written without case, hyphens and underscores: expires_at, expiresAt.
# What ends may stand before it: access_token_expires_at.
_WHOSE: Final = re.compile(r"(?:access|api|auth|bearer|id|security|session)?(?:token|key)")
_DURATIONS: Final = frozenset(("ttl", "expiresin", "expiresinseconds"))
_MOMENTS: Final = frozenset(
    (
        *("expiresat", "expiresatseconds", "expiresatms", "expireson", "expires", "expiresdate"),
        *("expiration", "expirationtime", "expirationdate", "expiretime", "expiry", "expirydate"),
        *("expiredat", "notafter", "validuntil", "validto"),
    )
)

_NUMBER: Final = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,20})?", re.ASCII)
_RFC_3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d{1,30})?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
)
_GO_ZERO: Final = "0001-01-01T00:00:00"  # how Go writes a time that was never set
_MOST_SECONDS: Final = 1e11  # since 1970: the year 5138; in milliseconds, 1973
_DECADE: Final = 10 * 366 * 86400.0
# Three parts in base64url; the last is empty where nobody has signed.
_JWT: Final = re.compile(r"(?<![\w.-])([\w-]{4,})\.([\w-]{2,})\.[\w-]*(?![\w.-])", re.ASCII)
_CODE: Final = re.compile(r"(.+)/code/([^/]+)")
_TOLD: Final = frozenset(("expire_time", "generated", "period"))
_LONGEST: Final = 86400  # seconds; what is longer is no time step
# The first second of a step: the header that tells the time may be from after the code.
_UNSURE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Now:
    """The time of an answer, in seconds since 1970.

    ``vault`` is by the clock of the server that made it, ``late`` by that or ours,
    whichever is ahead: what has ended by one of them is not used.
    """

    vault: float
    late: float

    @classmethod
    def of(cls, wall: float, date: float | None) -> Now:
        """``wall`` is our clock after the answer, ``date`` the header's whole seconds."""
        if date is None or date <= wall < date + 2.0:  # they agree as far as can be told
            return cls(wall, wall)
        return cls(date + 1.0, max(wall, date + 1.0))


@dataclass(frozen=True, slots=True)
class ToldEnds:
    """Seconds from now; infinity for what is not told."""

    duration: float = inf
    moment: float = inf

    @property
    def left(self) -> float:
        """Until the earlier of both."""
        return min(self.duration, self.moment)


def seconds(part: Mapping[str, Any], key: str) -> float:
    """A duration of Vault's own, which must be there: a proxy's ``{}`` must not end a lease.

    Raises:
        VaultError: it is not a number, or none that a duration in Vault can be.
    """
    value = part.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise VaultError(NOT_VAULT)
    if not 0 <= value <= LONGEST:  # nor is NaN
        raise VaultError(NOT_VAULT)
    return float(value)


def of_engine(data: Mapping[str, Any], now: Now, *, leased: bool) -> ToldEnds:
    """What an engine's answer says.

    A lease says its end by itself: what cannot be read beside it is not asked about, and
    a duration of 0, or a moment before 1970, there means that nothing else ends it.

    Raises:
        VaultError: without a lease, an end is told in a form that is not known.
    """
    durations, moments = [], []
    for name, value in data.items():
        plain = _plain(name)
        if plain not in _DURATIONS | _MOMENTS or value in (None, "") or _is_unset(value):
            continue
        found = _either(value, now, duration=plain in _DURATIONS)
        if found is None and not leased:
            raise VaultError(_unreadable(name))
        if found is None or (leased and (found[0] == 0.0 or found[1] <= 0.0)):
            continue
        durations.append(found[0])
        moments.append(found[1])
    duration = min(durations, default=inf)
    # Where Vault tells a duration, too, its own clock is asked about the moment: both are
    # of one making, and ours, were it wrong, would end a good credential.
    clock = now.vault if leased or duration < inf else now.late
    return ToldEnds(duration, min(moments, default=inf) - clock)


def of_kv(data: Mapping[str, Any], now: Now) -> float:
    """Seconds until the earliest moment that a stored secret names as its end.

    Its fields are whatever their writer made them: only a moment that cannot be taken for
    anything else counts, and a duration, which has no beginning, never does.
    """
    found = []
    for name, value in data.items():
        if _plain(name) in _MOMENTS and not _is_unset(value):
            at = _moment(value)
            if at is not None and at > 1e9:
                found.append(at)
    return min(found, default=inf) - now.late


def of_tokens(fields: Mapping[str, Secret], now: float) -> dict[str, float]:
    """Seconds until the ends of the JSON Web Tokens and the certificate in each field.

    A token whose ``exp`` cannot be read has ended.
    """
    found = {name: min(_expiries(secret.reveal()), default=inf) for name, secret in fields.items()}
    return {name: at - now for name, at in found.items() if at < inf}


def of_certificates(fields: Mapping[str, Secret]) -> dict[str, float]:
    """When the certificate in each field ends, in seconds since 1970; fields without one are left out."""
    found = {name: not_after(secret.reveal()) for name, secret in fields.items()}
    return {name: at for name, at in found.items() if at is not None}


def moment(value: object) -> float | None:
    """A time in RFC 3339, in seconds since 1970; None where it is none."""
    return _moment(value) if isinstance(value, str) and not _is_unset(value) else None


def _plain(name: object) -> str:
    if not isinstance(name, str) or len(name) >= 40:
        return ""
    plain = re.sub("[-_]", "", name).lower()
    whose = _WHOSE.match(plain)
    return plain[whose.end() :] if whose else plain


def _is_unset(value: object) -> bool:
    return isinstance(value, str) and value.startswith(_GO_ZERO)


def _either(value: object, now: Now, *, duration: bool) -> tuple[float, float] | None:
    """(duration, moment), one of them infinite; None where it is neither."""
    if duration:
        length = _number(value)
        if length is None and isinstance(value, str):
            length = length_of(value)
        # A time since 1970 under a name for durations: three decades are no life of a token.
        if length is not None and not (length > 1e9 and abs(length - now.vault) < _DECADE):
            return (length, inf) if length <= LONGEST else None
    at = _moment(value)
    return None if at is None else (inf, at)


def _moment(value: object) -> float | None:
    number = _number(value)
    if number is not None:
        for _ in range(3):  # milli-, micro- or nanoseconds since 1970, by their size
            if abs(number) >= _MOST_SECONDS:
                number /= 1000
        return number if abs(number) < _MOST_SECONDS else None
    return _rfc_3339(value) if isinstance(value, str) else None


def _number(value: object) -> float | None:
    """A finite number, also one that is written as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        return float(value) if _NUMBER.fullmatch(value) else None
    if not isinstance(value, (int, float)) or not -1e21 < value < 1e21:  # nor is NaN
        return None
    return float(value) if isfinite(value) else None


def _rfc_3339(text: str) -> float | None:
    match = _RFC_3339.fullmatch(text.strip())
    if match is None:
        return None
    day, minute, second, fraction, sign, hours, minutes = match.groups()
    try:
        at = timegm(datetime.strptime(f"{day} {minute}", "%Y-%m-%d %H:%M").timetuple())  # noqa: DTZ007
    except ValueError:
        return None
    if int(second) > 60:  # 60 is a leap second
        return None
    ahead = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    return at + int(second) + float(fraction or 0) - ahead


def _expiries(text: str) -> Iterator[float]:
    of_certificate = not_after(text)
    if of_certificate is not None:
        yield of_certificate
    for match in _JWT.finditer(text):
        header, claims = _object(match[1]), _object(match[2])
        if header is None or claims is None or "alg" not in header:
            continue
        exp = claims.get("exp")
        if exp is not None:
            at = _moment(exp) if not isinstance(exp, str) or _number(exp) is not None else None
            yield -inf if at is None else at


def _object(part: str) -> dict[str, Any] | None:
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _unreadable(name: str) -> Failure:
    # The name is as one of ours but for its case, hyphens and underscores: fit to be shown.
    text = f"the secret says when it ends ({name}) in a form that is not known"
    return Failure(Verdict.REFUSED, text)


def key_path(path: str) -> str:
    """Where the key is described whose codes ``path`` gives; "" where it gives none."""
    match = _CODE.fullmatch(path)
    return f"{match[1]}/keys/{match[2]}" if match else ""


def is_code(path: str, answer: Answer) -> bool:
    """Whether this is a code."""
    data = answer.get("data")
    return bool(key_path(path)) and isinstance(data, dict) and set(data) - _TOLD == {"code"}


def by_expire_time(grant: Grant, answer: Answer, now: Now) -> Grant | None:
    """The code's grant by what OpenBao says beside it; None where nothing is said (Vault)."""
    end = answer["data"].get("expire_time")
    if isinstance(end, bool) or not isinstance(end, (int, float)):
        return None
    return _until(grant, min(end, now.vault + _LONGEST) - now.vault)


def unknown(key: str) -> Failure:
    """Why a code cannot be used when its key may not be looked at."""
    text = f"nobody says how long the TOTP code is good: let the policy allow read on {key}"
    return Failure(Verdict.REFUSED, text)


def bounded(grant: Grant, key: Answer, now: Now) -> Grant:
    """The code's grant, which ends with its time step.

    Raises:
        VaultError: the key's description does not tell its period.
    """
    data = key.get("data")
    period = data.get("period") if isinstance(data, dict) else None
    if isinstance(period, bool) or not isinstance(period, int) or not 1 <= period <= _LONGEST:
        raise VaultError(NOT_VAULT)
    # By Vault's clock, which the code was made by.
    since = now.vault - floor(now.vault / period) * period
    left = period - since
    if since < _UNSURE:
        return replace(grant, ttl=min(_UNSURE, left), read_again=None)
    return _until(grant, left)


def _until(grant: Grant, left: float) -> Grant:
    """The next code is not there before this one has ended: it is not asked for before."""
    left = max(0.0, left)
    return replace(grant, ttl=left, read_again=None, rotates_in=left, ends_in=left)
