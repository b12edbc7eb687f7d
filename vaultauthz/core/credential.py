"""A credential that is in use, as the request path sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vaultauthz.core.injection import Mutation


class Login:
    """One login to Vault: the token's life, which caps that of its leases.

    The one place here that changes: ``ends_at`` moves on when the token is
    renewed, and falls to minus infinity when the token is found dead. Every
    lease taken with the token points here, so that one assignment moves or ends
    all of them at once; the alternative is to publish ten thousand credentials
    anew each time a token is renewed.
    """

    __slots__ = ("accessor", "ends_at", "leaving")

    def __init__(self, ends_at: float = math.inf, accessor: str = "") -> None:
        self.ends_at = ends_at
        self.accessor = accessor
        self.leaving = False  # it was replaced, and its token will be revoked


NO_LOGIN = Login()


@dataclass(frozen=True, slots=True)
class Credential:
    """The immutable snapshot that a check reads.

    ``ends_at`` is in the keeper's clock (seconds, counting through sleep): the
    end of the lease, or of ``max_stale`` for a static secret. ``login`` is
    ``NO_LOGIN`` for a static secret, which outlives the token that read it.
    """

    mutation: Mutation
    credential_id: str
    lease_id: str
    ends_at: float
    login: Login = NO_LOGIN

    def usable(self, now: float) -> bool:
        """Whether it may go on a request sent at ``now``."""
        return now < self.ends_at and now < self.login.ends_at


class Slot:
    """Where the keeper puts an upstream's credential and a check finds it.

    The credential is replaced whole, by one assignment; a reader that takes
    ``slot.credential`` once sees either the old or the new one.
    """

    __slots__ = ("credential", "retry_at", "uses")

    def __init__(self) -> None:
        self.credential: Credential | None = None
        self.retry_at = 0.0  # when Vault is next asked, for Retry-After
        self.uses = 0  # checks that took it; the busiest are fetched first
