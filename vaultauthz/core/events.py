"""What happens to logins and leases, and the calls to Vault, for whoever listens: the audit log, metrics.

The keeper and the broker announce; they know no listener by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple

from vaultauthz.core.decision import Decision
from vaultauthz.core.request import Request

LOGIN: Final = "login"
TOKEN_RENEWED: Final = "token.renewed"
TOKEN_REVOKED: Final = "token.revoked"
TOKEN_NOT_REVOKED: Final = "token.not_revoked"
TOKEN_LOST: Final = "token.lost"
ISSUED: Final = "lease.issued"
RENEWED: Final = "lease.renewed"
ROTATED: Final = "lease.rotated"
REVOKED: Final = "lease.revoked"
NOT_REVOKED: Final = "lease.not_revoked"  # that was tried, and will be again; `reason` says why
EXPIRED: Final = "lease.expired"
LOST: Final = "lease.lost"
REJECTED: Final = "credential.rejected"  # an upstream answered 401 to it, for the first time
FAILED: Final = "vault.failed"  # a call that did not work; `reason` says why, without Vault's text
RECOVERED: Final = (
    "vault.recovered"  # what is read again and again is read again, after calls that failed
)
RELOADED: Final = "config.reloaded"
SDS_DELIVERED: Final = "sds.delivered"  # an Envoy has the credential, and uses it by itself
SDS_WITHDRAWN: Final = "sds.withdrawn"  # … and has it no more
SDS_REFUSED: Final = "sds.refused"  # it did not take it, and uses the one before
AUDIT_DROPPED: Final = "audit.dropped"  # `reason` counts what is not in the log, and says why
AUDIT_TORN: Final = "audit.torn"  # an unfinished line of ours stands before this one
CLIENT_REFUSED: Final = "client.refused"  # `caller`, who may not ask at all; once a minute at most
TOKEN_LEFT: Final = "token.left"  # at the end, to lapse: Envoys go on with what hangs on it

# Somebody (`caller`) asked for it, over the admin address; `reason` is what they said.
ROTATE_ASKED: Final = "operator.rotate"
REVOKE_ASKED: Final = "operator.revoke"


@dataclass(frozen=True, slots=True)
class AskedBy:
    """Who asks for something to be done, as far as can be told, and why: ``reason`` is "" where that is not said."""

    longest: ClassVar[int] = 200  # characters of a reason

    who: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a login or a lease. Holds no secret.

    ``lease_id`` of a login's event is the token's accessor. ``reason`` is a
    short phrase of ours, or the operator's, never Vault's own text. ``vault_request_id`` joins the
    event with the entry of Vault's audit log, "" where Vault gave none.
    """

    name: str
    stage: str
    upstream: str = ""
    lease_id: str = ""
    credential_id: str = ""
    vault_request_id: str = ""
    reason: str = ""
    # Whose lease it is, under `per: caller` and `per: request`; or the Envoy, the client, the operator.
    caller: str = ""
    failure: str = field(default="", compare=False)  # of a failed call, in a word for metrics


@dataclass(slots=True)
class Access:
    """A request that the gateway tells of when it is over. Holds no secret, and no query.

    ``at`` is when it was sent to the upstream, in seconds since 1970. ``status`` is the
    upstream's own answer, 0 where it gave none. One that was not ``allowed`` was refused by
    the gateway; ``reason`` says why, or of an allowed one what is not known about it.
    """

    stage: str
    upstream: str
    at: float
    allowed: bool = True
    lease_id: str = ""
    credential_id: str = ""
    caller: str = ""
    gateway: str = ""
    request_id: str = ""
    method: str = ""
    host: str = ""
    path: str = ""
    status: int = 0
    reason: str = ""


class Operation(StrEnum):
    """What a call asks of Vault; the words are the metrics' and stay as they are."""

    LOGIN = "login"
    TOKEN_RENEW = "token_renew"
    TOKEN_REVOKE = "token_revoke"
    TOKEN_LOOKUP = "token_lookup"  # whether a 403 was about the token
    UNWRAP = "unwrap"  # of a wrapped secret_id, and where it came from
    ISSUE = "issue"  # whatever a path of an engine gives, with a lease or without
    READ = "read"  # of a KV secret, or of a TOTP key's description
    LEASE_RENEW = "lease_renew"
    LEASE_REVOKE = "lease_revoke"
    MOUNT_LOOKUP = "mount_lookup"  # which version of KV a path has
    HEALTH = "health"  # whether anybody answers, before a login that could be locked
    OTHER = "other"


class Exchange(NamedTuple):
    """A request to one node of Vault and its answer; ``status`` is HTTP's, 0 for none."""

    stage: str
    operation: Operation
    status: int
    seconds: float


CallListener = Callable[[Exchange], None]
Listener = Callable[[Event], None]

# Told of each check before its answer goes out. False means that the check could
# not be recorded: then it must not be allowed either.
CheckRecorder = Callable[[Request, Decision], bool]
