"""What fails behind one engine is that upstream's trouble: the others are renewed in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.contract import faults
from tests.contract.fake_http import Heard, Reply, Wire
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import Fault, wait_until
from tests.contract.house import House, Traffic, database
from vaultauthz.core import events

HEALTHY = tuple(f"well{number}" for number in range(6))
THROTTLED = tuple(f"slow{number}" for number in range(12))
SAYS = "Error creating IAM user: Throttling: Rate exceeded"


def late(seconds: float, fault: Fault) -> Fault:
    """As an engine that has tried for a while itself."""

    def later(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        wire.closing.wait(seconds)
        return fault(heard, answer, wire)

    return later


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """With leases of three seconds for all of them."""
    with FakeVault() as fake:
        fake.set_approle()
        for name in (*HEALTHY, *THROTTLED):
            fake.set_creds(f"database/creds/{name}", ttl=3.0)
        yield fake


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.status(502, SAYS), id="502"),
        pytest.param(late(1.2, faults.status(502, SAYS)), id="502, late"),
        pytest.param(late(1.2, faults.status(500, "internal error")), id="500, late"),
        pytest.param(faults.status(504, "context deadline exceeded"), id="504"),
        pytest.param(faults.status(503, "service unavailable: try again"), id="503"),
        pytest.param(faults.status(400, SAYS), id="400"),
        pytest.param(faults.status(429, "request path: rate limit quota exceeded"), id="429"),
        pytest.param(faults.hang(), id="no answer"),
    ],
)
def test_twelve_that_are_throttled_take_nothing_from_six_that_are_well(
    vault: FakeVault, fault: Fault
) -> None:
    """Each of the six is renewed, again and again, while the twelve are asked for all the time."""
    upstreams = [database(name) for name in HEALTHY]
    upstreams += [database(name, optional=True) for name in THROTTLED]
    vault.fault(fault, "database/creds/slow")
    with House(vault, upstreams, timeout=1.5) as house:
        assert wait_until(lambda: house.keeper.ready)
        with Traffic(house, vault, *HEALTHY) as traffic:
            assert wait_until(
                lambda: all(len(house.named(events.RENEWED, name)) >= 3 for name in HEALTHY), 60
            )
        assert (traffic.none, traffic.dead) == (0, [])
        assert {name: len(seen) for name, seen in traffic.seen.items()} == dict.fromkeys(HEALTHY, 1)
        assert all(house.sent(name) is None for name in THROTTLED)
        vault.heal()
        assert wait_until(lambda: all(house.sent(name) for name in THROTTLED), 60)


def test_renewals_that_are_throttled_cost_the_others_nothing(vault: FakeVault) -> None:
    """Twelve leases that cannot be renewed, each try of which takes its time, beside six that can."""
    upstreams = [database(name) for name in HEALTHY]
    upstreams += [database(name, optional=True) for name in THROTTLED]
    for name in (*HEALTHY, *THROTTLED):
        vault.set_creds(f"database/creds/{name}", ttl=8.0)
    with House(vault, upstreams) as house:
        assert wait_until(lambda: all(house.sent(name) for name in (*HEALTHY, *THROTTLED)))

        def slow(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
            if "creds/slow" not in heard.key:
                return answer()
            return late(0.2, faults.status(502, SAYS))(heard, answer, wire)

        vault.fault(slow)
        before = {name: len(house.named(events.RENEWED, name)) for name in HEALTHY}
        with Traffic(house, vault, *HEALTHY) as traffic:
            assert wait_until(
                lambda: all(
                    len(house.named(events.RENEWED, name)) >= before[name] + 2 for name in HEALTHY
                ),
                60,
            )
        assert (traffic.none, traffic.dead) == (0, [])
