"""A stage's token machine and its leases' machines, told step by step; no clock, no Vault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vaultauthz.core.credential import Credential, Login
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict
from vaultauthz.core.injection import Mutation
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    Answered,
    Call,
    CallIssue,
    CallRenew,
    CallRevoke,
    Failed,
    FoundDead,
    Issued,
    LookRound,
    Move,
    Note,
    NotRevoked,
    Publish,
    Renewed,
    Revoked,
    Stop,
    Tell,
    Tick,
    Warn,
    Withdraw,
)
from vaultauthz.core.lease_state import StageLeases
from vaultauthz.core.pace import Pace
from vaultauthz.core.token import Ending, Token, TokenMachine


@dataclass(eq=False)
class Source:
    """By which it logs in; ``owned``: tokens are its own, as after a login by a method."""

    owned: bool = True

    @property
    def owns_token(self) -> bool:
        """As a session has it."""
        return self.owned


@dataclass(eq=False)
class Lease:
    """One upstream's lease, with the calls for it that are out."""

    name: str
    machine: LeaseMachine
    uses: int = 0
    out: list[Call] = field(default_factory=list)
    shown: Credential | None = None
    queued: int = 0  # calls that a queue has taken from ``out``

    @property
    def calls(self) -> int:
        """How many are out, or wait to be made."""
        return len(self.out) + self.queued

    @calls.setter
    def calls(self, count: int) -> None:
        self.queued = count - len(self.out)


class StageLife:
    """Carries every command out; what is a call to Vault waits in ``out`` to be answered."""

    def __init__(self, *names: str, source: Source | None = None, pace: Pace = Pace()) -> None:
        self.now = 0.0
        self.pace = pace
        self.leases: StageLeases[Lease] = StageLeases()
        self.tokens = TokenMachine(source or Source(), self.leases, pace)
        self.out: list[Call] = []  # the login's
        self.notes: list[Note] = []
        self.warnings: list[str] = []
        self.moves: list[tuple[str, float]] = []  # which, and within how many seconds
        self.made = 0
        for name in names:
            self.leases.shared[name] = Lease(name, LeaseMachine(pace))

    # --- driving ---

    def tell(self, event: Any, jitter: float = 0.0) -> None:
        """Hand an event to the token's machine."""
        for command in self.tokens.handle(event, self.now, jitter):
            if isinstance(command, Tell):
                self.tell_lease(command.lease, command.event, jitter)
            elif isinstance(command, Move):
                self.moves.append((command.lease.name, command.wish.within))
                self.tell_lease(command.lease, command.wish, jitter)
            elif isinstance(command, Warn):
                self.warnings.append(command.text)
            elif isinstance(command, Note):
                self.notes.append(command)
            elif isinstance(command, (CallIssue, CallRenew, CallRevoke)):
                self.out.append(command)

    def tell_lease(self, lease: Lease, event: Any, jitter: float = 0.0) -> None:
        """Hand an event to a lease's machine."""
        for command in lease.machine.handle(event, self.now, jitter):
            if isinstance(command, Publish):
                grant = command.grant
                lease.shown = Credential(
                    Mutation(), grant.credential_id, grant.lease_id, command.ends_at, grant.login
                )
            elif isinstance(command, Withdraw):
                lease.shown = None
            elif isinstance(command, (CallIssue, CallRenew, CallRevoke)):
                lease.out.append(command)

    def at(self, now: float) -> None:
        """Let time pass, with a Tick for each machine when it wants one."""
        while (first := min(machine.wake_at for machine in self._machines())) <= now:
            self.now = max(self.now, first)
            self._wake()
        self.now = now

    def _machines(self) -> list[LeaseMachine]:
        return [self.tokens, *(lease.machine for lease in self.leases)]

    def _wake(self) -> None:
        if self.tokens.wake_at <= self.now:
            self.tell(Tick())
        for lease in tuple(self.leases):
            if lease.machine.wake_at <= self.now:
                self.tell_lease(lease, Tick())

    # --- answers ---

    def log_in(self, accessor: str = "", ttl: float = 3600.0, uses: int = 0) -> Token[Source]:
        """Answer the login that is out."""
        (call,) = self.out
        assert isinstance(call, CallIssue)
        self.out = []
        self.made += 1
        accessor, source = accessor or f"t{self.made}", self.tokens.source
        grant = token_grant(accessor, self.now, ttl, source, uses=uses, renewable=True)
        self.tell(Issued(grant, self.now))
        token: Token[Source] = grant.payload
        return token

    def refuse_login(self, verdict: Verdict) -> None:
        """The login that is out does not work."""
        assert isinstance(self.out.pop(), CallIssue)
        self.tell(Failed(Failure(verdict, "no")))

    def renew_token(self, ttl: float) -> None:
        """Answer the token's renewal that is out."""
        assert isinstance(self.out.pop(), CallRenew)
        self.tell(Renewed(Renewal(ttl), self.now))

    def revoke_token(self) -> str:
        """Answer the token's revocation that is out; its accessor."""
        call = self.out.pop()
        assert isinstance(call, CallRevoke)
        self.tell(Revoked(call.lease_id))
        return call.lease_id

    def fetch(self, name: str, ttl: float = 3600.0, token: Token[Source] | None = None) -> Lease:
        """Answer the lease's call for a credential, made with ``token`` or the one in use."""
        lease = self.lease(name)
        token = token or self.tokens.token
        assert token is not None
        lease.out.remove(CallIssue())
        self.made += 1
        grant = Grant(None, ttl, f"{name}-{self.made}", True, credential_id=name, login=token.login)
        self.tell_lease(lease, Issued(grant, self.now))
        self.tell(Answered(lease))
        return lease

    def fail(self, name: str, token: Token[Source], *, dead: bool = False) -> None:
        """The lease's call, made with ``token``, does not work; ``dead``: the token is."""
        lease = self.lease(name)
        failure = Failure(Verdict.TOKEN_DEAD if dead else Verdict.RETRY, "no")
        call = lease.out.pop()
        if dead:
            self.tell(FoundDead(token))
        answer = (
            NotRevoked(call.lease_id, failure) if isinstance(call, CallRevoke) else Failed(failure)
        )
        self.tell_lease(lease, answer)
        self.tell(Answered(lease))

    def begin(self, ttl: float = 3600.0) -> Token[Source]:
        """Log in and fetch all."""
        self.at(self.now)
        token = self.log_in(ttl=ttl)
        for name in self.leases.shared:
            self.fetch(name)
        return token

    def look(self, **more: Any) -> None:
        """A second's look round."""
        self.tell(LookRound(**more))

    def end(self, *leave: str) -> Ending[Lease]:
        """As a stage does at its end."""
        ending = self.tokens.ending(leave)
        for lease in tuple(self.leases):
            self.tell_lease(lease, Stop(revoke=lease in ending.alone))
        self.tell(Stop(revoke=not ending.left))
        return ending

    # --- what there is ---

    def lease(self, name: str) -> Lease:
        """The lease of this upstream."""
        return self.leases.shared[name]

    def asking(self) -> list[str]:
        """The upstreams for which a credential is asked now."""
        return [lease.name for lease in self.leases if CallIssue() in lease.out]

    def serving(self) -> list[str]:
        """The upstreams with a credential that is good now."""
        return [each.name for each in self.leases if each.shown and each.shown.usable(self.now)]

    def names(self) -> list[str]:
        """The names of what was noted about tokens."""
        return [note.name for note in self.notes]


def token_grant(accessor: str, sent_at: float, ttl: float, source: Source, **more: Any) -> Grant:
    """What a login brings."""
    login = Login(sent_at + ttl, accessor)
    token = Token("hvs", accessor, login, source)
    return Grant(token, ttl, accessor, login=login, **more)
