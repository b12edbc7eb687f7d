"""The pace of the calls, and their end."""

from __future__ import annotations

import threading
from math import inf

import pytest

from vaultauthz.core.grant import Verdict
from vaultauthz.doctor.evidence import Trouble
from vaultauthz.doctor.limits import Locks, StoppedError, Turns


class _Event(threading.Event):
    """Remembers how long it was waited for."""

    waited = -1.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited = timeout if timeout is not None else inf
        return self.is_set()


@pytest.mark.parametrize(("per_second", "waits"), [(20.0, 0.05), (0.1, 10.0), (inf, 0.0)])
def test_calls_keep_the_pace_of_the_configuration(per_second: float, waits: float) -> None:
    """`calls_per_second` bounds doctor as it bounds the server."""
    event = _Event()
    Turns(per_second, event).take()
    assert event.waited == waits


def test_there_is_no_turn_after_the_end() -> None:
    """Whoever waits for one is told at once."""
    event = threading.Event()
    event.set()
    with pytest.raises(StoppedError):
        Turns(0.1, event).take()


def test_a_refused_login_is_remembered_by_what_vault_would_lock() -> None:
    """Another role is another login."""
    locks, trouble = Locks(), Trouble("refused", verdict=Verdict.LOCKED)
    locks.refuse(("", "approle", "a"), "prod", trouble)
    assert locks.refused(("", "approle", "a")) == ("prod", trouble)
    assert locks.refused(("", "approle", "b")) is None
    assert locks.of(("x",)) is locks.of(("x",))
