"""Leases and tokens that come to the end that Vault has set them."""

from __future__ import annotations

import time

import pytest

from tests.integration.faults.bed import Bed, Times
from tests.integration.faults.conftest import MakeBed
from tests.integration.faults.traffic import Traffic
from tests.integration.faults.vault_proxy import Kind

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

LONG = 12.0  # seconds of traffic


def run(bed: Bed, seconds: float = LONG) -> Traffic:
    """Traffic for so long, all of it answered 200 by a service that took the credential."""
    with bed.traffic() as traffic:
        time.sleep(seconds)
    bed.assert_none_dead()
    bed.assert_paced()
    assert set(traffic.statuses()) == {200}
    assert not bed.ledger.cut
    return traffic


def test_max_ttl_reached(make_bed: MakeBed) -> None:
    """A lease that nears its max_ttl is replaced before that; dead answers: none."""
    bed = make_bed(Times(lease=4, lease_max=8))
    run(bed)
    # None lives longer than 8 s, and none is given up before half of that.
    assert LONG / 8 <= bed.ledger.minted <= 1 + LONG / 4
    assert len(bed.proxy.calls({Kind.LOGIN})) == 1


def test_token_max_ttl_reached(make_bed: MakeBed) -> None:
    """Before a token's max TTL there is another, and the leases have moved to it; dead answers: none."""
    bed = make_bed(Times(token=4, token_max=8, lease=30))
    run(bed)
    logins = len(bed.proxy.calls({Kind.LOGIN}))
    assert LONG / 8 <= logins <= 1 + LONG / 4
    assert bed.ledger.minted == logins


def test_token_ttl_shorter_than_the_lease(make_bed: MakeBed) -> None:
    """A token of 3 s that is renewed carries a lease of 30 s through; dead answers: none."""
    bed = make_bed(Times(token=3, lease=30))
    run(bed)
    assert bed.ledger.minted == 1
    assert len(bed.proxy.calls({Kind.TOKEN})) >= LONG / 3


def test_token_that_cannot_be_renewed_is_shorter_than_the_lease(make_bed: MakeBed) -> None:
    """A token of 4 s at most is replaced, with its lease of 30 s, before it ends; dead answers: none."""
    bed = make_bed(Times(token=4, token_max=4, lease=30))
    run(bed)
    assert LONG / 4 <= bed.ledger.minted <= 1 + LONG / 1.5
