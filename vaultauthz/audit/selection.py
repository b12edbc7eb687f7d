"""Which lines a command looks at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vaultauthz.core.duration import length_of


class MomentError(ValueError):
    """A time that is none; the message says how one is written."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for; "" and None for anything. ``since`` counts itself, ``until`` does not."""

    upstream: str = ""
    stage: str = ""
    caller: str = ""
    credential: str = ""
    request: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def everything(self) -> bool:
        """Whether it names nothing in particular, at whatever time."""
        return not any((self.upstream, self.stage, self.caller, self.credential, self.request))

    def takes(self, record: dict[str, Any]) -> bool:
        """Whether this line of a request is meant."""
        named = (
            ("upstream", self.upstream),
            ("stage", self.stage),
            ("caller", self.caller),
            ("credential_id", self.credential),
            ("request_id", self.request),
        )
        if any(value and record.get(key) != value for key, value in named):
            return False
        return self.covers(record)

    def covers(self, record: dict[str, Any]) -> bool:
        """Whether the line is of the time that is meant."""
        if self.since is None and self.until is None:
            return True
        when = time_of(record)
        if when is None or (self.since and when < self.since):
            return False
        return self.until is None or when < self.until


def time_of(record: dict[str, Any]) -> datetime | None:
    """When it was written, in UTC; None where that cannot be read. Ours and Vault's alike."""
    try:
        return _aware(datetime.fromisoformat(record["time"]))
    except (KeyError, TypeError, ValueError):
        return None


def moment(text: str, now: datetime) -> datetime:
    """``24h`` (ago), a day or a time in ISO 8601, in UTC unless it says otherwise.

    Raises:
        WantedError: it is none of these.
    """
    try:
        ago = length_of(text)
        if ago is not None:
            return now - timedelta(seconds=ago)
        return _aware(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise MomentError(
            f"{text!r} is no time: write 24h or 7d (ago), 2026-11-22 or 2026-11-22T08:30:00Z"
        ) from None


def _aware(when: datetime) -> datetime:
    return when if when.tzinfo else when.replace(tzinfo=UTC)
