"""The margin before an end: no request sets out that would arrive with what is dead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.leases.test_plans import Clock, keeper_with, upstream
from vaultauthz.core.credential import Credential, Login, on_the_way
from vaultauthz.core.grant import Grant
from vaultauthz.core.injection import Mutation
from vaultauthz.core.lease_messages import Issued
from vaultauthz.core.pace import Pace


@given(st.floats(-10.0, 1e10))
def test_it_is_bounded(life: float) -> None:
    """A second at most, and less than what is left when a replacement is asked for at the latest."""
    margin = on_the_way(life)
    assert 0.0 <= margin <= 1.0
    assert margin <= max(0.0, life * (1 - Pace().renew_to))


def test_a_long_lease_and_a_short_one() -> None:
    """A whole second, and a share."""
    assert on_the_way(3600.0) == 1.0
    assert on_the_way(2.0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("more", "last"),
    [
        ({"ttl": 100.0, "lease_id": "l"}, 99.0),
        ({"ttl": 2.0, "lease_id": "l"}, 1.8),
        ({"ttl": 100.0}, 99.0),  # an engine's own word
        ({"ttl": 100.0, "ends_in": 50.0, "read_again": 5.0}, 49.0),  # a token in KV
        ({"ttl": 100.0, "read_again": 5.0}, 100.0),  # max_stale is a caution of ours
        ({"ttl": 100.0, "rotates_in": 90.0}, 100.0),  # … and so is a rotation's grace
    ],
)
def test_what_has_the_margin(more: dict[str, Any], last: float) -> None:
    """Every end that others enforce, and no other."""
    clock = Clock()
    keeper, (runner,) = keeper_with(upstream("u"), clock=clock)
    keeper.deliver(runner, Issued(Grant(Mutation(), **more), clock.now))
    credential = runner.slot.credential
    assert credential is not None
    assert credential.last_at == pytest.approx(clock.now + last)
    assert credential.usable(clock.now + last - 0.01)
    assert not credential.usable(clock.now + last + 0.01)


def test_the_logins_end_has_it_too() -> None:
    """Vault ends the leases with their token; a renewal of the token moves it on."""
    login = Login(50.0, on_the_way=1.0)
    credential = Credential(Mutation(), "id", "l", 99.0, login)
    assert credential.usable(48.9)
    assert not credential.usable(49.0)
    login.ends_at = 200.0
    assert credential.usable(98.9)
    assert credential.last_at == 99.0
