"""What each failed call means: one table for Vault's answers, one for no answer.

Sources: Vault's HTTP status codes (its API documentation, "HTTP Status Codes")
and what OpenBao 2.7 answered to each case in our tests, a test for each row.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret


class Call(Enum):
    """What was asked of Vault, where the same answer means different things."""

    LOGIN = "login"
    LOGIN_LOCKABLE = "login that locks the role when it fails often"
    READ = "read"
    RENEW = "renew"
    REVOKE = "revoke"
    OTHER = "other"


class NodeFate(Enum):
    """What a failure says about the node of the cluster that was asked."""

    FINE = "another would say the same"
    BUSY = "Vault cannot serve just now, and none of the others would"
    UNSURE = "it may have done it; the next call goes to another"
    OUT = "it certainly has not done it; the call goes to another at once"


class Denial(Enum):
    """Whom a 403 is about, by its text: a policy's no says nothing about the token."""

    TOKEN = "Vault does not take the token"
    POLICY = "Vault takes the token, and its policy says no"
    UNCLEAR = "the text is neither"


class VaultError(Exception):
    """A call to Vault that did not work.

    ``failure`` is what the machine acts on. ``status`` is the HTTP status, 0 when
    there was no answer. ``detail`` is Vault's own text, as ``core.redaction`` shows it, for
    the operator's log only: never for a client or the audit log. ``denied`` is of a 403.
    """

    def __init__(
        self,
        failure: Failure,
        status: int = 0,
        detail: str = "",
        node: NodeFate = NodeFate.FINE,
        denied: Denial = Denial.UNCLEAR,
        *,
        text: str = "",
    ) -> None:
        self.failure = failure
        self.status = status
        self.detail = detail
        self.node = node
        self.denied = denied
        self.of_wrapping = False  # the text is about a wrapping token; ``detail`` may hide that
        self._text = Secret(" ".join(text.split()))  # it may quote what was sent
        super().__init__(failure.reason)

    def says(self, phrase: str) -> bool:
        """Whether Vault's own text has this, in lower case; ` … ` stands for what may be between.

        Of the whole text, in which ``detail`` hides each word that was sent to Vault: the name
        of a header, for one.
        """
        at, text = 0, self._text.reveal()
        for part in phrase.split(" … "):
            found = text.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return True

    def meaning(self, failure: Failure) -> VaultError:
        """The same answer where it means something else: what the method knows better."""
        return VaultError(failure, self.status, self.detail, text=self._text.reveal())

    @property
    def explained(self) -> str:
        """For an operator: our reason, and Vault's own words."""
        if self.failure.verdict is Verdict.TOKEN_DEAD:
            return "the token is not valid, or not any more"
        reason = self.failure.reason
        return f"{reason} ({self.detail})" if self.detail else reason

    @property
    def unanswered(self) -> bool:
        """Whether it was sent, and whether Vault has done it, or yet will, is not known."""
        return self.node is NodeFate.UNSURE


@dataclass(frozen=True, slots=True)
class Row:
    """``texts``: one of these is in Vault's text, in lower case; () for any text, or none.

    ``wait``: seconds that are waited at least. ``with_errors``: only if the answer is Vault's
    own, JSON with ``errors``, and not that of a proxy before it.
    """

    statuses: tuple[int, ...] | range
    calls: tuple[Call, ...]
    texts: tuple[str, ...]
    verdict: Verdict
    node: NodeFate
    reason: str
    wait: float = 0.0
    with_errors: bool = False


_RETRY, _REFUSED, _SECRET_GONE = Verdict.RETRY, Verdict.REFUSED, Verdict.SECRET_GONE
_FINE, _BUSY, _UNSURE, _OUT = NodeFate.FINE, NodeFate.BUSY, NodeFate.UNSURE, NodeFate.OUT
_ANY, _READ, _LEASE = tuple(Call), (Call.READ,), (Call.RENEW, Call.REVOKE)
_LOGIN, _LOCKABLE = (Call.LOGIN,), (Call.LOGIN_LOCKABLE,)

# The directory, or the issuer of a JWT, could not be asked about what we gave.
_NO_DIRECTORY = (
    "error connecting to host",
    "failed to connect",  # HashiCorp's, with status 500
    'ldap result code 200 "network error"',
)
_UNREACHED = ("failed to connect", "connection refused", "timeout", "timed out", "no such host")
_THROTTLED = ("throttling", "rate exceeded", "too many requests", "toomanyrequests", "slowdown")
_NO_KEYS = ("get keys failed", "fetching keys")
_OTHER_CERT = ("client identity during renewal", "client authority identity during renewal")
_TOO_LONG = ("exceeds allowed length", "request body too large")
# Of the whole of Vault. Another 503 with a text is one engine's.
_SEALED = ("sealed", "not initialized", "uninitialized", "maintenance", "standby", "recovery mode")
_OVERLOADED = ("overload", "server is busy")
_GONE = ("lease not found", "lease expired", "invalid lease")
_NO_SPACE, _SPACE_LOCKED = ("namespace not found",), ("to this namespace has been locked",)
_PHRASES = frozenset(("", *(status.phrase.lower() for status in HTTPStatus)))
_NO_MOUNT, _NO_ACTIVE = ("no handler for route",), ("local node not active",)

# The first row that fits is the answer's meaning.
# fmt: off
ROWS: tuple[Row, ...] = (
    Row((400, 500), _LOCKABLE, _NO_DIRECTORY, _RETRY, _FINE, "Vault could not reach the directory"),
    Row((400,), _LOCKABLE, (), Verdict.LOCKED, _FINE,
        "Vault refused the login; not tried again by itself"),
    Row((400,), _LOGIN, _UNREACHED, _RETRY, _FINE, "Vault could not check the login"),
    Row((400,), _LOGIN, _NO_KEYS, _RETRY, _FINE, "Vault could not fetch the keys that sign JWTs"),
    Row((400,), _LEASE, _GONE, Verdict.LEASE_GONE, _FINE, "the lease is gone"),
    Row((400,), _LEASE, _UNREACHED, _RETRY, _FINE,
        "Vault could not reach the service behind the lease"),
    Row((400,), _ANY, _THROTTLED, _RETRY, _FINE, "the service behind Vault asks for fewer requests"),
    Row((400, 500), _LEASE, _OTHER_CERT, _REFUSED, _FINE,
        # Its renewal works with the certificate only that the token was given to.
        "the token was given to another certificate"),
    Row((400,), _ANY, (), _REFUSED, _FINE, "Vault refused the request"),
    Row((401,), _ANY, (), _REFUSED, _FINE, "Vault refused the login"),
    # Five wrong logins lock a user or role out for 15 minutes; asking makes it no longer.
    Row((403,), _LOCKABLE, (), _REFUSED, _FINE,
        "permission denied by Vault: locked out for a while, or no such mount", wait=60),
    # What carries a token is looked at: a dead one becomes TOKEN_DEAD (calls.py).
    Row((403,), _ANY, (), _REFUSED, _FINE, "permission denied by Vault"),
    # A secret whose engine or namespace was deleted is as gone as one that was.
    Row((404,), _READ, _NO_SPACE, _SECRET_GONE, _FINE, "Vault knows no such namespace"),
    Row((404,), _ANY, _NO_SPACE, _REFUSED, _FINE, "Vault knows no such namespace"),
    Row((404,), _READ, _NO_MOUNT, _SECRET_GONE, _FINE, "no engine is mounted at this path"),
    Row((404,), _READ, (), _SECRET_GONE, _FINE, "nothing at this path in Vault"),
    Row((404,), _ANY, (), _REFUSED, _FINE, "Vault knows no such path"),
    Row((405,), _ANY, (), _REFUSED, _FINE, "Vault does not take this operation at the path"),
    Row((408,), _ANY, (), _RETRY, _UNSURE, "Vault's side waited too long for the request"),
    Row((412,), _ANY, (), _RETRY, _OUT, "this Vault node lags behind"),
    Row((413,), _ANY, (), _REFUSED, _FINE, "the request is too large for Vault"),
    # A quota is for the cluster; going round it by another node would be bad manners.
    Row((429,), _ANY, (), _RETRY, _BUSY, "Vault asks for fewer requests"),
    Row((472,), _ANY, (), _RETRY, _OUT, "this Vault node is a disaster recovery standby"),
    Row((473, 474), _ANY, (), _RETRY, _OUT, "this Vault node is a standby"),
    Row(range(300, 400), _ANY, (), _RETRY, _OUT,
        "Vault redirects to another host, which is not followed"),
    Row((500,), _ANY, _NO_ACTIVE, _RETRY, _OUT, "this Vault node knows of no active one"),
    Row((500,), _ANY, _TOO_LONG, _REFUSED, _FINE, "the request is too large for Vault"),
    Row((503,), _ANY, _SPACE_LOCKED, _RETRY, _BUSY, "an administrator has locked the namespace"),
    Row((501, 503), _ANY, _SEALED, _RETRY, _OUT, "Vault is sealed or down for maintenance"),
    Row((503,), _ANY, _OVERLOADED, _RETRY, _BUSY, "Vault is overloaded"),
    # In Vault's own words it is the trouble of one engine, as a 500: the cloud behind it
    # throttles it, for one (logical.ErrUpstreamRateLimited).
    Row(range(501, 505), _ANY, (), _RETRY, _FINE,
        "what stands behind Vault's engine failed (status {})", with_errors=True),
    # A proxy says so, too, of a connection that broke after Vault had heard the request: then
    # it may yet count as a wrong try, and must not be made again at the next node.
    Row((503,), _LOCKABLE, (), _RETRY, _UNSURE, "what stands before Vault has no answer of it"),
    Row((501,), _ANY, (), _RETRY, _OUT, "Vault is not initialized"),
    Row((502, 504), _ANY, (), _RETRY, _UNSURE, "what stands before Vault has no answer of it"),
    Row((503,), _ANY, (), _RETRY, _OUT, "Vault is sealed or down for maintenance"),
    # A 500 may be one engine's: another call may well work.
    Row(range(500, 1000), _ANY, (), _RETRY, _FINE, "Vault answered {}"),
    Row(range(1000), _ANY, (), _REFUSED, _FINE, "Vault answered {}"),
)
# fmt: on


def of_status(
    call: Call, status: int, texts: list[str], retry_after: float = 0.0, detail: str = ""
) -> VaultError:
    """The meaning of an HTTP answer that is not a success.

    ``texts`` are Vault's, ``retry_after`` is in seconds, ``detail`` is for the log.
    """
    text = " ".join(texts).lower()
    row = next(
        row
        for row in ROWS
        if status in row.statuses
        and call in row.calls
        and (not row.texts or any(part in text for part in row.texts))
        and (not row.with_errors or any(map(_says_more, texts)))
    )
    wait = max(row.wait, retry_after if row.verdict is _RETRY else 0.0)
    away = row.node is not NodeFate.FINE
    failure = Failure(row.verdict, row.reason.format(status), wait, away)
    error = VaultError(failure, status, detail, row.node, _denied(status, texts), text=text)
    error.of_wrapping = "wrapping token" in text
    return error


def _says_more(text: str) -> bool:
    """Whether it is more than the status in words, which a proxy puts into JSON like Vault's."""
    return text.strip().lower() not in _PHRASES


def _denied(status: int, texts: list[str]) -> Denial:
    """What Vault means by a 403.

    It refuses a token before it asks a policy: the text is then `permission denied`, and
    no more, or has `invalid token` beside it. Whatever a policy (or a plugin, or Sentinel)
    refuses comes as a list of errors, `1 error occurred: * permission denied`.
    Source: ``handleRequest`` of vault/request_handling.go.
    """
    text = " ".join(" ".join(texts).lower().split())
    if status != 403:
        return Denial.UNCLEAR
    if text in ("permission denied", "bad token") or "invalid token" in text:
        return Denial.TOKEN
    if re.match(r"\d+ errors? occurred:", text) or "preflight capability check" in text:
        return Denial.POLICY
    return Denial.UNCLEAR


NOT_SENT = Failure(_REFUSED, "what was to be sent cannot be written as HTTP and JSON")
TOO_LARGE = Failure(_REFUSED, "the answer is larger than 1 MiB")
TOO_SLOW = Failure(_RETRY, "Vault did not answer in time", away=True)
TOKEN_DEAD = Failure(Verdict.TOKEN_DEAD, "the login token does not exist any more")
TLS_FILE = Failure(_RETRY, "a certificate file of Vault's `tls` cannot be loaded")

_REACH = Failure(_RETRY, "Vault cannot be reached", away=True)
_BROKE_OFF = Failure(_RETRY, "the exchange with Vault broke off", away=True)

# No answer: the first that fits. Before anything was sent, the rest cannot be reached.
_EXCEPTIONS: tuple[tuple[type[Exception], Failure], ...] = (
    (ssl.SSLCertVerificationError, Failure(_REFUSED, "Vault's certificate is not accepted")),
    # The other side closed within the handshake, as a server that stops does.
    (ssl.SSLEOFError, _BROKE_OFF),
    (ssl.SSLZeroReturnError, _BROKE_OFF),
    (ssl.SSLError, Failure(_REFUSED, "the TLS handshake with Vault failed")),
    (socket.gaierror, Failure(_RETRY, "the name of Vault's host is not resolved", away=True)),
    (TimeoutError, TOO_SLOW),
    (Exception, _BROKE_OFF),
)


def of_exception(exc: Exception, *, sent: bool) -> VaultError:
    """The meaning of a call that brought no answer; ``sent``: Vault may have done it."""
    failure = next(failure for kind, failure in _EXCEPTIONS if isinstance(exc, kind))
    if failure is _BROKE_OFF and not sent:
        failure = _REACH
    return VaultError(failure, detail=_detail(exc), node=NodeFate.UNSURE if sent else NodeFate.OUT)


def of_file(exc: OSError) -> VaultError:
    """A file of ``tls`` that cannot be used; another node would not change that."""
    return VaultError(TLS_FILE, detail=_detail(exc))


def _detail(exc: Exception) -> str:
    """What the system says of it; other texts may quote what was sent or received."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return str(exc.verify_message)
    if getattr(exc, "reason", None) and isinstance(exc, ssl.SSLError):
        return str(exc.reason)
    if isinstance(exc, OSError) and exc.strerror:
        return str(exc.strerror)
    return type(exc).__name__
