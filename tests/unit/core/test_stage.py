"""A whole stage over minutes and hours: tokens and leases together, Vault well and ill."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.stage_world import Course, StageWorld
from vaultauthz.core import events
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease_messages import Call, CallRenew, Rotate
from vaultauthz.core.pace import Pace
from vaultauthz.vault import errors
from vaultauthz.vault.errors import TOO_SLOW, of_status

HEALTHY = tuple(f"well{number}" for number in range(6))
THROTTLED = tuple(f"slow{number}" for number in range(12))
SAYS = ["Error creating IAM user: Throttling: Rate exceeded"]


def failure(status: int, text: str) -> Failure:
    """As a fetch is told it."""
    return of_status(errors.Call.READ, status, [text]).failure


@pytest.mark.parametrize(
    ("late", "failed"),
    [
        pytest.param(0.01, failure(502, SAYS[0]), id="502"),
        pytest.param(1.2, failure(502, SAYS[0]), id="502, late"),
        pytest.param(1.2, failure(500, "internal error"), id="500, late"),
        pytest.param(0.01, failure(504, "context deadline exceeded"), id="504"),
        pytest.param(0.01, failure(503, "service unavailable: try again"), id="503"),
        pytest.param(0.01, failure(400, SAYS[0]), id="400"),
        pytest.param(0.01, failure(429, "request path: rate limit quota exceeded"), id="429"),
        pytest.param(1.5, TOO_SLOW, id="no answer"),
    ],
)
def test_twelve_that_are_throttled_take_nothing_from_six_that_are_well(
    late: float, failed: Failure
) -> None:
    """Each of the six is renewed, again and again, while the twelve are asked for all the time."""
    ill = True

    def course(name: str, call: Call) -> tuple[float, Failure | None]:
        return (late, failed) if ill and name in THROTTLED else (0.01, None)

    world = StageWorld(*HEALTHY, *THROTTLED, course=course, ttl=3.0)
    world.run(60.0)
    assert world.gaps == []
    assert Counter(world.issued) == dict.fromkeys(HEALTHY, 1)
    assert min(Counter(world.renewed)[name] for name in HEALTHY) >= 60 / (3 * 0.75) - 2
    ill = False
    world.run(180.0)
    assert set(world.serving()) == {*HEALTHY, *THROTTLED}


def test_renewals_that_are_throttled_cost_the_others_nothing() -> None:
    """Twelve leases that cannot be renewed, each try of which takes its time, beside six that can."""

    def course(name: str, call: Call) -> tuple[float, Failure | None]:
        fails = isinstance(call, CallRenew) and name in THROTTLED
        return (0.2, failure(502, SAYS[0])) if fails else (0.01, None)

    world = StageWorld(*HEALTHY, *THROTTLED, course=course, ttl=8.0)
    world.run(60.0)
    assert not {name for name, _ in world.gaps} & set(HEALTHY)
    assert all(Counter(world.issued)[name] == 1 for name in HEALTHY)


def test_leases_move_from_token_to_token_and_none_is_without() -> None:
    """Near its max TTL the login is made anew; the old token is revoked when nothing hangs on it."""
    world = StageWorld("a", "b", token_ttl=60.0, token_max=90.0)
    world.run(1000.0)
    assert world.gaps == []
    assert events.TOKEN_LOST not in world.names()
    logins = world.names().count(events.LOGIN)
    assert 1000 / 90 <= logins <= 1000 / 60
    assert world.names().count(events.TOKEN_REVOKED) in (logins - 1, logins - 2)
    assert world.names().count(events.TOKEN_RENEWED) >= logins - 1
    # Each lease is fetched once by each token, and revoked with the old one.
    assert set(Counter(world.issued).values()) <= {logins - 1, logins}


def test_a_token_that_an_operator_revoked_is_noticed_and_replaced() -> None:
    """One login, each lease fetched once, and again all are served."""
    names = [f"u{number}" for number in range(20)]
    world = StageWorld(*names, ttl=20.0)
    world.run(10.0)
    world.kill_token()
    world.run(40.0)
    assert Counter(world.names())[events.LOGIN] == 2
    assert Counter(world.issued) == dict.fromkeys(names, 2)
    assert world.serving() == names


def test_an_outage_mints_nothing_where_leases_outlive_it() -> None:
    """Renewals wait for Vault; it is asked less the longer it is away."""
    calls: list[float] = []

    def course(name: str, call: Call) -> tuple[float, Failure | None]:
        if not 30.0 <= world.now < 50.0:
            return (0.01, None)
        calls.append(world.now)
        return (0.01, Failure(Verdict.RETRY, "away", away=True))

    names = [f"u{number}" for number in range(20)]
    world = StageWorld(*names, course=course, ttl=60.0, token_ttl=60.0)
    world.run(120.0)
    assert world.gaps == []
    assert Counter(world.issued) == dict.fromkeys(names, 1)
    assert len(calls) <= 20


# --- whatever happens ---

courses = st.lists(
    st.tuples(
        st.sampled_from([0.01, 0.3, 1.2, 5.0]),
        st.sampled_from(
            [
                None,
                None,
                None,
                Failure(Verdict.RETRY, "busy"),
                Failure(Verdict.RETRY, "away", away=True),
                Failure(Verdict.REFUSED, "no"),
            ]
        ),
    ),
    min_size=1,
    max_size=40,
)


def planned(found: list[tuple[float, Failure | None]]) -> Course:
    """One call after the other goes like this, and all that follow are well."""
    left = iter(found)
    return lambda name, call: next(left, (0.01, None))


@settings(max_examples=30, deadline=None)
@given(
    found=courses,
    token_max=st.sampled_from([inf, 30.0, 61.0]),
    ttl=st.sampled_from([5.0, 20.0, 300.0]),
    wishes=st.lists(st.floats(0.0, 60.0), max_size=4),
    killed=st.none() | st.floats(0.0, 60.0),
    owned=st.booleans(),
    leave=st.booleans(),
    seed=st.integers(0, 9),
)
def test_nothing_is_served_dead_and_nothing_is_left(  # noqa: PLR0917 - what there is to happen
    found: list[tuple[float, Failure | None]],
    token_max: float,
    ttl: float,
    wishes: list[float],
    killed: float | None,
    owned: bool,
    leave: bool,
    seed: int,
) -> None:
    """Whatever Vault answers: it recovers, and at the end what was made is ended or said to be left."""
    world = StageWorld(
        "a",
        "b",
        "c",
        course=planned(found),
        ttl=ttl,
        token_max=token_max,
        owned=owned,
        seed=seed,
        pace=Pace(drain=2.0, backoff_cap=4.0),
    )
    for at in sorted([*wishes, *([killed] if killed is not None else [])]):
        world.run(at)
        if at == killed:
            world.kill_token()
        else:
            world.tell(Rotate(), world.draw())
    world.run(200.0)
    assert world.serving() == ["a", "b", "c"]
    ending = world.end("b" if leave else "")
    assert ending.left == leave
    world.queue.stopping = True
    world.run(300.0)
    living = world.living()
    if leave:
        assert {name.split("-")[0] for name in living if "-" in name} <= {"b"}
    elif owned:
        assert living == []
    else:
        assert not [name for name in living if "-" in name]
