"""A static role: Vault rotates the password, a little later than it says."""

from __future__ import annotations

from math import inf

from vaultauthz.core.grant import Failure, Grant, Verdict, Version
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    CallIssue,
    Command,
    Failed,
    Issued,
    Publish,
    Tick,
    Withdraw,
)

_GRACE = 10.0
_AWAY = Failed(Failure(Verdict.RETRY, "Vault cannot be reached"))


def _read(ttl: float, rotated: int, password: str) -> Grant:
    return Grant(password, ttl + _GRACE, rotates_in=ttl, version=Version(rotated))


def _held(ttl: float = 60.0) -> LeaseMachine:
    """A machine that read the role at time 0; Vault is to rotate it at ``ttl``."""
    machine = LeaseMachine()
    assert machine.handle(Tick(), 0.0, 0.5) == [CallIssue()]
    machine.handle(Issued(_read(ttl, 1, "old"), 0.0), 0.1, 0.5)
    return machine


def _published(commands: list[Command]) -> list[tuple[object, float]]:
    return [(c.grant.payload, c.ends_at) for c in commands if isinstance(c, Publish)]


def test_it_is_read_when_vault_is_to_have_rotated_it() -> None:
    """Not before: until then there is nothing new."""
    machine = _held()
    assert machine.wake_at == 60.0
    assert CallIssue() not in machine.handle(Tick(), 59.9, 0.5)
    assert CallIssue() in machine.handle(Tick(), 60.0, 0.5)


def test_a_late_rotation_is_polled_for_and_a_new_ttl_not_believed() -> None:
    """The ttl was set anew but the password is the old one: it holds for a moment only."""
    machine = _held()
    machine.handle(Tick(), 60.0, 0.5)
    commands = machine.handle(Issued(_read(3600.0, 1, "old"), 60.0), 60.1, 0.5)
    assert _published(commands) == [("old", 60.0 + _GRACE)]
    assert 60.1 < machine.wake_at <= 61.0


def test_the_new_password_is_taken_at_once() -> None:
    """As soon as Vault says that it has rotated, requests get what it rotated to."""
    machine = _held()
    machine.handle(Tick(), 60.0, 0.5)
    machine.handle(Issued(_read(3600.0, 1, "old"), 60.0), 60.1, 0.5)
    now = machine.wake_at
    assert CallIssue() in machine.handle(Tick(), now, 0.5)
    commands = machine.handle(Issued(_read(3600.0, 2, "new"), now), now, 0.5)
    assert _published(commands) == [("new", now + 3600.0 + _GRACE)]
    assert machine.wake_at == now + 3600.0


def test_an_earlier_rotation_is_never_gone_back_to() -> None:
    """A standby that lags answers the password before this one: it is not used."""
    machine = _held()
    machine.handle(Tick(), 60.0, 0.5)
    machine.handle(Issued(_read(60.0, 2, "new"), 60.0), 60.0, 0.5)
    machine.handle(Tick(), 120.0, 0.5)
    assert _published(machine.handle(Issued(_read(60.0, 1, "old"), 120.0), 120.0, 0.5)) == []
    assert machine.held is not None
    assert machine.held.grant.payload == "new"


def test_without_vault_it_is_dropped_soon_after_its_rotation() -> None:
    """Nobody can tell any more whether the password holds, so it is not sent."""
    machine = _held()
    commands: list[Command] = []
    now = dropped_at = 60.0
    while machine.held is not None and now < 100.0:
        commands = machine.handle(Tick(), now, 0.5)
        if CallIssue() in commands:
            machine.handle(_AWAY, now, 0.5)
        dropped_at = now
        now = min(machine.wake_at, 100.0)
    assert Withdraw() in commands
    assert machine.wake_at < inf
    assert dropped_at <= 60.0 + _GRACE
