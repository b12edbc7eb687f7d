"""When to act: the renewal window and the backoff, as functions of jitter.

``jitter`` is always a number from 0 up to, not including, 1 that the caller
drew; the functions themselves draw nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """The numbers of the rules, in seconds unless they are shares of a lease."""

    renew_from: float = 0.60
    renew_to: float = 0.75
    last_share: float = 1 / 3  # a failing renewal may mint only when this much is left
    backoff_floor: float = 0.5
    backoff_cap: float = 60.0
    retry_after_cap: float = 300.0
    drain: float = 30.0  # how long a replaced lease lives on for requests in flight
    rejected_gap: float = 30.0  # between two rotations that the upstream's 401s ask for
    standby_lag: float = 60.0  # how long a node may still answer what was deleted
    rotation_poll: float = 1.0  # between reads of what Vault should have rotated by now
    rotation_grace: float = 10.0  # how long such a read proves that the old one still holds
    replacing: float = 30.0  # what a replacement may need: a call that times out, and some more
    increment: float | None = None  # asked for at renewal; None: what the lease had at first

    def renew_in(self, ttl: float, jitter: float) -> float:
        """Seconds from sending the call until the renewal of a lease of ``ttl``."""
        return ttl * (self.renew_from + (self.renew_to - self.renew_from) * jitter)

    def replace_in(self, left: float, first_ttl: float, jitter: float) -> float:
        """Seconds from sending a renewal that left only ``left`` until the replacement.

        In the window of what is left; but a lease that lives for an hour gives its
        replacement minutes, and its last renewal may leave two seconds. So the replacement has
        as much time as with a whole lease of ``first_ttl``, or ``replacing`` if that is less.
        """
        time = min(self.replacing, first_ttl - self.renew_in(first_ttl, jitter))
        return min(self.renew_in(left, jitter), max(0.0, left - time))

    def read_in(self, read_again: float, jitter: float) -> float:
        """Seconds until a static secret is read again: never later than asked."""
        return read_again * (0.9 + 0.1 * jitter)

    def poll_in(self, jitter: float) -> float:
        """Seconds until Vault is asked again whether it has rotated a secret."""
        return self.rotation_poll * (0.5 + jitter / 2)

    def retry_in(self, failures: int, rhythm: float, jitter: float) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (1, 2, …).

        Full jitter over a ceiling that doubles, but never below the floor, so
        that two failed calls are never closer than that. ``rhythm`` is how often
        this credential is renewed or read when all is well, and lowers the cap:
        to wait a minute makes no sense for a lease that lives for six seconds.
        """
        cap = min(self.backoff_cap, max(4 * self.backoff_floor, rhythm))
        ceiling = min(cap, self.backoff_floor * 2.0 ** min(failures, 30))
        return self.backoff_floor + (ceiling - self.backoff_floor) * jitter

    def asked(self, first_ttl: float) -> float:
        """The increment to ask for, for a lease that was issued with ``first_ttl``."""
        return self.increment if self.increment is not None else first_ttl

    def shorter(self, granted: float, asked: float) -> bool:
        """Whether Vault gave less than asked: the lease nears its max_ttl.

        A twentieth, a second at most, is rounding: Vault answers in whole seconds.
        """
        return granted < asked - min(1.0, asked / 20)
