"""When a stage may make its next call to Vault: its pace, and its manners when Vault is ill.

Pure, like ``core.lease``: times and jitter in, times out. Each call is told when it
is ``sent`` and when it is ``answered``; ``ready_at`` says when the next one may go.
Two things are bounded:

- The pace. Calls are at least ``1 / rate`` seconds apart, so a fleet makes at most
  gateways times rate calls a second, whatever happens to it.
- The pressure on a Vault that does not cope. The gap between calls doubles, up to
  ``LONGEST``, after ``STRIKES`` calls in a row that Vault itself turned away or left
  unanswered, and then one call at a time tries whether it is back. A slow answer widens
  the gap too, before calls time out and their work is wasted, but to no more than the
  answer took: some engines are slow and well. A quick answer halves the gap.

What fails for one credential only says nothing of the others, and slows none of them
down, as that credential has a backoff: an engine's own error never does, and what may be
Vault's trouble or an engine's (no answer in time, a quota) does not while other calls
work.
"""

from __future__ import annotations

from math import inf
from typing import Final

STRIKES: Final = 3  # fewer may be the fault of what is behind Vault
SHORTEST: Final = 0.5  # seconds between calls when Vault begins to fail
LONGEST: Final = 5.0  # … and when it has been failing for long
LATELY: Final = 10.0  # seconds for which a call that worked speaks for Vault
SLOW: Final = 1.0  # seconds; an answer that took longer has stood in a queue, most likely


class Flow:
    """The pace of one stage's calls. ``rate`` is in calls a second; infinity for no bound."""

    __slots__ = ("_base", "_gap", "_next_at", "_out", "_strikes", "_widened_at", "_worked_at")

    def __init__(self, rate: float, start_at: float, jitter: float) -> None:
        self._base = 1.0 / rate
        self._gap = self._base
        # Gateways that start together must not keep step for ever.
        self._next_at = start_at + self._base * jitter
        self._out = 0
        self._strikes = 0
        self._widened_at = -inf
        self._worked_at = -inf

    def ready_at(self) -> float:
        """When the next call may go; infinity for: not before an answer is in."""
        if self._strikes >= STRIKES and self._out:
            return inf
        return self._next_at

    def sent(self, now: float) -> None:
        """A call has gone."""
        self._out += 1
        self._next_at = now + self._gap

    def answered(
        self, sent_at: float, now: float, jitter: float, *, pushback: bool, failed: bool = False
    ) -> None:
        """A call is over. ``pushback``: Vault did not answer it, or asked for fewer.

        ``failed``: it answered, that what is behind it does not work, or with a no.
        """
        self._out -= 1
        if not pushback and not failed:
            self._worked_at = now
        if pushback and self._strikes < STRIKES and now - self._worked_at < LATELY:
            return
        self._strikes = self._strikes + 1 if pushback else 0
        took = now - sent_at
        if self._strikes >= STRIKES:
            self._widen(self._gap * 2, LONGEST, sent_at, now, jitter)
        elif failed and took > SLOW:
            return  # by no fault of Vault's
        elif not pushback and took > SLOW:
            self._widen(self._gap * 1.5, took, sent_at, now, jitter)
        elif not pushback:
            self._gap = max(self._base, self._gap / 2) if self._gap > SHORTEST else self._base
            self._next_at = min(self._next_at, now + self._gap)

    def _widen(self, gap: float, most: float, sent_at: float, now: float, jitter: float) -> None:
        if sent_at < self._widened_at:
            return  # calls that were out together count once
        self._widened_at = now
        self._gap = max(self._gap, min(most, max(SHORTEST, gap)))
        self._next_at = now + self._gap * (0.5 + 0.5 * jitter)
