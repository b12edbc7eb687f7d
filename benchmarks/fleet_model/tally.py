"""What is counted while the fleet runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet_model.vault import Away
from vaultauthz.core.credential import Login

if TYPE_CHECKING:
    from fleet_model.gateway import Runner

# The part of its life, counted from its end, in which a lease that the rules were
# kept for has always been renewed: the renewal window closes at 75 %.
LATE = 0.25


class Tally:
    """Calls, losses and recovery.

    A lease is *lost* when it ended while it should be held although Vault could be
    reached at some time between the close of its renewal window (75 % of its life)
    and its end. One that ended because Vault was away for all of that time has only
    ``ended``.
    """

    def __init__(self, seconds: int, away: Away) -> None:
        self.calls = [0] * (seconds + 1)
        self.lost = 0
        self.ended = 0
        self.without = 0.0  # seconds without a credential, over all leases, after the first one
        self.began_at: float | None = None  # the fault was over, or the start was made
        self.recovered_at: float | None = None
        self._away = away
        self._ailing: dict[Runner, Login | None] = {}

    def call(self, now: float) -> None:
        """A call was sent, whatever became of it."""
        self.calls[int(now)] += 1

    def over(self, ttl: float, now: float) -> None:
        """A lease has left use and not for a replacement."""
        self.ended += 1
        if not (self._away.begin <= now - LATE * ttl and now <= self._away.end):
            self.lost += 1

    def watch(self, ailing: dict[Runner, Login | None], now: float | None) -> None:
        """Recovery is when each of these has had good news, by a login other than the given."""
        self._ailing, self.began_at = ailing, now
        if not ailing:
            self.recovered_at = now

    def well(self, runner: Runner, login: Login, now: float) -> None:
        """A lease was issued or renewed."""
        if self._ailing and self._ailing.get(runner, login) is not login:
            del self._ailing[runner]
            if not self._ailing:
                self.recovered_at = now
