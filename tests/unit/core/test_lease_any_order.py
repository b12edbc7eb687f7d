"""The rules of a lease, for any answers in any order after any delay.

``pytest tests/unit/core --hypothesis-profile thorough --timeout 0`` looks much longer.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Failure, Grant, Renewal, Verdict, Version
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRenew,
    LoginLost,
    Note,
    Rejected,
    Release,
    Revoke,
    Rotate,
    Stop,
    Tick,
)
from vaultauthz.core.pace import Pace

from .vault_world import World

JITTER = st.sampled_from([0.0, 0.31, 0.77, 0.999999])
TTL = st.sampled_from([3600.0, 600.0, 3600.0, 60.0, 600.0, 9.0, 2.0, 90000.0, 0.4, 0.0])
SHARE = st.sampled_from([0.61, 0.3, 0.7, 0.01, 0.9, 1.2])
SECONDS = st.sampled_from([0.5, 31.0, 7.0, 1.0, 0.1, 61.0, 400.0])
WITHIN = st.sampled_from([0.0, 0.0, 5.0, 60.0])
FAILURE = st.builds(
    Failure,
    # RETRY most of all, as in life.
    st.sampled_from([*Verdict, Verdict.RETRY, Verdict.RETRY, Verdict.RETRY]),
    st.just("it did not work"),
    st.sampled_from([0.0, 0.0, 0.0, 2.0, 120.0, 9000.0]),
    st.sampled_from([False, False, True]),
)
# After this long with a Vault that answers, everything must be in order again: the
# longest Retry-After that is believed, the drain, and a lag of a standby.
CALM = 300.0 + 60.0 + 31.0 + 60.0


class Rules(RuleBasedStateMachine):
    """What happens to every kind of credential."""

    pace = Pace()
    of_tokens = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.pace, self.of_tokens)
        self.made = 0

    def grant(self, ttl: float, *, renewable: bool = True) -> Grant:
        """A credential as Vault gives it for the issue call that is out."""
        raise NotImplementedError

    @initialize(jitter=JITTER)
    def begin(self, jitter: float) -> None:
        self.world.jitter = jitter
        self.world.tell(Tick())

    def issuing(self) -> bool:
        out = self.world.call
        return out is not None and isinstance(out.command, CallIssue)

    def renewing(self) -> bool:
        out = self.world.call
        return out is not None and isinstance(out.command, CallRenew)

    # --- time ---

    @rule(seconds=SECONDS, jitter=JITTER)
    def time_passes(self, seconds: float, jitter: float) -> None:
        self.world.jitter = jitter
        self.world.advance(seconds)

    @rule(jitter=JITTER)
    def until_it_wants_to_wake(self, jitter: float) -> None:
        self.world.jitter = jitter
        wait = self.world.machine.wake_at - self.world.now
        self.world.advance(wait if wait < inf else 0.0)

    @precondition(lambda self: self.world.shown is not None and self.world.shown.ttl < inf)
    @rule(share=SHARE)
    def a_share_of_the_lease_passes(self, share: float) -> None:
        assert self.world.shown is not None
        self.world.advance(share * self.world.shown.ttl)

    # --- answers ---

    @precondition(lambda self: self.issuing())
    @rule(
        ttl=TTL,
        renewable=st.sampled_from([True, True, True, False]),
        unusable=st.sampled_from([0] * 7 + [1]),
    )
    def issued(self, ttl: float, renewable: bool, unusable: int) -> None:
        misfit = bool(unusable) and not self.of_tokens  # a token is never put on a request
        self.world.issue(self.grant(ttl, renewable=renewable), unusable=misfit)

    @precondition(lambda self: self.renewing())
    @rule(
        share=st.sampled_from([0.0, 0.2, 0.94, 1.0, 1.0, 1.0]), last=st.sampled_from([0] * 4 + [1])
    )
    def renewed(self, share: float, last: int) -> None:
        out = self.world.call
        assert out is not None
        assert isinstance(out.command, CallRenew)
        self.world.renew(Renewal(out.command.increment * share, renewable=not last))

    @precondition(lambda self: self.world.call is not None)
    @rule(failure=FAILURE, jitter=JITTER)
    def failed(self, failure: Failure, jitter: float) -> None:
        self.world.jitter = jitter
        self.world.fail(failure)

    @precondition(lambda self: self.world.call is not None)
    @rule(times=st.integers(2, 6), away=st.booleans())
    def vault_is_away(self, times: int, away: bool) -> None:
        for _ in range(times):
            if self.world.call:
                self.world.fail(Failure(Verdict.RETRY, "unreachable", away=away))
            wait = self.world.machine.wake_at - self.world.now
            self.world.advance(wait if wait < inf else 0.0)

    @precondition(lambda self: self.world.revokes)
    @rule(data=st.data(), failure=st.none() | FAILURE)
    def revoked(self, data: st.DataObject, failure: Failure | None) -> None:
        self.world.revoked(data.draw(st.sampled_from(sorted(self.world.revokes))), failure)

    # --- people and the keeper ---

    # One rule, so that runs consist of time and answers for the greater part.
    @rule(
        what=st.sampled_from(
            ["rotate", "reject", "mistaken", "revoke", "release", "sleep", "tick", "stop"]
        ),
        within=WITHIN,
        asleep=st.sampled_from([0.5, 20.0, 45.0, 700.0, 4000.0, 100_000.0]),
    )
    def something_happens(self, what: str, within: float, asleep: float) -> None:
        world, shown = self.world, self.world.shown
        if what == "rotate":
            world.tell(Rotate(within))
        elif what == "reject" and shown:
            world.tell(Rejected(shown.credential.credential_id))
        elif what == "mistaken":
            assert not [c for c in world.tell(Rejected("another")) if not isinstance(c, Note)]
        elif what == "revoke":
            world.tell(Revoke())
        elif what == "release":
            for lease_id in list(world.leases)[-2:]:
                world.tell(Release(lease_id))
        elif what == "sleep":
            world.sleep(asleep)
        elif what == "tick":
            assert all(isinstance(command, Note) for command in world.tell(Tick()))
        elif what == "stop" and self.made > 2:
            # Who has left its leases to the token does not come back to revoke them.
            world.tell(Stop((within > 0 or self.of_tokens) and not world.handed_on))

    # --- the end ---

    def teardown(self) -> None:
        """Vault is well again; then all is in order, and after the stop nothing is left."""
        world = self.world
        self.vault_is_well()
        if not world.stopped:
            assert world.shown or world.locked, "it never came back"
            assert world.locked or world.issue_sent_at >= world.rotate_at, "the wish was forgotten"
            old = world.unsettled()
            for lease_id in old:
                world.tell(Release(lease_id))
            self.vault_is_well()
            assert not set(old) & set(world.unsettled()), "a replaced lease was never revoked"
            world.tell(Stop(revoke=True))
        self.vault_is_well()
        assert world.unsettled() == []
        assert world.machine.wake_at == inf or world.handed_on

    def vault_is_well(self) -> None:
        """Answer every call well until nothing happens for a while."""
        end = self.world.now + CALM
        for _ in range(2000):
            if self.world.call or self.world.revokes:
                self.answer_well()
            elif self.world.machine.wake_at > end:
                break
            else:
                self.world.advance(self.world.machine.wake_at - self.world.now)
        else:
            raise AssertionError("it does not come to rest")
        self.world.advance(max(0.0, end - self.world.now))

    def answer_well(self) -> None:
        """One good answer."""
        for lease_id in sorted(self.world.revokes):
            self.world.revoked(lease_id)
        out = self.world.call
        if out and isinstance(out.command, CallRenew):
            self.world.renew(Renewal(max(out.command.increment, 3600.0)))
        elif out:
            self.world.issue(self.healthy())

    def healthy(self) -> Grant:
        """What a Vault without trouble gives."""
        return self.grant(3600.0)


class DynamicLease(Rules):
    """A renewable lease that hangs on a login token."""

    def __init__(self) -> None:
        super().__init__()
        self.login = Login(self.world.now + 7200.0)

    def grant(self, ttl: float, *, renewable: bool = True) -> Grant:
        self.made += 1
        name = f"lease-{self.made}"
        return Grant(name, ttl, name, renewable, credential_id=name, login=self.login)

    def healthy(self) -> Grant:
        if self.login.ends_at <= self.world.now:
            self.login = Login(self.world.now + 90000.0)
        return super().healthy()

    @rule(
        what=st.sampled_from(["renewed", "replaced", "dead", "false alarm"]),
        ttl=st.sampled_from([5.0, 300.0, 90000.0]),
        within=WITHIN,
    )
    def token(self, what: str, ttl: float, within: float) -> None:
        shown, now = self.world.shown, self.world.now
        login = shown.grant.login if shown else self.login
        if what == "renewed" and self.login.ends_at > now:
            self.login.ends_at = now + ttl
        elif what == "replaced":
            # The keeper moves what is held; what is on its way keeps the old one.
            self.login = Login(now + ttl)
            if shown:
                self.world.tell(Rotate(within))
        elif what == "dead":
            login.ends_at = -inf
            self.login = Login(now + ttl) if login is self.login else self.login
            self.world.tell(LoginLost(within))
        elif what == "false alarm" and login.ends_at > now:
            assert self.world.tell(LoginLost()) == []


class LoginToken(Rules):
    """A login token, run as the keeper runs it: old ones drain until released."""

    pace = Pace(drain=inf)
    of_tokens = True

    def grant(self, ttl: float, *, renewable: bool = True) -> Grant:
        self.made += 1
        name, out = f"accessor-{self.made}", self.world.call
        assert out is not None
        return Grant(name, ttl, name, renewable, login=Login(out.sent_at + ttl, name))

    @rule()
    def found_dead(self) -> None:
        if self.world.shown:
            self.world.shown.grant.login.ends_at = -inf
            self.world.tell(LoginLost())


class TokenFile(LoginToken):
    """A token that another program keeps fresh: read anew, it may be the same, longer."""

    def grant(self, ttl: float, *, renewable: bool = True) -> Grant:
        shown = self.world.shown
        fresh = super().grant(ttl, renewable=False)
        if shown is None or self.made % 3 == 0:
            return fresh
        return replace(fresh, payload=shown.grant.payload, lease_id=shown.grant.lease_id)


class StaticSecret(Rules):
    """A KV secret that is written, deleted, undeleted, and read from nodes that lag."""

    refresh, max_stale = 300.0, 3600.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0
        self.editions: list[Version] = []  # oldest first
        self.newest = -1  # the place in ``editions`` of the newest that requests ever got
        self.gone_at = -inf  # when Vault last said that nothing is there
        self.last: Grant | None = None
        self.written()

    def written(self) -> None:
        """Vault's next version, made at the next moment."""
        self.clock += 1
        # Vault cuts zeros off the fraction, so these do not sort as plain text.
        fraction = f"{self.clock / 16:.4f}".rstrip("0").lstrip("0").rstrip(".")
        number = self.editions[-1].number + 1 if self.editions else 1
        self.editions.append(Version(number, f"2026-01-01T00:00:00{fraction}Z"))

    def grant(self, ttl: float, *, renewable: bool = True, behind: int = 0) -> Grant:
        self.made += 1
        version = self.editions[max(0, len(self.editions) - 1 - behind)]
        return Grant(version, self.max_stale, read_again=self.refresh, version=version)

    @precondition(lambda self: self.clock < 15)
    @rule()
    def somebody_writes(self) -> None:
        self.written()

    @precondition(lambda self: self.clock < 15)
    @rule()
    def somebody_begins_again_from_one(self) -> None:
        self.editions.clear()
        self.newest = -1
        self.written()

    @precondition(lambda self: self.issuing())
    @rule(behind=st.integers(1, 2))
    def a_standby_answers(self, behind: int) -> None:
        self.world.issue(self.grant(0.0, behind=behind))

    @precondition(lambda self: self.issuing())
    @rule()
    def deleted(self) -> None:
        self.world.fail(Failure(Verdict.SECRET_GONE, "deleted"))
        assert self.world.shown is None, "a deleted secret was served on"
        self.gone_at = self.world.now

    @invariant()
    def never_goes_back(self) -> None:
        shown = self.world.shown
        if shown is None or shown.grant is self.last or shown.grant.version not in self.editions:
            return
        self.last = shown.grant
        place = self.editions.index(shown.grant.version)
        assert place >= self.newest, "an older version came back"
        if place == self.newest:
            assert shown.sent_at >= self.gone_at, "asked before it was gone"
            lag = self.world.now - self.gone_at
            assert lag >= self.pace.standby_lag, "a deleted version came back"
        else:
            self.gone_at = -inf  # what was deleted is older than this
        self.newest = place

    def healthy(self) -> Grant:
        return self.grant(0.0)


QUICK = 40  # examples; the thorough profile has its own number
PROFILE = settings.get_current_profile_name()
SETTINGS = settings(
    max_examples=settings.get_profile(PROFILE).max_examples if PROFILE == "thorough" else QUICK,
    stateful_step_count=40,
)

TestDynamicLease = DynamicLease.TestCase
TestLoginToken = LoginToken.TestCase
TestTokenFile = TokenFile.TestCase
TestStaticSecret = StaticSecret.TestCase
TestDynamicLease.settings = SETTINGS
TestLoginToken.settings = SETTINGS
TestTokenFile.settings = SETTINGS
TestStaticSecret.settings = SETTINGS
