"""What a check comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from vaultauthz.core.credential import Credential
from vaultauthz.core.reasons import Reason


@dataclass(slots=True)
class Allowed:
    """Let it through with the credential's mutation applied.

    ``credential`` is None for a request that no upstream claims under
    ``unmatched: pass``: nothing is set. ``signed`` are headers for this one request,
    to set beside those of the credential's mutation, ``dropped`` are names of headers to
    drop beside those that it removes.
    """

    upstream: str
    stage: str
    credential: Credential | None
    signed: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dropped: tuple[str, ...] = ()
    allowed: ClassVar[bool] = True
    reason: ClassVar[str] = ""


@dataclass(slots=True)
class Denied:
    """Do not let it through. ``retry_after`` is in whole seconds, 0 for none."""

    reason: Reason
    upstream: str = ""
    stage: str = ""
    retry_after: int = 0
    allowed: ClassVar[bool] = False


Decision = Allowed | Denied
