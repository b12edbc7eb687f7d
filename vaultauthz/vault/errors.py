"""What each failed call means: one table from outcome to verdict.

Sources: Vault's HTTP status codes (its API documentation, "HTTP Status Codes")
and what OpenBao 2.7 answered to each case in our tests.
"""

from __future__ import annotations

import ssl
from enum import Enum

import requests
import urllib3

from vaultauthz.core.grant import Failure, Verdict


class Call(Enum):
    """What was asked of Vault, where the same answer means different things."""

    LOGIN = "login"
    LOGIN_LOCKABLE = "login that locks the role when it fails often"
    READ = "read"
    RENEW = "renew"
    REVOKE = "revoke"
    OTHER = "other"


class VaultError(Exception):
    """A call to Vault that did not work.

    ``failure`` is what the machine acts on. ``status`` is the HTTP status, 0 when
    there was no answer. ``detail`` is Vault's own text, cut and cleaned, for the
    operator's log only: never for a client or the audit log.
    """

    def __init__(self, failure: Failure, status: int = 0, detail: str = "") -> None:
        self.failure = failure
        self.status = status
        self.detail = detail
        super().__init__(failure.reason)


# Parts of Vault's texts for 400 on renew and revoke that decide what it means.
_LEASE_GONE = ("lease not found", "lease expired", "invalid lease")
_PASSES = ("failed to connect", "connection refused", "timeout", "timed out")

_BY_STATUS: dict[int, tuple[Verdict, str]] = {
    400: (Verdict.REFUSED, "Vault refused the request"),
    401: (Verdict.REFUSED, "Vault refused the login"),
    403: (Verdict.REFUSED, "permission denied by Vault"),
    404: (Verdict.SECRET_GONE, "nothing at this path in Vault"),
    405: (Verdict.REFUSED, "Vault does not take this operation at the path"),
    412: (Verdict.RETRY, "this Vault node lags behind"),
    429: (Verdict.RETRY, "Vault asks for fewer requests"),
    472: (Verdict.RETRY, "this Vault node is a disaster recovery standby"),
    473: (Verdict.RETRY, "this Vault node is a standby"),
    503: (Verdict.RETRY, "Vault is sealed or down for maintenance"),
}

# Vault itself, or what stands before it, could not serve. A 500 may be one engine's.
_AWAY = frozenset((429, 472, 473, 502, 503, 504))


def of_status(call: Call, status: int, texts: list[str], retry_after: float) -> Failure:
    """The meaning of an HTTP answer that is not a success."""
    if status == 400:
        return _of_400(call, " ".join(texts).lower())
    if status == 404 and call is not Call.READ:
        return Failure(Verdict.REFUSED, "Vault knows no such path")
    if status in _BY_STATUS:
        verdict, reason = _BY_STATUS[status]
        return Failure(verdict, reason, retry_after, away=status in _AWAY)
    if 300 <= status < 400:
        return Failure(Verdict.RETRY, "Vault redirects to another host, which is not followed")
    if status >= 500:
        return Failure(Verdict.RETRY, f"Vault answered {status}", retry_after, away=status in _AWAY)
    return Failure(Verdict.REFUSED, f"Vault answered {status}")


def _of_400(call: Call, text: str) -> Failure:
    if call is Call.LOGIN_LOCKABLE:
        return Failure(Verdict.LOCKED, "Vault refused the login; not tried again by itself")
    if call in (Call.RENEW, Call.REVOKE):
        if any(part in text for part in _LEASE_GONE):
            return Failure(Verdict.LEASE_GONE, "the lease is gone")
        if any(part in text for part in _PASSES):
            return Failure(Verdict.RETRY, "Vault could not reach the service behind the lease")
    return Failure(Verdict.REFUSED, "Vault refused the request")


def of_exception(exc: Exception) -> Failure:
    """The meaning of a call that brought no answer; of requests' errors and urllib3's."""
    # SSLError is a ConnectionError for requests, so it must be asked for first.
    if isinstance(exc, requests.exceptions.SSLError) and not _hung_up(exc):
        return Failure(Verdict.REFUSED, "the TLS handshake with Vault failed")
    if isinstance(exc, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return TOO_SLOW
    if isinstance(exc, requests.ConnectionError):
        return Failure(Verdict.RETRY, "Vault cannot be reached", away=True)
    return Failure(Verdict.RETRY, "the exchange with Vault broke off", away=True)


def _hung_up(exc: BaseException | None) -> bool:
    """Whether the other side closed within the handshake, as a server that stops does."""
    while exc is not None:
        if isinstance(exc, (ssl.SSLEOFError, ConnectionError)):
            return True
        exc = exc.__context__
    return False


NOT_VAULT = Failure(Verdict.RETRY, "the answer is not Vault's (no JSON object)")
TOO_LARGE = Failure(Verdict.REFUSED, "the answer is larger than 1 MiB")
TOO_SLOW = Failure(Verdict.RETRY, "Vault did not answer in time", away=True)
TOKEN_DEAD = Failure(Verdict.TOKEN_DEAD, "the login token does not exist any more")
