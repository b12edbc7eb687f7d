"""What goes into the machines and what comes out; see lease.py and token.py for the theory."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from vaultauthz.core.grant import Failure, Grant, Renewal

# --- events: what happened ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Issued:
    """Vault gave a credential; ``sent_at`` is from before the call."""

    grant: Grant
    sent_at: float


@dataclass(frozen=True, slots=True)
class Renewed:
    """Vault renewed the lease; ``sent_at`` is from before the call."""

    renewal: Renewal
    sent_at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The issue or renew call did not work."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Unusable:
    """Vault gave a lease whose secret cannot be put on a request."""

    grant: Grant
    sent_at: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Revoked:
    """The revocation of a replaced lease worked."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class NotRevoked:
    """The revocation of a replaced lease did not work."""

    lease_id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Rotate:
    """Somebody wants a replacement; the present credential is good until then.

    ``within``: spread it over so many seconds. ``anew``: it comes from another
    place, whose versions have nothing to do with those of the present one.
    """

    within: float = 0.0
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The upstream answered 401 to the credential with this id."""

    credential_id: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """An operator wants the present credential gone at once, and a new one."""


@dataclass(frozen=True, slots=True)
class LoginLost:
    """A login token is dead, and its leases with it.

    ``within``: spread what comes anew over so many seconds, of which none is before
    ``after`` have passed.
    """

    within: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Release:
    """Nothing uses this replaced lease any more: it need not drain longer."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The end. ``revoke`` unless revoking the token takes the leases along.

    ``drain`` seconds are left to requests that have the credential already.
    """

    revoke: bool
    drain: float = 0.0


# --- events for a login token's machine only --------------------------------------


@dataclass(frozen=True, slots=True)
class LogInBy:
    """Log in by ``source`` from now on, once right away.

    ``moved``: it leads to another Vault, so that static secrets must be read anew.
    """

    source: Any
    moved: bool = False


@dataclass(frozen=True, slots=True)
class ReachBy:
    """``source`` leads to the same Vault as the one before; what that made is made by it."""

    source: Any


@dataclass(frozen=True, slots=True)
class FoundDead:
    """A lease's call found that Vault knows this token no more."""

    token: Any


@dataclass(frozen=True, slots=True)
class Answered:
    """A call for this lease was answered, and its machine has the answer."""

    lease: Any


@dataclass(frozen=True, slots=True)
class LookRound:
    """A second has passed. ``calling``: the accessors of the tokens that calls are out with.

    ``files_changed``: those that logins read. ``log_in``: whether a login may follow.
    """

    calling: Container[str] = ()
    files_changed: bool = False
    log_in: bool = True


@dataclass(frozen=True, slots=True)
class LeaveToLapse:
    """The token is not going to be revoked, since so many of its leases are still in use."""

    leases: int


# --- commands: what to do ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallIssue:
    """Ask Vault for a credential; answer with Issued, Unusable or Failed."""


@dataclass(frozen=True, slots=True)
class CallRenew:
    """Renew the lease by ``increment`` seconds; answer with Renewed or Failed."""

    lease_id: str
    increment: float


@dataclass(frozen=True, slots=True)
class CallRevoke:
    """Revoke a lease; answer with Revoked or NotRevoked."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Requests from now on get this credential, until ``ends_at``."""

    grant: Grant
    ends_at: float


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Requests from now on get no credential."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something to tell the audit log; ``name`` is one of core.events."""

    name: str
    lease_id: str = ""
    credential_id: str = ""
    request_id: str = ""
    reason: str = ""
    failure: str = field(default="", compare=False)  # the word of one, see grant.FAILURE_WORDS


# --- commands of a login token's machine only -------------------------------------


@dataclass(frozen=True, slots=True)
class Tell:
    """Hand this event to the lease's machine."""

    lease: Any
    event: Any


@dataclass(frozen=True, slots=True)
class Move:
    """Have the lease replaced by one of the token in use, as soon as there is room for two."""

    lease: Any
    wish: Rotate


@dataclass(frozen=True, slots=True)
class Warn:
    """Say this in the log."""

    text: str


Call = CallIssue | CallRenew | CallRevoke
Command = Call | Publish | Withdraw | Note | Tell | Move | Warn
