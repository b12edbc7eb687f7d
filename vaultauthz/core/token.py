"""A stage's login token: a lease like the others, on which the others hang.

Theory of operation. The machine is the lease machine, of which Issue is a login, Renew is
renew-self and Revoke is revoke-self; what it adds is what becomes of the leases:

    a token comes into use   the leases of the one before move to it, the busiest upstreams
                             first, spread over half of what that one has left (a minute at
                             most); its `Login` moves all their ends by one assignment
    one was left behind      a lease that a slow answer brings by it is replaced at once
    none hangs on it         the next look round has it revoked, and with it what is left
    it is found dead         its leases end, and one login follows; the second time in a row
                             after a pause, as each login would bring what dies at once
    a file of logins changes the next look round logs in, unless a login is out
    the end                  see ``ending``

Leases are given to it in a ``StageLeases``, and it speaks to them by commands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final, Generic, Protocol, TypeVar

from vaultauthz.core import events
from vaultauthz.core.credential import NO_LOGIN, Login, on_the_way
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import (
    Answered,
    Call,
    CallIssue,
    Command,
    FoundDead,
    Issued,
    LeaveToLapse,
    LogInBy,
    LoginLost,
    LookRound,
    Move,
    Note,
    Publish,
    ReachBy,
    Release,
    Rotate,
    Tell,
    Tick,
    Warn,
    Withdraw,
)
from vaultauthz.core.lease_state import L, StageLeases, State
from vaultauthz.core.pace import Pace

_EVENTS: Final = {
    events.ISSUED: events.LOGIN,
    events.ROTATED: events.LOGIN,
    events.RENEWED: events.TOKEN_RENEWED,
    events.REVOKED: events.TOKEN_REVOKED,
    events.NOT_REVOKED: events.TOKEN_NOT_REVOKED,
    events.EXPIRED: events.TOKEN_LOST,
    events.LOST: events.TOKEN_LOST,
}

_TELL_EVERY: Final = 60.0  # seconds between warnings of the same
_SOON: Final = 60.0  # seconds after a login, in which losing its token is no accident

# How long the leases of a token may take to move to the next: a share of what is
# left of it, and never more than this.
_MOVE_SHARE: Final = 0.5
_MOVE_MAX: Final = 60.0  # seconds


class TokenSource(Protocol):
    """By which a stage logs in; compared by identity."""

    @property
    def owns_token(self) -> bool:
        """Whether the token is ours to renew and revoke, or another program's."""


S = TypeVar("S", bound=TokenSource)


@dataclass(frozen=True, slots=True)
class Token(Generic[S]):
    """A login token in use, with the life that its leases share.

    ``secret`` is for whoever makes the calls; ``accessor`` is its grant's lease id, also that
    of a batch token, which has none of Vault's. ``source`` logged in with it; a reload may
    have brought another since.
    """

    secret: Any
    accessor: str
    login: Login = field(compare=False)
    source: S = field(compare=False)


@dataclass(frozen=True, slots=True)
class Ending(Generic[L]):
    """What is revoked at a stage's end.

    ``alone``: the leases that no token takes along. ``left``: how many live on, and with
    them the token, which is then left to lapse.
    """

    alone: frozenset[L]
    left: int


class TokenMachine(LeaseMachine, Generic[S, L]):
    """Runs a stage's login tokens, and says what becomes of the leases that hang on them.

    An ``Issued`` grant's payload is the ``Token``. Of the lease machine's commands, Publish and
    Withdraw stay inside: ``token`` is what they say. Not safe for threads.
    """

    def __init__(
        self, source: S, leases: StageLeases[L], pace: Pace = Pace(), start_at: float = 0.0
    ) -> None:
        # A token is revoked when its last lease has left it, not after a time.
        super().__init__(replace(pace, drain=inf), start_at)
        self.source = source
        self.leases = leases
        self.token: Token[S] | None = None  # in use
        self._tokens: dict[str, Token[S]] = {}  # by accessor, until they are forgotten
        self._moved = False  # to another Vault, where it has yet to log in
        self._wants_login = False  # a file that logins read has changed
        self._told_uses_at = -inf
        self._lost_soon = 0  # logins in a row whose token was found dead soon after
        self._commands: list[Command] = []

    def handle(self, event: Any, now: float, jitter: float) -> list[Command]:
        """Take one event in; return the commands it leads to, in order."""
        commands = self._commands = []
        _HANDLERS.get(type(event), TokenMachine._go_on)(self, event, now, jitter)
        return commands

    def _go_on(self, event: Any, now: float, jitter: float) -> None:
        """As with every lease, and what follows from it for the leases."""
        for command in super().handle(event, now, jitter):
            if isinstance(command, Publish):
                self._put_to_use(command, now)
            elif isinstance(command, Withdraw):
                self._put_out_of_use()
            elif isinstance(command, Note):
                self._note(command)
            else:
                self._commands.append(command)

    # --- what there is ---

    def token_of(self, login: Login | None) -> Token[S] | None:
        """The token whose life this is, while it is known."""
        return next((t for t in self._tokens.values() if t.login is login), None)

    def token_by(self, accessor: str) -> Token[S] | None:
        """The token with this accessor, while it is known."""
        return self._tokens.get(accessor)

    def token_for(self, lease: LeaseMachine, call: Call) -> Token[S] | None:
        """With which the call is made: that of the lease, while it lives, or the one in use."""
        if isinstance(call, CallIssue):
            return self.token
        return self.token_of(lease.login_of(call.lease_id)) or self.token

    def in_use(self, accessor: str, calling: Container[str]) -> bool:
        """Whether a lease, one that still drains, or a call hangs on this token."""
        if accessor in calling:
            return True
        token = self._tokens.get(accessor)
        return token is not None and any(r.machine.hangs_on(token.login) for r in self.leases)

    def _leases_of(self, token: Token[S]) -> list[L]:
        """The leases that hang on ``token``, the busiest upstreams first."""
        found = [
            lease
            for lease in self.leases
            if lease.machine.held and lease.machine.held.grant.login is token.login
        ]
        return sorted(found, key=lambda lease: lease.uses, reverse=True)

    # --- tokens come and go ---

    def _on_issued_token(self, event: Issued, now: float, jitter: float) -> None:
        """Know the token before it is decided about: it may be revoked at once."""
        token: Token[S] = event.grant.payload
        known = self._tokens.get(token.accessor)
        # A token file can bring the one back that leases hang on, or one that only
        # seemed dead, to a standby that did not know it yet.
        if known is not None and known.login.ends_at != -inf:
            token = replace(token, login=known.login)  # by the source of now
        self._tokens[token.accessor] = token
        if event.grant.uses and now - self._told_uses_at >= _TELL_EVERY:
            self._told_uses_at = now
            self._warn(
                f"the token is good for {event.grant.uses} requests only (num_uses); each fetch "
                "and renewal is one, then it dies, and its leases with it: set token_num_uses=0 "
                "at the login's role, or have a token without it written to the token file; "
                "vaultauthz doctor shows how"
            )
        self._go_on(event, now, jitter)

    def _put_to_use(self, command: Publish, now: float) -> None:
        """The leases of the token before move to this one, spread out."""
        grant, before = command.grant, self.token
        token = self.token = self._tokens[grant.lease_id]
        for login in (grant.login, token.login):
            login.ends_at = command.ends_at
            # By what is left, which a renewal near its `max_ttl` has made less than at first.
            login.on_the_way = on_the_way(command.ends_at - now)
        moved = self._moved and token.source is self.source
        if moved:
            self._moved = False
        if before and before.login is token.login:
            return
        within = 0.0
        if before:
            before.login.leaving = before.source.owns_token and not moved
            within = max(0.0, min(_MOVE_MAX, (before.login.last_at - now) * _MOVE_SHARE))
        if moved:  # to another Vault, so static secrets too, and their versions begin anew
            for lease in self.leases.active:
                self._tell(lease, Rotate(within, anew=True))
        elif before:
            self._commands += [Move(each, Rotate(within)) for each in self._leases_of(before)]

    def _put_out_of_use(self) -> None:
        """Its leases have died with it."""
        token, self.token = self.token, None
        if token is None or self.state is State.STOPPED:
            return  # at the end it is revoked, and dies when that has worked
        token.login.ends_at = -inf
        for lease in self._leases_of(token):
            self._tell(lease, LoginLost())

    def _note(self, note: Note) -> None:
        token = self._tokens.pop(note.lease_id, None) if note.name == events.REVOKED else None
        if token:  # what still hung on it has ended with it
            token.login.ends_at = -inf
            for lease in self.leases:
                if lease.machine.hangs_on(token.login):
                    self._tell(lease, Tick())
        self._commands.append(replace(note, name=_EVENTS.get(note.name, note.name)))

    def _on_found_dead(self, event: FoundDead, now: float, jitter: float) -> None:
        token, held = event.token, self.held
        if token is None or held is None:
            return
        if self.token is None or self.token.login is not token.login:
            token.login.ends_at = -inf  # it has been replaced meanwhile
            return
        held.grant.login.ends_at = -inf
        self._go_on(LoginLost(after=self._pause(now - held.since, jitter)), now, jitter)

    def _pause(self, lived: float, jitter: float) -> float:
        """Seconds to wait before the next login, after a token that was lost so soon.

        None the first time. A token that Vault gives and then knows nothing of, again
        and again, may be bound to an address that we do not have (``token_bound_cidrs``):
        at once would mean a login for each call that fails.
        """
        self._lost_soon = self._lost_soon + 1 if lived < _SOON else 0
        if self._lost_soon < 2:
            return 0.0
        self._warn(
            f"Vault knows the token no more, right after the login, for the {self._lost_soon}. "
            "time in a row; is it bound to other addresses (token_bound_cidrs), or does something "
            "revoke it?"
        )
        return self.pace.retry_in(self._lost_soon, inf, jitter)

    # --- what the leases and a reload say ---

    def _on_answered(self, event: Answered, now: float, jitter: float) -> None:
        """Replace what was fetched with a token that was replaced while the call was out.

        Nobody else would: the new token moved only what was held then.
        """
        machine = event.lease.machine
        if machine.state is not State.HELD or machine.held is None or self.token is None:
            return
        login = machine.held.grant.login
        if login is NO_LOGIN or login is self.token.login or machine.due <= now:
            return
        self._tell(event.lease, Rotate())

    def _on_log_in_by(self, event: LogInBy, now: float, jitter: float) -> None:
        self.source = event.source
        self._moved |= event.moved
        self._go_on(Rotate(), now, jitter)

    def _on_reach_by(self, event: ReachBy, now: float, jitter: float) -> None:
        before, self.source = self.source, event.source
        for accessor, token in self._tokens.items():
            if token.source is before:
                self._tokens[accessor] = replace(token, source=self.source)
        if self.token:
            self.token = self._tokens[self.token.accessor]

    # --- once a second ---

    def _on_look_round(self, event: LookRound, now: float, jitter: float) -> None:
        """Files looked at, replaced tokens given back."""
        self._wants_login |= event.files_changed
        # While a login is out, it may have read the old file: then this waits for it.
        takes_it = self.held is not None or self.state is State.EMPTY
        if self._wants_login and takes_it and event.log_in:
            self._wants_login = False
            self._go_on(Rotate(), now, jitter)
        for old in self.retired:
            if not self.in_use(old.lease_id, event.calling):
                self._go_on(Release(old.lease_id), now, jitter)
        self._forget_tokens()

    def _forget_tokens(self) -> None:
        """Drop the tokens that will not be used, renewed or revoked any more."""
        if self.state not in (State.EMPTY, State.HELD):
            return  # one may be on its way, to be used or revoked
        known = {old.lease_id for old in self.retired}
        if self.held:
            known.add(self.held.lease_id)
        for accessor in self._tokens.keys() - known:
            del self._tokens[accessor]

    # --- the end ---

    def ending(self, leave: Collection[str]) -> Ending[L]:
        """What is revoked at the end: the stage's tokens, and what none of them takes along.

        The leases of an upstream in ``leave`` live on, and with them the token: then the
        others are revoked by themselves.
        """
        left = {
            lease
            for name, lease in self.leases.shared.items()
            if name in leave and lease.machine.held and lease.machine.held.lease_id
        }
        alone = frozenset(
            lease
            for lease in self.leases
            if lease not in left and (left or not self._takes_along(lease))
        )
        return Ending(alone, len(left))

    def _takes_along(self, lease: L) -> bool:
        """Whether each lease there, also one on its way, ends when our own tokens are revoked."""
        foreign = [token for token in self._tokens.values() if not token.source.owns_token]
        return not any(
            (lease.calls and token is self.token) or lease.machine.hangs_on(token.login)
            for token in foreign
        )

    def _on_leave_to_lapse(self, event: LeaveToLapse, now: float, jitter: float) -> None:
        held = self.held
        if held is None:
            return
        reason = f"{event.leases} of its leases are in use by Envoys; it ends by itself"
        when = f", in {int(held.ends_at - now)} s" if held.ends_at < inf else ""
        self._warn(f"its token is not revoked, since {reason}{when}")
        self._commands.append(Note(events.TOKEN_LEFT, held.lease_id, reason=reason))

    def _tell(self, lease: Any, event: Any) -> None:
        self._commands.append(Tell(lease, event))

    def _warn(self, text: str) -> None:
        self._commands.append(Warn(text))


_HANDLERS: dict[type, Callable[[TokenMachine[Any, Any], Any, float, float], None]] = {
    Issued: TokenMachine._on_issued_token,
    LogInBy: TokenMachine._on_log_in_by,
    ReachBy: TokenMachine._on_reach_by,
    FoundDead: TokenMachine._on_found_dead,
    Answered: TokenMachine._on_answered,
    LookRound: TokenMachine._on_look_round,
    LeaveToLapse: TokenMachine._on_leave_to_lapse,
}
