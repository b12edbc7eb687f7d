"""What a check comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vaultauthz.core.credential import Credential
from vaultauthz.core.reasons import Reason


@dataclass(slots=True)
class Allowed:
    """Let it through with the credential's mutation applied.

    ``credential`` is None for a request that no upstream claims under
    ``unmatched: pass``: nothing is set.
    """

    upstream: str
    stage: str
    credential: Credential | None
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
