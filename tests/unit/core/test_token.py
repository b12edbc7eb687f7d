"""What becomes of a stage's tokens and of the leases that hang on them, rule by rule."""

from __future__ import annotations

from math import inf

import pytest

from tests.unit.core.stage_life import Source, StageLife
from vaultauthz.core import events
from vaultauthz.core.grant import Verdict
from vaultauthz.core.lease_messages import (
    CallIssue,
    CallRevoke,
    LeaveToLapse,
    LogInBy,
    ReachBy,
    Rotate,
)
from vaultauthz.core.pace import Pace
from vaultauthz.core.token import Ending

# --- one token after another ---


def test_leases_move_before_their_token_ends_the_busiest_first() -> None:
    """Its last renewal was short, as its max_ttl is near: a new login, and none serves a dead one."""
    life = StageLife("a", "b", "c")
    old = life.begin(ttl=100.0)
    life.lease("b").uses = 7
    life.at(60.0)
    life.renew_token(80.0)
    life.at(old.login.ends_at - 20.0)
    new = life.log_in()
    assert [name for name, _ in life.moves] == ["b", "a", "c"]
    assert old.login.leaving
    assert life.serving() == ["a", "b", "c"]
    assert all(life.fetch(name).machine.hangs_on(new.login) for name in ("b", "a", "c"))
    life.at(old.login.ends_at)
    assert life.serving() == ["a", "b", "c"]


@pytest.mark.parametrize(("left", "within"), [(3600.0, 60.0), (61.0, 30.0), (0.5, 0.0), (inf, 60)])
def test_a_move_takes_half_of_what_the_old_token_has_left(left: float, within: float) -> None:
    """A minute at most; its last second is for requests on their way."""
    life = StageLife("a")
    old = life.begin()
    old.login.ends_at = left
    life.tell(Rotate())
    life.log_in()
    assert life.moves == [("a", within)]


def test_a_renewed_token_moves_its_leases_ends_and_no_lease() -> None:
    """By one assignment; the second on the way is counted by what is left now."""
    life = StageLife("a")
    token = life.begin(ttl=100.0)
    life.at(60.0)
    life.renew_token(100.0)
    assert (token.login.ends_at, token.login.on_the_way, life.moves) == (160.0, 1.0, [])
    life.at(130.0)
    life.renew_token(5.0)
    assert (token.login.ends_at, token.login.on_the_way) == (135.0, 0.5)
    assert life.names() == [events.LOGIN, events.TOKEN_RENEWED, events.TOKEN_RENEWED]


def test_an_old_token_is_revoked_when_its_last_lease_has_drained() -> None:
    """It lives for as long as a lease or a call hangs on it, and takes along what drains at its end."""
    life = StageLife("a", "b", pace=Pace(drain=30.0))
    old = life.begin()
    life.tell(Rotate())
    life.log_in()
    life.look()
    assert life.out == []
    life.fetch("a")
    life.at(31.0)
    life.look()
    assert life.out == []  # b still uses it
    life.fetch("b")
    life.at(50.0)
    life.look()
    assert life.out == []  # b's drains
    life.at(62.0)
    assert [each.machine.held is not None for each in life.leases] == [True, True]
    life.look(calling={old.accessor})
    assert life.out == []  # a call is out with it
    life.look()
    assert life.out == [CallRevoke(old.accessor)]
    assert life.revoke_token() == old.accessor
    assert life.names() == [events.LOGIN, events.LOGIN, events.TOKEN_REVOKED]
    assert life.tokens.token_by(old.accessor) is None


def test_what_was_fetched_with_a_token_that_was_replaced_meanwhile_moves_too() -> None:
    """A slow answer brings a lease of the old token: nobody else would move it."""
    life = StageLife("a", "b")
    life.at(0.0)
    old = life.log_in()
    life.fetch("b")
    life.tell(Rotate())
    new = life.log_in()
    slow = life.fetch("a", token=old)
    assert "a" in life.asking()
    assert life.fetch("a").machine.hangs_on(new.login)
    assert slow.machine.hangs_on(old.login)  # it drains


def test_what_does_not_hang_on_a_token_stays() -> None:
    """A static secret outlives the token that read it."""
    life = StageLife("a")
    life.begin()
    life.tell(Rotate())
    life.log_in()
    life.fetch("a")
    assert life.asking() == []


# --- files of logins ---


def test_a_refused_login_is_tried_once_until_the_file_changes() -> None:
    """Five tries would lock the role for the fleet."""
    life = StageLife("a")
    life.at(0.0)
    life.refuse_login(Verdict.LOCKED)
    life.at(10_000.0)
    life.look()
    assert life.out == []
    life.look(files_changed=True)
    assert life.out == [CallIssue()]
    life.log_in()
    life.look()
    assert life.out == []


def test_a_file_that_changes_while_a_login_is_out_is_read_after_it() -> None:
    """The login that is out may have read the old content; the change is not forgotten."""
    life = StageLife("a")
    life.at(0.0)
    life.look(files_changed=True)
    life.refuse_login(Verdict.LOCKED)
    assert life.out == []
    life.at(1.0)
    life.look()
    assert life.out == [CallIssue()]


def test_a_login_that_works_is_followed_by_one_more_when_the_file_has_changed_meanwhile() -> None:
    """At the next look round, not on its heels."""
    life = StageLife("a")
    life.at(0.0)
    life.look(files_changed=True)
    life.log_in()
    assert life.out == []
    life.look()
    assert life.out == [CallIssue()]


def test_no_login_follows_when_the_end_has_come() -> None:
    """Whatever becomes of files while tokens are revoked."""
    life = StageLife("a")
    life.begin()
    life.look(files_changed=True, log_in=False)
    assert life.out == []


def test_a_token_that_comes_back_is_the_same_one() -> None:
    """From the file: what hangs on it goes on. One that seemed dead begins a new life."""
    life = StageLife("a", source=Source(owned=False))
    life.at(0.0)
    first = life.log_in("agent")
    life.fetch("a")
    life.tell(Rotate())
    life.log_in("other")
    life.tell(Rotate())
    life.log_in("agent")
    assert life.tokens.token is not None
    assert life.tokens.token.login is first.login
    life.lease("a").machine.handle(Rotate(), life.now, 0.0)
    life.lease("a").out.append(CallIssue())
    life.fail("a", life.tokens.token, dead=True)
    assert life.serving() == []
    assert first.login.ends_at == -inf
    back = life.log_in("agent")
    assert life.tokens.token.login is back.login is not first.login
    life.fetch("a")
    assert life.serving() == ["a"]


# --- dead tokens ---


def test_a_dead_token_is_replaced_by_one_login() -> None:
    """Whichever lease finds out, and however many do; each is fetched once by the next."""
    life = StageLife(*"abcd")
    token = life.begin()
    life.at(2400.0)
    life.renew_token(3600.0)
    for name in "abcd":
        life.fail(name, token, dead=True)
    assert life.serving() == []
    assert life.names().count(events.TOKEN_LOST) == 1
    life.log_in()
    life.at(life.now + 1.0)
    assert life.asking() == ["a", "b", "c", "d"]
    for name in "abcd":
        life.fetch(name)
    assert (life.serving(), life.out) == (["a", "b", "c", "d"], [])


def test_a_token_that_is_dead_at_once_is_no_reason_to_log_in_all_the_time() -> None:
    """The first time at once; then with the pauses of failed calls, and a word in the log."""
    life = StageLife("a")
    gaps: list[float] = []
    life.at(0.0)
    for _ in range(4):
        token = life.log_in()
        life.at(life.now + 61.0 * (not gaps) + 1.0)
        life.fail("a", token, dead=True)
        since = life.now
        while not life.out:
            life.at(life.tokens.wake_at)
        gaps.append(life.now - since)
    assert gaps == [0.0, 0.0, 0.5, 0.5]
    assert [text[:36] for text in life.warnings] == ["Vault knows the token no more, right"] * 2
    assert "for the 3. time" in life.warnings[1]


def test_an_old_token_that_is_found_dead_ends_its_leases_only() -> None:
    """The one in use stays."""
    life = StageLife("a", "b")
    old = life.begin()
    life.tell(Rotate())
    life.log_in()
    life.fetch("a")
    life.fail("b", old, dead=True)
    assert (life.serving(), life.out) == (["a"], [])


@pytest.mark.parametrize("uses", [0, 3])
def test_a_token_that_is_good_for_a_few_requests_is_told(uses: int) -> None:
    """With the setting; once in a minute, as it logs in again and again."""
    life = StageLife("a")
    life.at(0.0)
    for _ in range(3):
        life.log_in(uses=uses)
        life.at(life.now + 40.0)
        life.tell(Rotate())
    told = [text for text in life.warnings if "good for 3 requests only (num_uses)" in text]
    assert len(told) == len(life.warnings) == (2 if uses else 0)
    assert all("token_num_uses=0" in text for text in told)


# --- reloads ---


def test_another_vault_has_all_read_anew() -> None:
    """Static secrets too; the old Vault's token is not said to take leases along."""
    life = StageLife("a")
    old = life.begin()
    life.tell(LogInBy(Source(), moved=True))
    assert life.out == [CallIssue()]
    life.log_in()
    assert (life.asking(), life.moves, old.login.leaving) == (["a"], [], False)
    life.fetch("a")
    life.tell(Rotate())
    life.log_in()
    assert len(life.moves) == 1  # from then on as ever


def test_a_login_that_was_out_at_the_move_is_not_the_new_vaults() -> None:
    """What it brings is replaced by the login that follows, and only that has all read anew."""
    life = StageLife("a")
    life.begin()
    life.tell(Rotate())
    before = life.tokens.source
    life.tell(LogInBy(Source(), moved=True))
    after, life.tokens.source = life.tokens.source, before  # it was made by the one before
    life.log_in("late")
    life.tokens.source = after
    anew = life.lease("a").machine
    assert (life.out, anew._anew) == ([CallIssue()], False)
    life.log_in("new")
    assert anew._anew or life.asking() == ["a"]


def test_what_reaches_the_same_vault_makes_what_the_one_before_made() -> None:
    """The login and the leases stay, by the new way; an older Vault's token keeps its own."""
    life = StageLife("a")
    first = life.begin()
    life.tell(LogInBy(Source(), moved=True))
    life.log_in()
    way = Source()
    life.tell(ReachBy(way))
    assert life.tokens.token is not None
    assert (life.tokens.token.source, life.tokens.source) == (way, way)
    assert life.tokens.token_of(first.login) == first
    known = life.tokens.token_by(first.accessor)
    assert known is not None
    assert known.source is first.source
    assert life.out == []


# --- the end ---


def test_our_own_token_takes_all_along() -> None:
    """One call, and afterwards nothing is served."""
    life = StageLife("a", "b")
    token = life.begin()
    assert life.end().alone == frozenset()
    assert (life.out, life.serving()) == ([CallRevoke(token.accessor)], [])
    assert [lease.out for lease in life.leases] == [[], []]


def test_under_somebody_elses_token_each_lease_is_revoked_by_itself() -> None:
    """Also one that is on its way, when it comes."""
    life = StageLife("a", "b", source=Source(owned=False))
    life.at(0.0)
    token = life.log_in()
    a, b = life.fetch("a"), life.lease("b")
    assert life.end().alone == {a, b}
    assert [type(call) for call in a.out] == [CallRevoke]
    life.fetch("b", token=token)
    assert [type(call) for call in b.out] == [CallRevoke]


def test_what_still_drains_on_somebody_elses_token_is_revoked_by_itself() -> None:
    """Although a login of our own has followed; what hangs on that alone goes with it."""
    life = StageLife("a", "b", source=Source(owned=False))
    life.begin()
    life.tell(LogInBy(Source()))
    life.log_in()
    for name in "ab":
        life.fetch(name)
    a, b = life.lease("a"), life.lease("b")
    b.machine.retired.forget("b-3")
    assert life.end().alone == {a}
    assert not b.out


def test_what_is_to_live_on_keeps_its_token() -> None:
    """Then the others are revoked by themselves, and the token is left to lapse."""
    life = StageLife("a", "b")
    life.begin()
    ending = life.end("a", "c")
    assert ending == Ending(frozenset({life.lease("b")}), 1)
    assert (life.out, life.lease("a").out) == ([], [])
    assert [type(call) for call in life.lease("b").out] == [CallRevoke]


def test_what_is_not_there_does_not_live_on() -> None:
    """Nothing is left for the sake of a lease that has gone."""
    life = StageLife("a")
    life.at(0.0)
    life.log_in()
    assert life.tokens.ending(["a"]).left == 0


@pytest.mark.parametrize(("ttl", "when"), [(100.0, ", in 99 s"), (inf, "")])
def test_a_token_that_is_left_is_told(ttl: float, when: str) -> None:
    """In the log and to the audit log; also one that never ends."""
    life = StageLife("a")
    life.begin(ttl=ttl)
    life.at(0.5)
    life.tell(LeaveToLapse(2))
    reason = "2 of its leases are in use by Envoys; it ends by itself"
    assert life.warnings == [f"its token is not revoked, since {reason}{when}"]
    assert (life.notes[-1].name, life.notes[-1].reason) == (events.TOKEN_LEFT, reason)
