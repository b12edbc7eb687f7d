"""Which lines are meant."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.audit.logs import START, at
from vaultauthz.audit.files import MomentError, Selection, moment

LINE = {
    "time": at(10),
    "upstream": "db",
    "stage": "production",
    "caller": "shop",
    "credential_id": "c1",
    "request_id": "r1",
}


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Selection(), True),
        (Selection("db", "production", "shop", "c1", "r1"), True),
        (Selection(upstream="d"), False),
        (Selection(caller="Shop"), False),
        (Selection(since=START + timedelta(seconds=10)), True),
        (Selection(since=START + timedelta(seconds=11)), False),
        (Selection(until=START + timedelta(seconds=10)), False),
        (Selection(since=START, until=START + timedelta(seconds=11)), True),
    ],
)
def test_each_part_must_fit(wanted: Selection, takes: bool) -> None:
    """Names as they are written; the beginning counts, the end does not."""
    assert wanted.takes(LINE) is takes


def test_a_line_without_a_time() -> None:
    """Nobody can say that it is of that time."""
    for time in (None, "", "yesterday", 5):
        assert Selection().takes({"time": time})
        assert not Selection(since=START).takes({"time": time})


def test_times() -> None:
    """Ago, a day and a time; in UTC unless it says otherwise."""
    assert moment("90m", START) == START - timedelta(minutes=90)
    assert moment("2d", START) == START - timedelta(days=2)
    assert moment("1h30m", START) == START - timedelta(minutes=90)
    assert moment("2026-11-22", START) == datetime(2026, 11, 22, tzinfo=UTC)
    assert moment("2026-11-22T09:00:00+01:00", START) == START
    assert moment("2026-11-22 08:00", START) == START


@pytest.mark.parametrize("text", ["", "24", "h", "yesterday", "9999999d", "2026-13-01", "9" * 400])
def test_what_is_no_time(text: str) -> None:
    """It is refused, with how one is written."""
    with pytest.raises(MomentError, match="is no time: write 24h"):
        moment(text, START)


@given(st.text(max_size=20))
def test_any_text(text: str) -> None:
    """It is a time in a zone, or refused."""
    with contextlib.suppress(MomentError):
        assert moment(text, START).tzinfo
