"""A credential that is in use, as the request path sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from vaultauthz.core.injection import Mutation

# What a request needs from our answer to the upstream's look at the credential, at most,
# and the share of a short lease that it may cost; measured by benchmarks/on_the_way.py.
_ON_THE_WAY: Final = 1.0  # seconds
_MOST_OF_IT: Final = 0.10


def on_the_way(life: float) -> float:
    """Seconds before the end of what lives for ``life`` in which no request sets out with it.

    It would arrive with what is dead. Less is left then than when a replacement is asked for
    at the latest (``Pace.renew_to``), so that one that comes in time leaves no gap.
    """
    return max(0.0, min(_ON_THE_WAY, life * _MOST_OF_IT))


class Login:
    """One login to Vault: the token's life, which caps that of its leases.

    The one place here that changes: ``ends_at`` moves on when the token is
    renewed, and falls to minus infinity when the token is found dead. Every
    lease taken with the token points here, so that one assignment moves or ends
    all of them at once; the alternative is to publish ten thousand credentials
    anew each time a token is renewed.
    """

    __slots__ = ("accessor", "ends_at", "leaving", "on_the_way")

    def __init__(
        self, ends_at: float = math.inf, accessor: str = "", on_the_way: float = 0.0
    ) -> None:
        self.ends_at = ends_at
        self.accessor = accessor
        self.on_the_way = on_the_way  # see the function of that name
        self.leaving = False  # it was replaced, and its token will be revoked

    @property
    def last_at(self) -> float:
        """From when on no request sets out with what hangs on it."""
        return self.ends_at - self.on_the_way


NO_LOGIN = Login()


@dataclass(frozen=True, slots=True)
class Credential:
    """The immutable snapshot that a check reads.

    ``ends_at`` is in the keeper's clock (seconds, counting through sleep): the
    end of the lease, less the time on the way, or of ``max_stale`` for a static secret. ``login`` is
    ``NO_LOGIN`` for a static secret, which outlives the token that read it.
    """

    mutation: Mutation
    credential_id: str
    lease_id: str
    ends_at: float
    login: Login = NO_LOGIN

    @property
    def last_at(self) -> float:
        """From when on no request may be given it; moves with its login's end."""
        return min(self.ends_at, self.login.last_at)

    def usable(self, now: float) -> bool:
        """Whether it may go on a request sent at ``now``."""
        login = self.login  # as ``last_at``, without a call: this is on each request's way
        return now < self.ends_at and now < login.ends_at - login.on_the_way


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

    def usable(self, now: float) -> bool:
        """Whether a request sent at ``now`` may go on with what is in here."""
        credential = self.credential
        return credential is not None and credential.usable(now)
