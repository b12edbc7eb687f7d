"""A stream's inbox, between the thread that reads and the one that answers."""

from __future__ import annotations

import threading

import pytest

from tests.patience import PATIENCE
from vaultauthz.envoy.rpc import ROOM, Inbox, StreamEndedError


def test_messages_come_in_order_and_then_the_end() -> None:
    """What came before the end is still read after it; what comes later is not taken."""
    inbox = Inbox()
    assert [inbox.put(message) for message in (b"a", b"b")] == [True, True]
    inbox.end()
    assert inbox.put(b"c") is False
    assert list(inbox) == [b"a", b"b"]
    with pytest.raises(StreamEndedError):
        inbox.take()


def test_a_bell_wakes_once() -> None:
    """Also when it was rung before anybody listened; a message is not lost by it."""
    inbox = Inbox()
    inbox.ring()
    inbox.ring()
    assert inbox.take(60.0) is None
    inbox.put(b"a")
    inbox.ring()
    assert inbox.take(60.0) == b"a"
    assert inbox.take(0.0) is None


def test_who_iterates_sleeps_through_bells() -> None:
    """It is for messages."""
    inbox = Inbox()
    inbox.ring()
    inbox.put(b"a")
    inbox.end()
    assert list(inbox) == [b"a"]


def test_waiting_is_ended_from_elsewhere() -> None:
    """By a message, a bell or the end."""
    for act, wanted in (
        (lambda inbox: inbox.put(b"a"), [b"a"]),
        (Inbox.ring, [None]),
        (Inbox.end, []),
    ):
        inbox = Inbox()
        taken: list[bytes | None] = []
        thread = threading.Thread(target=_take, args=(inbox, taken))
        thread.start()
        act(inbox)
        thread.join(PATIENCE)
        assert taken == wanted


def _take(inbox: Inbox, taken: list[bytes | None]) -> None:
    try:
        taken.append(inbox.take())
    except StreamEndedError:
        return


def test_who_sends_too_much_waits() -> None:
    """Until there is room, or the stream has ended."""
    for act, wanted in ((Inbox.take, True), (Inbox.end, False)):
        inbox = Inbox()
        inbox.put(b"x" * (ROOM + 1))
        put: list[bool] = []
        thread = threading.Thread(target=lambda box=inbox, out=put: out.append(box.put(b"y")))
        thread.start()
        thread.join(0.05)
        assert put == []
        act(inbox)
        thread.join(PATIENCE)
        assert put == [wanted]
