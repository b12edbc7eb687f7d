"""What goes into a lease machine and what comes out; see lease.py for the theory."""

from __future__ import annotations

from dataclasses import dataclass

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


Command = CallIssue | CallRenew | CallRevoke | Publish | Withdraw | Note
