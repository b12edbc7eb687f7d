"""What happens to logins and leases, for whoever listens: the audit log, metrics.

The keeper and the broker announce; they know no listener by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vaultauthz.core.decision import Decision
from vaultauthz.core.request import Request

LOGIN: Final = "login"
TOKEN_RENEWED: Final = "token.renewed"
TOKEN_REVOKED: Final = "token.revoked"
TOKEN_LOST: Final = "token.lost"
ISSUED: Final = "lease.issued"
RENEWED: Final = "lease.renewed"
ROTATED: Final = "lease.rotated"
REVOKED: Final = "lease.revoked"
EXPIRED: Final = "lease.expired"
LOST: Final = "lease.lost"
FAILED: Final = "vault.failed"  # a call that did not work; `reason` says why, without Vault's text
RELOADED: Final = "config.reloaded"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a login or a lease. Holds no secret.

    ``lease_id`` of a login's event is the token's accessor. ``reason`` is a
    short phrase of ours, never Vault's own text. ``vault_request_id`` joins the
    event with the entry of Vault's audit log, "" where Vault gave none.
    """

    name: str
    stage: str
    upstream: str = ""
    lease_id: str = ""
    credential_id: str = ""
    vault_request_id: str = ""
    reason: str = ""
    caller: str = ""  # whose lease it is, under `per: caller` and `per: request`


Listener = Callable[[Event], None]

# Told of each check before its answer goes out. False means that the check could
# not be recorded: then it must not be allowed either.
CheckRecorder = Callable[[Request, Decision], bool]
