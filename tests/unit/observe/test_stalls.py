"""No line within a second: no access. Writes hang on an event here, and the time is passed in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count
from threading import Event as Flag

import pytest

from tests.unit.observe.conftest import FakeSink, wait_until
from tests.unit.observe.test_audit_log import ACCESS, ISSUE, QUICK, records
from vaultauthz.config.values import Audit
from vaultauthz.core.decision import Allowed
from vaultauthz.core.request import Request
from vaultauthz.observe import audit_log
from vaultauthz.observe.audit_log import AuditLog
from vaultauthz.observe.outage import LOOK


class HangingSink(FakeSink):
    """Each write waits for leave while ``open`` is clear."""

    def __init__(self) -> None:
        super().__init__()
        self.leave = Flag()
        self.leave.set()
        self.within = Flag()  # a write is waiting

    def write(self, data: bytes) -> int:
        """Wait, then write."""
        if not self.leave.is_set():
            self.within.set()
            self.leave.wait()
        return super().write(data)


class Stall:
    """A log whose sink can hang, and the looks that somebody takes at it."""

    def __init__(self, capacity: int = 1000) -> None:
        self.sink = HangingSink()
        self.log = AuditLog(Audit(), sink=self.sink, capacity=capacity, retry=QUICK, watched=False)
        self._numbers = count()

    def look(self, seconds: float) -> None:
        """Look for that long."""
        for _ in range(round(seconds / LOOK)):
            self.log.look(next(self._numbers) * LOOK)

    def hang(self) -> None:
        """From now on the next write does not come back."""
        self.sink.within.clear()
        self.sink.leave.clear()

    def refuses(self) -> bool:
        """What gateways are told."""
        return not self.log.working

    def go_on(self, lines: int) -> None:
        """It comes back, and all that waits is written: so many lines since the start."""
        self.sink.leave.set()
        wait_until(lambda: self.sink.data.count(b"\n") == lines)


@pytest.fixture
def stall() -> Iterator[Stall]:
    """One that works until it is told otherwise."""
    made = Stall()
    yield made
    made.sink.leave.set()
    made.log.close()


def test_checks_are_refused_after_a_second(
    stall: Stall, request_: Request, allowed: Allowed, caplog: pytest.LogCaptureFixture
) -> None:
    """From then on none is taken, until the writer is through; the log tells of it once."""
    log = stall.log
    stall.look(0.3)
    stall.hang()
    assert log.record_check(request_, allowed)
    stall.sink.within.wait()
    stall.look(0.9)
    assert log.record_check(request_, allowed)  # not yet a second
    assert not stall.refuses()
    stall.look(0.1)
    assert stall.refuses()
    assert [log.record_check(request_, allowed) for _ in range(3)] == [False] * 3
    stall.look(30)
    assert stall.refuses()
    stall.go_on(2)
    assert stall.refuses()  # nobody has looked
    stall.look(0.1)
    assert not stall.refuses()
    assert log.record_check(request_, allowed)
    log.close()
    assert [one.levelno for one in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "a line has waited for a second" in caplog.text
    found = records(stall.sink.data)
    assert [one["event"] for one in found] == [
        *["request.allowed"] * 2,
        "audit.dropped",
        "request.allowed",
    ]
    told = "3 checks refused, 0 lines lost: a line has waited for a second, for 30.1 s"
    assert found[2]["reason"] == told


def test_a_slow_write_is_no_stall(stall: Stall, request_: Request, allowed: Allowed) -> None:
    """A write that takes less than a second refuses nobody, however often it does."""
    for number in range(20):
        stall.hang()
        assert stall.log.record_check(request_, allowed)
        stall.sink.within.wait()
        stall.look(0.8)
        stall.go_on(number + 1)
        stall.look(0.1)
        assert not stall.refuses()


def test_an_event_that_waits_is_enough(stall: Stall, request_: Request, allowed: Allowed) -> None:
    """A log that does not take the line of a lease takes no access either."""
    stall.hang()
    stall.log.record_event(ISSUE)
    stall.sink.within.wait()
    stall.look(1.1)
    assert not stall.log.record_check(request_, allowed)


def test_how_many_may_wait_is_bounded(request_: Request, allowed: Allowed) -> None:
    """By number, within the second: those in the queue and the batch that is being written."""
    stall = Stall(capacity=50)
    stall.hang()
    assert stall.log.record_check(request_, allowed)
    stall.sink.within.wait()  # the writer has that one, and hangs
    taken = sum(stall.log.record_check(request_, allowed) for _ in range(200))
    assert taken == 50
    assert stall.log.behind == 51
    assert stall.log.dropped == 150
    stall.go_on(51)
    stall.look(0.1)
    assert not stall.refuses()
    stall.log.close()
    *found, told = records(stall.sink.data)
    assert len(found) == 51
    assert told["reason"].startswith("150 checks refused, 0 lines lost: more came at once")


def test_what_is_told_afterwards_is_counted_where_it_is_lost(
    stall: Stall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An access is over, and cannot be refused: taken while there is room, then counted."""
    monkeypatch.setattr(audit_log, "_PATIENCE", 0.0)
    stall.hang()
    stall.log.record_access(ACCESS)
    stall.sink.within.wait()
    stall.look(1.1)
    assert not stall.log.has_room  # whoever can wait does
    for _ in range(700):
        stall.log.record_access(ACCESS)
    lost = stall.log.dropped
    assert lost == 200
    stall.go_on(701 - lost)
    stall.look(0.1)
    stall.log.close()
    *found, told = records(stall.sink.data)
    assert len(found) == 701 - lost
    assert told["reason"].startswith(f"0 checks refused, {lost} lines lost")


def test_an_outage_of_two_kinds_is_one(
    stall: Stall, request_: Request, allowed: Allowed, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full for longer than a second is told of once, and is over when both are."""
    stall.sink.error = OSError(28, "No space left on device")
    stall.log.record_check(request_, allowed)
    wait_until(lambda: not stall.log.working)
    stall.look(2.0)
    stall.sink.error = None
    wait_until(lambda: not stall.log._outage.failing)
    assert stall.refuses()
    stall.look(0.1)
    assert not stall.refuses()
    assert [one.levelno for one in caplog.records] == [logging.ERROR, logging.WARNING]


def test_lines_that_are_lost_at_the_stop_are_told(
    stall: Stall, request_: Request, allowed: Allowed, caplog: pytest.LogCaptureFixture
) -> None:
    """A sink that hangs to the end: how many lines were never written is logged, and counted."""
    stall.hang()
    assert stall.log.record_check(request_, allowed)
    stall.sink.within.wait()
    assert stall.log.record_check(request_, allowed)
    assert not stall.log.close(timeout=0.01)
    assert stall.log.dropped == 2
    assert "2 lines are lost at the stop" in caplog.text
