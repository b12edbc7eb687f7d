"""One lease machine told step by step what happens; no clock, no sleeping."""

from __future__ import annotations

from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    Command,
    Failed,
    Issued,
    Note,
    Renewed,
    Rotate,
    Stop,
    Tick,
)
from vaultauthz.core.lease_state import State
from vaultauthz.core.pace import Pace

AWAY = Failure(Verdict.RETRY, "unreachable")
REFUSED = Failure(Verdict.REFUSED, "no")
LOCKED = Failure(Verdict.LOCKED, "five of these lock the role")
GONE = Failure(Verdict.LEASE_GONE, "gone")
NOTHING_THERE = Failure(Verdict.SECRET_GONE, "deleted")


class Life:
    """A machine, what it has said so far, and a way to talk to it at a given second."""

    def __init__(self, pace: Pace = Pace()) -> None:
        self.machine = LeaseMachine(pace)
        self.login = Login()
        self.notes: list[Note] = []

    def at(self, now: float, event: object, jitter: float = 0.0) -> list[Command]:
        """The commands that ``event`` leads to at ``now``; notes are put aside."""
        commands = self.machine.handle(event, now, jitter)
        self.notes += [c for c in commands if isinstance(c, Note)]
        return [c for c in commands if not isinstance(c, Note)]

    def names(self, now: float, event: object, jitter: float = 0.0) -> str:
        """The names of those commands."""
        return " ".join(type(c).__name__ for c in self.at(now, event, jitter))

    def grant(self, name: str, ttl: float = 100.0, *, renewable: bool = True) -> Grant:
        """A lease of this life's login."""
        return Grant(name, ttl, name, renewable, credential_id=f"id-{name}", login=self.login)

    @property
    def state(self) -> State:
        """Where the machine stands."""
        return self.machine.state

    @property
    def wake_at(self) -> float:
        """When it wants to be woken."""
        return self.machine.wake_at


def in_state(state: State, pace: Pace = Pace()) -> Life:
    """A life brought into ``state``; what is held is ``one``, from 0 to 100."""
    life = Life(pace)
    life.at(0, Tick())
    if state is State.EMPTY:
        life.at(50, Failed(AWAY))
    elif state is not State.ISSUING:
        life.at(1, Issued(life.grant("one"), 0))
    if state in (State.RENEWING, State.LAPSED):
        life.at(60, Tick())
    if state is State.REPLACING:
        life.at(50, Rotate())
    elif state is State.LAPSED:
        life.at(100, Tick())
    elif state is State.STOPPED:
        life.at(50, Stop(revoke=True))
    assert life.state is state
    return life


def issued(life: Life, name: str, sent_at: float, ttl: float = 100.0) -> Issued:
    """The answer to an issue call."""
    return Issued(life.grant(name, ttl), sent_at)


def renewed(sent_at: float, ttl: float = 100.0) -> Renewed:
    """The answer to a renew call."""
    return Renewed(Renewal(ttl), sent_at)
