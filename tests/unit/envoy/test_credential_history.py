"""Which credential an Envoy can have put on a request, from what came and what it took."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vaultauthz.core import events
from vaultauthz.core.events import Event
from vaultauthz.envoy.access_logs import history as module
from vaultauthz.envoy.access_logs.history import SETTLE, SKEW, UNKNOWN, CredentialHistory

PLACE = ("production", "payments")
NODE = "edge/gw-1"
LONG = 60.0  # seconds, after which nothing of a change is in doubt


@dataclass
class Clock:
    """A wall clock that a test sets."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class House:
    """Versions, and what happens to the credentials of one upstream."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.versions = CredentialHistory(self.clock)

    def say(self, name: str, version: str, caller: str = "") -> None:
        """An event of this name."""
        event = Event(name, *PLACE, f"database/{version}", version, caller=caller)
        self.versions.record_event(event)

    def came(self, version: str) -> None:
        """Vault gave it, in place of another or not."""
        self.say(events.ROTATED, version)

    def took(self, version: str, node: str = NODE) -> None:
        """Envoy acknowledges it."""
        self.say(events.SDS_DELIVERED, version, node)

    def swap(self, version: str) -> None:
        """It comes and is taken at once, and then a long time goes by."""
        self.came(version)
        self.took(version)
        self.clock.now += LONG

    def at(
        self, when: float, until: float | None = None, node: str = NODE, *, sure: bool = True
    ) -> list[str]:
        """The credential ids that are possible for a request of this time."""
        until = when if until is None else until
        found = self.versions.between(node, *PLACE, when, until, sure=sure)
        return [one.credential_id for one in found]


@pytest.fixture
def house() -> House:
    """One that nothing has happened to."""
    return House()


def test_long_after_a_change_it_is_one(house: House) -> None:
    """Away from a change there is one credential, with its lease; at the change there are two."""
    house.swap("c_1")
    changed = house.clock.now
    house.swap("c_2")
    assert house.at(changed - LONG / 2) == ["c_1"]
    assert house.at(changed + LONG / 2) == ["c_2"]
    assert house.at(changed + SETTLE / 2) == house.at(changed - SKEW / 2) == ["c_2", "c_1"]
    # Envoy's clock may be ahead, so that this is still within the moment its workers need.
    assert house.at(changed + 0.9 * (SKEW + SETTLE)) == ["c_2", "c_1"]
    assert house.at(changed + 1.1 * (SKEW + SETTLE)) == ["c_2"]
    (found,) = house.versions.between(NODE, *PLACE, house.clock.now, house.clock.now)
    assert found.lease_id == "database/c_2"


def test_a_request_that_took_its_time_is_in_doubt(house: House) -> None:
    """What started before a change and was sent after it may carry either."""
    house.swap("c_1")
    changed = house.clock.now
    house.swap("c_2")
    assert house.at(changed - LONG / 2, changed + LONG / 2) == ["c_2", "c_1"]


def test_what_was_never_acknowledged_stays_in_doubt(house: House) -> None:
    """Envoy may not have it: then the old one goes on, until a later one is taken."""
    house.swap("c_1")
    house.came("c_2")
    house.clock.now += LONG
    assert house.at(house.clock.now) == ["c_2", "c_1"]
    house.swap("c_3")
    assert house.at(house.clock.now) == ["c_3"]


def test_what_was_refused_stays_in_doubt(house: House) -> None:
    """An Envoy that takes it in one slot and refuses it in another may use either."""
    house.swap("c_1")
    for names in (
        (events.SDS_DELIVERED, events.SDS_REFUSED),
        (events.SDS_REFUSED, events.SDS_DELIVERED),
    ):
        house.came("c_2")
        for name in names:
            house.say(name, "c_2", NODE)
        house.clock.now += LONG
        assert house.at(house.clock.now) == ["c_2", "c_1"]
        house.swap("c_1")


def test_before_the_first_it_is_unknown(house: House) -> None:
    """A process that has just started does not know what Envoy had from the one before."""
    assert house.at(house.clock.now) == [UNKNOWN.credential_id]
    house.swap("c_1")
    assert house.at(house.clock.now - LONG) == ["c_1", ""]
    assert house.at(house.clock.now - 2 * LONG) == [""]
    elsewhere = house.versions.between(NODE, "staging", "payments", 1e9, 1e9)
    assert elsewhere == (UNKNOWN,)


def test_each_envoy_has_its_own_time(house: House) -> None:
    """One that has not taken a version yet is in doubt, also when another has."""
    house.swap("c_1")
    house.took("c_1", "edge/gw-2")
    house.clock.now += LONG
    house.swap("c_2")
    assert house.at(house.clock.now) == ["c_2"]
    assert house.at(house.clock.now, node="edge/gw-2") == ["c_2", "c_1"]
    assert house.at(house.clock.now, node="edge/gw-3") == [""]


def test_a_node_that_may_be_wrong(house: House) -> None:
    """What any of the Envoys may have had, and what none is known to have had.

    Unless one of this name is known to have taken it: by then it is no wrong name.
    """
    assert house.at(house.clock.now, node="", sure=False) == [""]
    house.swap("c_1")
    house.took("c_1", "edge/gw-2")
    house.clock.now += LONG
    house.swap("c_2")
    for node in ("", "edge/of-a-template"):
        assert house.at(house.clock.now, node=node, sure=False) == ["c_2", "c_1", ""]
        assert house.at(house.clock.now, node=node) == [""]
    assert house.at(house.clock.now, sure=False) == ["c_2"]
    house.took("c_2", "edge/gw-2")
    house.clock.now += LONG
    assert house.at(house.clock.now, node="", sure=False) == ["c_2", ""]


def test_a_new_stream_changes_nothing(house: House) -> None:
    """An Envoy that reconnects is sent what it has: what it used before is not in doubt by it."""
    house.swap("c_1")
    house.swap("c_2")
    before = house.clock.now - LONG / 2
    house.took("c_2")
    assert house.at(before) == ["c_2"]


def test_a_version_may_come_back(house: House) -> None:
    """A static secret that is set back has its old id again."""
    house.swap("c_1")
    house.swap("c_2")
    house.swap("c_1")
    assert house.at(house.clock.now) == ["c_1"]
    assert house.at(house.clock.now - 1.5 * LONG) == ["c_2"]


def test_news_may_be_late(house: House) -> None:
    """An Envoy may have taken a credential before we hear that it came: it is one all the same."""
    house.took("c_1")
    house.came("c_1")
    house.clock.now += LONG
    assert house.at(house.clock.now) == ["c_1"]
    assert len(house.versions._versions[PLACE]) == 1


def test_a_callers_own_lease_is_not_for_envoys(house: House) -> None:
    """Leases under `per: caller` are never handed out ahead."""
    house.say(events.ISSUED, "c_1", "alice")
    house.say(events.EXPIRED, "c_1")
    assert not house.versions._versions


def test_memory_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest versions are forgotten: then it is unknown; beyond the limit nothing is noted."""
    for number in range(100):
        house.swap(f"c_{number}")
    assert len(house.versions._versions[PLACE]) == house.versions._notes == module._KEPT
    assert house.at(1000.0 + LONG / 2) == [""]
    monkeypatch.setattr(module, "_NOTES", module._KEPT)
    house.took("c_99", "edge/one-too-many")
    assert house.at(house.clock.now, node="edge/one-too-many") == [""]
    assert house.versions._notes == module._KEPT


# Seconds from a version's coming to the next one's, and to Envoy's acknowledgement (inf: it
# never comes), and the share of that time after which Envoy changed over.
changes = st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 3.0) | st.just(inf), st.floats(0.0, 1.0))


# Envoy's clock is ahead, and its workers took over late after the acknowledgement.
@example(plan=[(0.0, 1.5, 1.0)], skew=0.75, request=(2.0, 0.0, 0.0))
@example(plan=[(0.0, 0.0, 0.0), (20.0, 1.5, 1.0)], skew=0.75, request=(22.0, 0.0, 0.0))
@given(
    plan=st.lists(changes, min_size=1, max_size=6),
    skew=st.floats(-0.9 * SKEW, 0.9 * SKEW),
    request=st.tuples(st.floats(-5.0, 100.0), st.floats(0.0, 10.0), st.floats(0.0, 1.0)),
)
def test_one_that_is_named_is_right(
    plan: list[tuple[float, float, float]], skew: float, request: tuple[float, float, float]
) -> None:
    """Whenever Envoy changed over, what it used is among those named: so one that stands alone is it."""
    house = House()
    used: list[tuple[float, str]] = [(-inf, "")]  # from when, which; by our clock
    for number, (gap, ack, share) in enumerate(plan):
        house.clock.now += gap
        version = f"c_{number}"
        house.came(version)
        if ack < inf:
            # Its workers may hear of it a little after the acknowledgement, not before it came.
            used.append((house.clock.now + share * (ack + 0.9 * SETTLE), version))
            house.clock.now += ack
            house.took(version)
    begin, length, share = 1000.0 + request[0], request[1], request[2]
    put_on = begin + share * length
    true = [which for since, which in used if since <= put_on][-1]
    found = house.at(begin + skew, begin + length + skew)
    assert true in found or (found == [""] and len(used) == 1)


steps = st.tuples(
    st.sampled_from(("came", "took", "refused", "asked")),
    st.sampled_from(("edge/gw-1", "edge/gw-2", "")),
    st.sampled_from((0.0, 0.5, 3.0)),
)


@given(plan=st.lists(steps, max_size=25))
def test_what_is_remembered_is_no_other_answer(plan: list[tuple[str, str, float]]) -> None:
    """Whoever has asked before, and when: the answer is the one to a first question."""
    house, number = House(), 0
    for what, node, gap in plan:
        house.clock.now += gap
        if what == "came":
            number += 1
            house.came(f"c_{number}")
        elif what == "asked":
            for sure, back in ((True, 0.0), (False, 0.0), (False, 2.0), (True, 2.0)):
                when = house.clock.now - back
                asked = [house.at(when, when + 0.1, node, sure=sure) for _ in range(2)]
                house.versions._settled.clear()
                assert asked == 2 * [house.at(when, when + 0.1, node, sure=sure)]
        elif number and node:
            name = events.SDS_DELIVERED if what == "took" else events.SDS_REFUSED
            house.say(name, f"c_{number}", node)
