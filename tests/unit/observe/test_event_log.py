"""What the log is told of events: each outage's start and end, logins, rotations, revocations, 401s."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core import events
from vaultauthz.core.events import Event
from vaultauthz.core.grant import OLDER
from vaultauthz.core.history import Tone
from vaultauthz.observe.outage import EventLog, LogLine, Story

PLACE = ("demo", "db")


def event(name: str, lease: str = "", **more: str) -> Event:
    """One of the upstream `db`'s, or with `upstream=""` of the login's."""
    more = {"upstream": "db", "credential_id": lease and f"c-{lease}", **more}
    return Event(name, "demo", lease_id=lease, **more)


class Told:
    """A story, and the lines that were told of it."""

    def __init__(self) -> None:
        self.story = Story()
        self.lines: list[LogLine | None] = []

    def hear(self, now: float, name: str, lease: str = "", **more: str) -> LogLine | None:
        line = self.story.line(event(name, lease, **more), now)
        self.lines.append(line)
        return line

    def loud(self) -> list[tuple[int, str]]:
        """Level and text of what is above the level debug."""
        found = [line for line in self.lines if line and line.level > logging.DEBUG]
        return [(line.level, line.text) for line in found]


@pytest.fixture
def told() -> Told:
    return Told()


def test_an_outage_that_outlasts_the_credential(told: Told) -> None:
    """One line when it ends, with why there is no other, and one when there is one, with how long it was."""
    told.hear(0.0, events.ISSUED, "a")
    for at in (3.0, 4.0, 5.0):
        assert told.hear(at, events.FAILED, reason="Vault gave no answer") is None
    told.hear(6.0, events.EXPIRED, "a", reason="its time is over")
    told.hear(7.0, events.FAILED, reason="Vault gave no answer")
    told.hear(18.25, events.ISSUED, "b")
    assert told.loud() == [
        (logging.INFO, "upstream db, stage demo: has its credential: lease a"),
        (
            logging.ERROR,
            (
                "upstream db, stage demo: its credential has ended (its time is over); requests are answered "
                "503 until there is another; Vault has given nothing for 3.0 s: Vault gave no answer"
            ),
        ),
        (
            logging.INFO,
            (
                "upstream db, stage demo: has its credential again after 12.2 s, 4 calls to Vault failed: "
                "lease b"
            ),
        ),
    ]
    last = told.lines[-1]
    assert last is not None
    assert (last.fields["seconds"], last.fields["failed_calls"]) == (12.25, 4)


def test_an_outage_that_the_credential_outlasts(told: Told) -> None:
    """Who makes the calls says that they fail; then one line says that it is over."""
    told.hear(0.0, events.ISSUED, "a")
    told.hear(3.0, events.FAILED, reason="Vault gave no answer")
    line = told.hear(4.5, events.RENEWED, "a")
    assert told.loud()[1:] == [
        (
            logging.INFO,
            "upstream db, stage demo: renewed after 1.5 s, 1 call to Vault failed; it was used all the time",
        )
    ]
    assert line is not None
    assert line.fields["seconds"] == 1.5
    told.hear(5.0, events.RENEWED, "a")
    assert len(told.loud()) == 2  # that it is renewed as always is told at the level debug


def test_what_an_operator_asks_for(told: Told) -> None:
    """Who, what and why, if that is said; it changes nothing of what is told besides."""
    told.hear(0.0, events.REVOKE_ASKED, caller="uid 0 (root)", reason="in a chat")
    told.hear(1.0, events.ROTATE_ASKED, caller="token from 127.0.0.1")
    assert told.loud() == [
        (logging.INFO, "upstream db, stage demo: uid 0 (root) asked for revoke: in a chat"),
        (logging.INFO, "upstream db, stage demo: token from 127.0.0.1 asked for rotate"),
    ]


def test_a_static_secret_that_is_read_again(told: Told) -> None:
    """It has no lease, and it may be the same that it was."""
    told.hear(0.0, events.ISSUED, credential_id="c-1")
    told.hear(3.0, events.FAILED, reason="Vault is sealed")
    told.hear(4.0, events.RECOVERED, credential_id="c-1")
    text = "upstream db, stage demo: read again after 1.0 s, 1 call to Vault failed"
    assert told.loud()[-1] == (logging.INFO, f"{text}; it was used all the time")
    told.hear(5.0, events.LOST, credential_id="c-1", reason="nothing is stored there")
    assert told.loud()[-1][0] == logging.ERROR


def test_an_answer_that_is_not_used(told: Told) -> None:
    """Who made the call has seen nothing wrong with it, so it is told here."""
    told.hear(0.0, events.ISSUED, credential_id="c-2")
    told.hear(1.0, events.FAILED, reason=OLDER.reason)
    told.hear(2.0, events.RECOVERED, credential_id="c-2")
    text = "upstream db, stage demo: Vault answered an older version; what is in use is used on"
    assert told.loud()[1] == (logging.WARNING, text)
    assert "read again after 1.0 s" in told.loud()[2][1]


def test_none_from_the_start(told: Told) -> None:
    """The first call that fails begins the outage; those after it are counted."""
    told.hear(1.0, events.FAILED, reason="there is no such role")
    told.hear(2.0, events.FAILED, reason="there is no such role")
    told.hear(3.0, events.ISSUED, "a")
    assert told.loud() == [
        (
            logging.ERROR,
            (
                "upstream db, stage demo: no credential: there is no such role; requests are answered 503 "
                "until there is one"
            ),
        ),
        (
            logging.INFO,
            "upstream db, stage demo: has its credential after 2.0 s, 2 calls to Vault failed: lease a",
        ),
    ]


def test_a_login(told: Told) -> None:
    """Its outages are told as those of a credential, by the token's accessor."""
    told.hear(0.0, events.FAILED, upstream="", reason="Vault gave no answer")
    told.hear(1.0, events.LOGIN, "acc-1", upstream="")
    told.hear(2.0, events.LOGIN, "acc-2", upstream="")
    told.hear(3.0, events.TOKEN_REVOKED, "acc-1", upstream="")
    told.hear(4.0, events.TOKEN_LOST, "acc-2", upstream="", reason="its login token is gone")
    told.hear(4.5, events.LOGIN, "acc-3", upstream="")
    label = "login of stage demo: "
    assert [(level, text.removeprefix(label)) for level, text in told.loud()] == [
        (logging.ERROR, "no login: Vault gave no answer"),
        (logging.INFO, "logged in after 1.0 s, 1 call to Vault failed: token of accessor acc-1"),
        (logging.INFO, "logged in anew, in place of acc-1: token of accessor acc-2"),
        (logging.INFO, "revoked token of accessor acc-1: replaced by token of accessor acc-2"),
        (logging.ERROR, "the login token has ended (its login token is gone)"),
        (logging.INFO, "logged in again after 0.5 s: token of accessor acc-3"),
    ]


def test_a_rotation_and_why_leases_are_revoked(told: Told) -> None:
    """Which lease takes which one's place; and of each that is revoked, why."""
    told.hear(0.0, events.ISSUED, "a")
    told.hear(1.0, events.ROTATED, "b")
    told.hear(31.0, events.REVOKED, "a")
    told.hear(40.0, events.LOST, "b", reason="revoked by an operator")
    told.hear(40.1, events.REVOKED, "b")
    told.hear(40.2, events.ISSUED, "c")
    told.hear(50.0, events.REVOKED, "c", reason="with its token")
    told.hear(50.0, events.REVOKED, "d")
    label = "upstream db, stage demo: "
    texts = [text.removeprefix(label) for _, text in told.loud()]
    assert texts[1:3] == ["rotated, in place of a: lease b", "revoked lease a: replaced by lease b"]
    assert texts[4] == "revoked lease b: revoked by an operator"
    assert texts[6:] == [
        "revoked lease c: with its token",
        "revoked lease d: it is not needed any more",
    ]


def test_an_old_lease_that_ends_is_no_outage(told: Told) -> None:
    """What was replaced, and ended before it could be revoked, is used by nobody."""
    told.hear(0.0, events.ISSUED, "a")
    told.hear(1.0, events.ROTATED, "b")
    told.hear(9.0, events.EXPIRED, "a", reason="its time is over")
    text = "lease a, which was not used any more, has ended: its time is over"
    assert told.loud()[-1] == (logging.INFO, f"upstream db, stage demo: {text}")
    told.hear(10.0, events.ROTATED, "c")
    assert "again" not in told.loud()[-1][1]


def test_a_401(told: Told) -> None:
    """A warning, with the lease that the service refuses."""
    told.hear(0.0, events.ISSUED, "a")
    line = told.hear(1.0, events.REJECTED, "a", reason="the upstream answered 401")
    assert line is not None
    assert line.level == logging.WARNING
    assert line.text.endswith("the upstream answered 401 to its credential, lease a")


def test_leases_of_callers_are_told_at_debug() -> None:
    """There may be many a second, and one caller's is no outage of the upstream's."""
    story = Story(own=[PLACE])
    names = (events.ISSUED, events.FAILED, events.EXPIRED, events.REVOKED)
    lines = [story.line(event(name, "a"), 0.0) for name in names]
    lines.append(Story().line(event(events.LOST, "a", caller="web"), 0.0))
    assert {line and line.level for line in lines} == {logging.DEBUG}
    assert lines[-1] is not None
    assert "caller web" in lines[-1].text
    assert lines[-1].fields["caller"] == "web"


def test_what_others_tell_is_no_line(told: Told) -> None:
    """A reload, a refused client, an Envoy's word: who sees them writes them."""
    for name in (events.RELOADED, events.CLIENT_REFUSED, events.SDS_DELIVERED, events.AUDIT_TORN):
        assert told.hear(0.0, name) is None


def test_an_upstream_that_a_reload_drops(told: Told) -> None:
    """Its outage is over with it; when it is back, what was then is not told as one."""
    told.hear(0.0, events.FAILED, reason="there is no such role")
    told.story.configured([("demo", "other")], [])
    told.hear(900.0, events.ISSUED, "a")
    assert told.loud()[-1] == (
        logging.INFO,
        "upstream db, stage demo: has its credential: lease a",
    )


def test_an_outage_goes_on_through_a_reload(told: Told) -> None:
    """A configuration that leaves the upstream where it was does not end it."""
    for upstream in ("db", ""):
        told.hear(0.0, events.FAILED, upstream=upstream, reason="Vault is sealed")
    told.story.configured([PLACE], [])
    told.hear(5.0, events.ISSUED, "a")
    told.hear(5.0, events.LOGIN, "acc", upstream="")
    assert all("after 5.0 s" in text for _, text in told.loud()[2:])


NAMES = (events.ISSUED, events.RENEWED, events.FAILED, events.EXPIRED, events.REVOKED)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from("ab")), max_size=30))
def test_starts_and_ends_take_turns(heard: list[tuple[str, str]]) -> None:
    """However events come: no second start within an outage, and no end without a start."""
    story, out = Story(), False
    for now, (name, lease) in enumerate(heard):
        line = story.line(event(name, lease, reason="why"), float(now))
        if line and line.level == logging.ERROR:
            assert not out
            out = True
        elif line and "has its credential " in line.text and " after " in line.text:
            assert out
            out = False


def test_the_listener(caplog: pytest.LogCaptureFixture) -> None:
    """It writes the line, with the event's fields for programs."""
    caplog.set_level(logging.INFO)
    times = iter([0.0, 2.0])
    listener = EventLog(lambda: next(times))
    listener.record_event(event(events.FAILED, reason="Vault is sealed"))
    listener.record_event(event(events.ISSUED, "a", vault_request_id="r-1"))
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    fields = caplog.records[1].fields  # type: ignore[attr-defined]
    assert {name: fields[name] for name in fields if fields[name]} == {
        "event": "lease.issued",
        "stage": "demo",
        "upstream": "db",
        "lease_id": "a",
        "credential_id": "c-a",
        "vault_request_id": "r-1",
        "seconds": 2.0,
        "failed_calls": 1,
    }


def test_what_the_log_was_told_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """In the words of the log, with how bad it is; and what it says at the level debug alone, as routine."""
    caplog.set_level(logging.DEBUG)
    times = iter(range(10))
    listener = EventLog(lambda: float(next(times)), own=[("demo", "own")])
    listener.record_event(event(events.ISSUED, "a"))
    listener.record_event(event(events.RENEWED, "a"))
    listener.record_event(event(events.EXPIRED, "a", reason="its time is over"))
    listener.record_event(event(events.ISSUED, "o", upstream="own", caller="alice"))
    (past, own, login), news = listener.shown(
        [("demo", "db", ""), ("demo", "own", "alice"), ("demo", "", "")]
    )
    assert past is not None
    assert (past.out_since, len(past.marks)) == (2.0, 3)
    assert own is not None
    assert login is None
    told = [(one.tone, one.routine, one.text) for one in reversed(news)]
    lines = [record.getMessage() for record in caplog.records]
    assert told[0] == (Tone.NONE, False, lines[0])
    assert told[1] == (Tone.NONE, True, "upstream db, stage demo: renewed")
    assert told[2] == (Tone.BAD, False, lines[2])
    assert told[3][:2] == (Tone.NONE, True)
    past.marks.clear()  # it is the looker's own
    assert listener.shown([("demo", "db", "")])[0][0] != past
    listener.configured([("demo", "geo")], [])
    assert listener.shown([("demo", "db", "")])[0] == [None]
