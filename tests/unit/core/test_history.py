"""What is kept of the past: bounded whatever happens, and since when something fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core import events
from vaultauthz.core.events import Event
from vaultauthz.core.history import CALLERS, MARKS, NEWS, ROUTINE, History, Past, Tone

NAMES = sorted(value for name, value in vars(events).items() if name.isupper())


def event(name: str, lease: str = "", **more: str) -> Event:
    """One of the upstream `db`'s, or with `upstream=""` of the login's."""
    more = {"upstream": "db", "credential_id": lease and f"c-{lease}", **more}
    return Event(name, "demo", lease_id=lease, **more)


@pytest.fixture
def history() -> History:
    return History()


def past(history: History, upstream: str = "db", caller: str = "") -> Past:
    """Of a lease that has one."""
    found = history.past("demo", upstream, caller)
    assert found is not None
    return found


def test_a_life(history: History) -> None:
    """Each thing that happened to it, with its time, the oldest first."""
    told = (
        (0.0, events.ISSUED),
        (40.0, events.RENEWED),
        (80.0, events.RENEWED),
        (90.0, events.REJECTED),
    )
    for at, name in told:
        history.take(event(name, "a"), at)
    history.take(event(events.ROTATED, "b"), 91.0)
    assert [(mark.at, mark.name) for mark in past(history).marks] == [*told, (91.0, events.ROTATED)]
    assert past(history).failing_since is past(history).out_since is None


def test_since_when_it_fails_and_since_when_there_is_none(history: History) -> None:
    """From the first call that did not work; from the end of what was in use; until it is well again."""
    history.take(event(events.ISSUED, "a"), 0.0)
    for at in (3.0, 4.0, 5.0):
        history.take(event(events.FAILED, reason="Vault gave no answer"), at)
    assert (past(history).failing_since, past(history).out_since) == (3.0, None)
    history.take(event(events.EXPIRED, "a", reason="its time is over"), 6.0)
    history.take(event(events.FAILED, reason="Vault is sealed"), 7.0)
    assert (past(history).failing_since, past(history).out_since) == (3.0, 6.0)
    history.take(event(events.ISSUED, "b"), 9.0)
    assert past(history).failing_since is past(history).out_since is None


def test_one_that_never_was_is_out_since_the_first_failure(history: History) -> None:
    """There should have been one from the start."""
    history.take(event(events.FAILED, reason="permission denied by Vault"), 2.0)
    history.take(event(events.FAILED, reason="permission denied by Vault"), 3.0)
    assert (past(history).failing_since, past(history).out_since) == (2.0, 2.0)


def test_failures_in_a_row_are_one_mark(history: History) -> None:
    """With when they began, how many they were and why the last failed: they push nothing out."""
    history.take(event(events.ISSUED, "a"), 0.0)
    for at in range(1, 101):
        history.take(event(events.FAILED, reason=f"why {at}"), float(at))
    first, failed = past(history).marks
    assert first.name == events.ISSUED
    assert (failed.at, failed.times, failed.reason) == (1.0, 100, "why 100")


def test_the_latest_marks_stay(history: History) -> None:
    """A lease that is renewed for years has as many as any other."""
    history.take(event(events.ISSUED, "a"), 0.0)
    for at in range(1, 101):
        history.take(event(events.RENEWED, "a"), float(at))
    assert [mark.at for mark in past(history).marks] == [
        float(at) for at in range(101 - MARKS, 101)
    ]


def test_the_end_of_what_was_not_used_any_more_is_no_loss(history: History) -> None:
    """A replaced lease that ends by itself is not the one in use."""
    history.take(event(events.ISSUED, "a"), 0.0)
    history.take(event(events.ROTATED, "b"), 1.0)
    history.take(event(events.EXPIRED, "a"), 2.0)
    assert past(history).out_since is None
    assert [mark.name for mark in past(history).marks] == [events.ISSUED, events.ROTATED]


def test_a_login_has_a_past_too(history: History) -> None:
    """Under no upstream; its lease id is the token's accessor."""
    history.take(event(events.LOGIN, "acc", upstream="", credential_id=""), 0.0)
    history.take(event(events.TOKEN_LOST, "acc", upstream="", credential_id=""), 5.0)
    assert past(history, "").out_since == 5.0


def test_callers_are_told_apart_and_the_oldest_forgotten(history: History) -> None:
    """Each has a past of its own; of so many that nobody can look at them the latest stay."""
    for number in range(CALLERS + 10):
        history.take(event(events.ISSUED, "a", caller=f"c{number}"), float(number), own=True)
    assert history.past("demo", "db", "c9") is None
    assert past(history, caller="c10").marks[0].at == 10.0
    assert history.past("demo", "db") is None


def test_a_requests_own_lease_has_no_past(history: History) -> None:
    """There may be hundreds a second, and all have the same names."""
    history.take(event(events.ISSUED, "a"), 0.0, own=True)
    assert history.past("demo", "db") is None


def test_what_a_reload_drops_is_forgotten(history: History) -> None:
    """Else a server that is reloaded for a year remembers all that ever was."""
    for upstream in ("db", "geo", ""):
        history.take(event(events.ISSUED, "a", upstream=upstream), 0.0)
    history.take(event(events.ISSUED, "a", caller="alice"), 0.0)
    history.configured([("demo", "geo")])
    assert [history.past("demo", name) is None for name in ("db", "geo", "")] == [
        True,
        False,
        False,
    ]
    assert history.past("demo", "db", "alice") is None
    history.configured([("other", "geo")])
    assert history.past("demo", "geo") is history.past("demo", "") is None


def test_news_are_sentences_with_a_tone(history: History) -> None:
    """As the log says it, or else in words of ours."""
    history.take(event(events.ROTATED, "b"), 1.0, "upstream db, stage demo: rotated", Tone.NONE)
    history.take(event(events.NOT_REVOKED, "a", reason="permission denied by Vault"), 2.0)
    history.take(Event(events.RELOADED, "", reason="1 upstream added"), 3.0)
    last, middle, first = history.news()
    assert (first.number, first.at, first.text) == (1, 1.0, "upstream db, stage demo: rotated")
    assert middle.text == (
        "upstream db, stage demo: a lease could not be revoked, which is tried again: permission denied by Vault"
    )
    assert last.text == "the configuration was read again: 1 upstream added"
    assert [news.tone for news in (first, middle, last)] == [Tone.NONE, Tone.WARN, Tone.NONE]


def test_routine_does_not_push_an_outage_out(history: History) -> None:
    """Renewals, deliveries and leases of single callers have room of their own."""
    history.take(event(events.EXPIRED, "a"), 0.0, "its credential has ended", Tone.BAD)
    for number in range(5 * NEWS):
        name = (events.RENEWED, events.SDS_DELIVERED, events.ISSUED)[number % 3]
        more = {"caller": f"c{number}"} if name == events.ISSUED else {}
        history.take(event(name, "b", **more), float(number))
    news = history.news()
    assert (len(news), news[-1].tone) == (ROUTINE + 1, Tone.BAD)
    assert all(one.routine for one in news[:-1])


def test_what_an_operator_asks_for_is_news(history: History) -> None:
    """Also of an upstream whose callers have leases of their own."""
    history.take(event(events.REVOKE_ASKED, caller="ops"), 1.0, "ops asked for revoke", own=True)
    assert [one.routine for one in history.news()] == [False]


def test_a_renewal_that_ends_an_outage_is_news(history: History) -> None:
    """The log says so at a level that is seen; so it is no routine."""
    history.take(event(events.RENEWED, "a"), 1.0, "renewed after 5.0 s", Tone.NONE)
    history.take(event(events.SDS_REFUSED, "a", caller="envoy-1"), 2.0)
    assert [(one.routine, one.tone) for one in history.news()] == [
        (False, Tone.WARN),
        (False, Tone.NONE),
    ]


def test_a_sentence_is_cut() -> None:
    """A client's name in it may be long."""
    history = History()
    history.take(Event(events.CLIENT_REFUSED, "", caller="x" * 10_000), 0.0)
    (news,) = history.news()
    assert len(news.text) == 400
    assert news.text.endswith("…")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES), st.sampled_from("abc"), st.sampled_from(["", "db", "geo"]),
            st.sampled_from(["", "alice", "bob"]), st.booleans(), st.floats(0, 10),
        ),
        max_size=200,
    )
)  # fmt: skip
def test_whatever_comes_it_stays_in_bounds(
    told: list[tuple[str, str, str, str, bool, float]],
) -> None:
    """Marks, news and their order; what fails has failed from then on, and not since later."""
    history, now = History(), 0.0
    for name, lease, upstream, caller, own, wait in told:
        now += wait
        history.take(event(name, lease, upstream=upstream, caller=caller), now, own=own)
        for place in (("demo", upstream, caller), ("demo", upstream, "")):
            found = history.past(*place)
            if found:
                times = [mark.at for mark in found.marks]
                assert len(times) <= MARKS
                assert times == sorted(times)
                assert all(at is None or at <= now for at in (found.failing_since, found.out_since))
    numbers = [news.number for news in history.news()]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == len(set(numbers)) <= NEWS + ROUTINE
