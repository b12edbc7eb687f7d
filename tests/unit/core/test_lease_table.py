"""Every event in every state: the state table of lease.py, row by row."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from vaultauthz.core import events
from vaultauthz.core.grant import Grant, Renewal, Version
from vaultauthz.core.lease_messages import (
    Failed,
    Issued,
    LoginLost,
    Note,
    NotRevoked,
    Rejected,
    Release,
    Renewed,
    Revoke,
    Revoked,
    Rotate,
    Stop,
    Tick,
    Unusable,
)
from vaultauthz.core.lease_state import State

from .lease_life import AWAY, GONE, LOCKED, NOTHING_THERE, REFUSED, Life, in_state, issued, renewed

# When the event comes: nothing is due then, and what is held (until 100) is still good.
NOW = {State.RENEWING: 61.0, State.LAPSED: 101.0}

# The state, the event, what is commanded, the state after it, and the next wake-up.
ROWS = [
    (State.EMPTY, "tick", "", State.EMPTY, 50.5),
    (State.EMPTY, "rotate", "", State.EMPTY, 50.5),
    (State.EMPTY, "rejected", "", State.EMPTY, 50.5),
    (State.EMPTY, "revoke", "", State.EMPTY, 50.5),
    (State.EMPTY, "login lost", "", State.EMPTY, 50.5),
    (State.EMPTY, "release", "", State.EMPTY, 50.5),
    (State.EMPTY, "stop", "", State.STOPPED, inf),
    (State.EMPTY, "leave", "", State.STOPPED, inf),
    (State.ISSUING, "tick", "", State.ISSUING, inf),
    (State.ISSUING, "issued", "Publish", State.HELD, 110.0),
    (State.ISSUING, "unusable", "CallRevoke", State.EMPTY, 50.75),
    (State.ISSUING, "failed", "", State.EMPTY, 50.75),
    (State.ISSUING, "refused", "", State.EMPTY, 50.75),
    (State.ISSUING, "locked", "", State.EMPTY, 50.75),
    (State.ISSUING, "nothing there", "", State.EMPTY, 50.75),
    (State.ISSUING, "rotate", "", State.ISSUING, inf),
    (State.ISSUING, "rejected", "", State.ISSUING, inf),
    (State.ISSUING, "revoke", "", State.ISSUING, inf),
    (State.ISSUING, "login lost", "", State.ISSUING, inf),
    (State.ISSUING, "release", "", State.ISSUING, inf),
    (State.ISSUING, "stop", "", State.STOPPED, inf),
    (State.ISSUING, "leave", "", State.STOPPED, inf),
    (State.HELD, "tick", "", State.HELD, 60.0),
    (State.HELD, "rotate", "CallIssue", State.REPLACING, 100.0),
    (State.HELD, "rejected", "CallIssue", State.REPLACING, 100.0),
    (State.HELD, "revoke", "Withdraw CallIssue CallRevoke", State.ISSUING, inf),
    (State.HELD, "login lost", "Withdraw CallIssue", State.ISSUING, inf),
    (State.HELD, "release", "", State.HELD, 60.0),
    (State.HELD, "stop", "Withdraw CallRevoke", State.STOPPED, inf),
    (State.HELD, "leave", "Withdraw", State.STOPPED, 100.0),
    (State.RENEWING, "tick", "", State.RENEWING, 100.0),
    (State.RENEWING, "renewed", "Publish", State.HELD, 120.0),
    (State.RENEWING, "failed", "", State.HELD, 61.5),
    (State.RENEWING, "refused", "", State.HELD, 66.667),
    (State.RENEWING, "gone", "Withdraw", State.EMPTY, 61.5),
    (State.RENEWING, "rotate", "", State.RENEWING, 100.0),
    (State.RENEWING, "rejected", "", State.RENEWING, 100.0),
    (State.RENEWING, "revoke", "Withdraw", State.LAPSED, inf),
    (State.RENEWING, "login lost", "Withdraw", State.LAPSED, inf),
    (State.RENEWING, "release", "", State.RENEWING, 100.0),
    (State.RENEWING, "stop", "Withdraw", State.STOPPED, inf),
    (State.RENEWING, "leave", "Withdraw", State.STOPPED, 100.0),
    (State.REPLACING, "tick", "", State.REPLACING, 100.0),
    (State.REPLACING, "issued", "Publish", State.HELD, 80.25),
    (State.REPLACING, "unusable", "CallRevoke", State.HELD, 50.75),
    (State.REPLACING, "failed", "", State.HELD, 50.75),
    (State.REPLACING, "refused", "", State.HELD, 50.75),
    (State.REPLACING, "locked", "", State.HELD, 60.0),
    (State.REPLACING, "nothing there", "", State.HELD, 50.75),
    (State.REPLACING, "rotate", "", State.REPLACING, 100.0),
    (State.REPLACING, "rejected", "", State.REPLACING, 100.0),
    (State.REPLACING, "revoke", "Withdraw CallRevoke", State.ISSUING, inf),
    (State.REPLACING, "login lost", "Withdraw", State.ISSUING, inf),
    (State.REPLACING, "release", "", State.REPLACING, 100.0),
    (State.REPLACING, "stop", "Withdraw CallRevoke", State.STOPPED, inf),
    (State.REPLACING, "leave", "Withdraw", State.STOPPED, 100.0),
    (State.LAPSED, "tick", "", State.LAPSED, inf),
    (State.LAPSED, "renewed", "CallIssue CallRevoke", State.ISSUING, inf),
    (State.LAPSED, "failed", "", State.EMPTY, 101.5),
    (State.LAPSED, "refused", "", State.EMPTY, 101.5),
    (State.LAPSED, "gone", "", State.EMPTY, 101.5),
    (State.LAPSED, "rotate", "", State.LAPSED, inf),
    (State.LAPSED, "rejected", "", State.LAPSED, inf),
    (State.LAPSED, "revoke", "", State.LAPSED, inf),
    (State.LAPSED, "login lost", "", State.LAPSED, inf),
    (State.LAPSED, "release", "", State.LAPSED, inf),
    (State.LAPSED, "stop", "", State.STOPPED, inf),
    (State.LAPSED, "leave", "", State.STOPPED, inf),
    (State.STOPPED, "tick", "", State.STOPPED, inf),
    (State.STOPPED, "issued", "CallRevoke", State.STOPPED, inf),
    (State.STOPPED, "unusable", "CallRevoke", State.STOPPED, inf),
    (State.STOPPED, "failed", "", State.STOPPED, inf),
    (State.STOPPED, "rotate", "", State.STOPPED, inf),
    (State.STOPPED, "rejected", "", State.STOPPED, inf),
    (State.STOPPED, "revoke", "", State.STOPPED, inf),
    (State.STOPPED, "login lost", "", State.STOPPED, inf),
    (State.STOPPED, "release", "", State.STOPPED, inf),
    (State.STOPPED, "stop", "", State.STOPPED, inf),
    (State.STOPPED, "leave", "", State.STOPPED, inf),
    (State.STOPPED, "revoked", "", State.STOPPED, inf),
    (State.STOPPED, "not revoked", "", State.STOPPED, 50.75),
]


def event(name: str, life: Life) -> object:
    """The event that a row means."""
    if name == "login lost":
        life.login.ends_at = -inf
    return {
        "tick": Tick(),
        "issued": issued(life, "two", 50),
        "unusable": Unusable(life.grant("two"), 50, REFUSED),
        "renewed": renewed(60),
        "failed": Failed(AWAY),
        "refused": Failed(REFUSED),
        "locked": Failed(LOCKED),
        "gone": Failed(GONE),
        "nothing there": Failed(NOTHING_THERE),
        "rotate": Rotate(),
        "rejected": Rejected("id-one"),
        "revoke": Revoke(),
        "login lost": LoginLost(),
        "release": Release("one"),
        "stop": Stop(revoke=True),
        "leave": Stop(revoke=False),
        "revoked": Revoked("one"),
        "not revoked": NotRevoked("one", AWAY),
    }[name]


@pytest.mark.parametrize(
    ("state", "name", "commands", "after", "wake_at"),
    ROWS,
    ids=[f"{row[0].value}-{row[1]}" for row in ROWS],
)
def test_row(state: State, name: str, commands: str, after: State, wake_at: float) -> None:
    """The event leads to these commands, this state and this wake-up."""
    life = in_state(state)
    assert life.names(NOW.get(state, 50.25), event(name, life)) == commands
    assert life.state is after
    assert life.wake_at == pytest.approx(wake_at, abs=1e-3)


def test_every_event_in_every_state_has_a_row() -> None:
    """What may happen in a state is in the table: what people do always, answers to its call."""
    always = {"tick", "rotate", "rejected", "revoke", "login lost", "release", "stop", "leave"}
    to_issue = {"issued", "unusable", "failed", "refused", "locked", "nothing there"}
    to_renew = {"renewed", "failed", "refused", "gone"}
    late = {"issued", "unusable", "failed", "revoked", "not revoked"}
    answers = {
        State.EMPTY: set[str](),
        State.HELD: set[str](),
        State.ISSUING: to_issue,
        State.REPLACING: to_issue,
        State.RENEWING: to_renew,
        State.LAPSED: to_renew,
        State.STOPPED: late,
    }
    for state in State:
        assert {row[1] for row in ROWS if row[0] is state} == always | answers[state]


def test_a_credential_that_the_upstream_refuses_while_vault_fails_stays() -> None:
    """A 401 asks for no other one while calls fail: the tries go on as they were."""
    life = in_state(State.RENEWING)
    life.at(61, Failed(AWAY), 0.9)
    due = life.wake_at
    assert life.names(61.6, Rejected("id-one")) == ""
    assert (life.state, life.wake_at) == (State.HELD, due)


def test_the_log_says_why_it_was_lost() -> None:
    """By an operator's word, or with its login, which may be over in that very moment."""
    life = in_state(State.HELD)
    life.at(50, Revoke())
    assert life.notes[-1].reason == "revoked by an operator"
    life = in_state(State.HELD)
    life.login.ends_at = 50.0
    assert life.names(50, LoginLost(after=5.0)) == "Withdraw"
    assert life.notes[-1].reason == "its login token is gone"
    assert life.wake_at == 55.0


def test_the_audit_log_is_told_of_each_turn() -> None:
    """Of which lease and credential, by which of Vault's requests, and why."""
    life = Life()
    life.at(0, Tick())
    grant = replace(life.grant("one"), request_id="r1")
    life.at(1, Issued(grant, 0))
    life.at(60, Tick())
    life.at(61, Renewed(Renewal(100.0, request_id="r2"), 60))
    life.at(160, Tick())
    life.at(161, Failed(AWAY))
    assert life.notes == [
        Note(events.ISSUED, "one", "id-one", "r1"),
        Note(events.RENEWED, "one", "id-one", "r2"),
        Note(events.EXPIRED, "one", "id-one", reason="its time is over"),
        Note(events.FAILED, reason=AWAY.reason),
    ]


def test_one_that_was_revoked_is_told_by_its_names() -> None:
    """Of a lease that is not known any more by the one that Vault said."""
    life = in_state(State.HELD)
    life.at(50, Revoke())
    life.at(51, Revoked("one"))
    assert life.notes[-1] == Note(events.REVOKED, "one", "id-one")
    life.at(52, Revoked("one"))
    assert life.notes[-1] == Note(events.REVOKED, "one", "")


def test_another_place_stays_another_when_more_is_wished_for() -> None:
    """Its versions have nothing to do with those of before, though the next wish says no such thing."""
    life = Life()
    life.at(0, Tick())
    life.at(1, Issued(Grant("a", version=Version(7, "2026-01-02T00:00:00Z"), read_again=60.0), 0))
    life.at(2, Rotate(within=10.0, anew=True), 0.9)
    assert life.names(3, Rotate()) == "CallIssue"
    assert (
        life.names(4, Issued(Grant("b", version=Version(1, "2026-01-01T00:00:00Z")), 3))
        == "Publish"
    )


def test_there_is_time_for_another_try_before_the_end() -> None:
    """However long the backoff would be: at half of what is left."""
    life = Life()
    life.at(0, Tick())
    life.at(0, issued(life, "one", 0, ttl=6.0))
    life.at(3.6, Tick())
    life.at(3.7, Failed(AWAY), 0.99)
    life.at(4.7, Tick())
    life.at(4.8, Failed(AWAY), 0.99)
    assert life.wake_at == pytest.approx(5.4)
