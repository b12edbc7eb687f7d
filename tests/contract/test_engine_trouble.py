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
    """With leases of eight seconds: those that are well have two in which to be renewed."""
    with FakeVault() as fake:
        fake.set_approle()
        for name in (*HEALTHY, *THROTTLED):
            fake.set_creds(f"database/creds/{name}", ttl=8.0)
        yield fake


# Every kind of failure, and of renewals: tests/unit/core/test_stage.py.
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(late(1.2, faults.status(502, SAYS)), id="502, late"),
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
                lambda: all(len(house.named(events.RENEWED, name)) >= 2 for name in HEALTHY), 60
            )
        assert (traffic.none, traffic.dead) == (0, [])
        assert {name: len(seen) for name, seen in traffic.seen.items()} == dict.fromkeys(HEALTHY, 1)
        assert all(house.sent(name) is None for name in THROTTLED)
        vault.heal()
        assert wait_until(lambda: all(house.sent(name) for name in THROTTLED), 60)
