"""Leases and tokens that come to the end that Vault has set them."""

from __future__ import annotations

import time

import pytest

from tests.integration.faults.bed import Bed, Times
from tests.integration.faults.conftest import MakeBed
from tests.integration.faults.vault_proxy import Kind

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LONG = 18.0  # seconds of traffic


def run(bed: Bed) -> float:
    """Traffic, all of it answered 200 by a service that took the credential; for how long there were leases."""
    (first,) = bed.proxy.calls({Kind.LOGIN})
    with bed.traffic() as traffic:
        time.sleep(LONG)
    lasted = time.monotonic() - first.at
    bed.assert_none_dead()
    bed.assert_paced()
    assert set(traffic.statuses()) == {200}
    assert not bed.ledger.cut
    bed.assert_quiet()
    # One line for each rotation, and one for each login after the first.
    bed.wait_until_told(
        lambda: bed.ledger.minted - 1, "info", event="lease.rotated", upstream="reports"
    )
    bed.wait_until_told(lambda: len(bed.proxy.calls({Kind.LOGIN})), "info", event="login")
    return lasted


def test_max_ttl_reached(make_bed: MakeBed) -> None:
    """A lease that nears its max_ttl is replaced before that; dead answers: none."""
    bed = make_bed(Times(lease=6, lease_max=12))
    lasted = run(bed)
    # None lives longer than 12 s, and none is given up before two thirds of its first six.
    assert LONG / 12 <= bed.ledger.minted <= 1 + lasted / 4
    assert len(bed.proxy.calls({Kind.LOGIN})) == 1


def test_token_max_ttl_reached(make_bed: MakeBed) -> None:
    """Before a token's max TTL there is another, and the leases have moved to it; dead answers: none."""
    bed = make_bed(Times(token=6, token_max=12, lease=40))
    lasted = run(bed)
    logins = len(bed.proxy.calls({Kind.LOGIN}))
    assert LONG / 12 <= logins <= 1 + lasted / 4
    assert bed.ledger.minted == logins


def test_token_ttl_shorter_than_the_lease(make_bed: MakeBed) -> None:
    """A token of 6 s that is renewed carries a lease of 40 s through; dead answers: none."""
    bed = make_bed(Times(token=6, lease=40))
    run(bed)
    assert bed.ledger.minted == 1
    assert len(bed.proxy.calls({Kind.TOKEN})) >= LONG / 6


def test_token_that_cannot_be_renewed_is_shorter_than_the_lease(make_bed: MakeBed) -> None:
    """A token of 6 s at most is replaced, with its lease of 40 s, before it ends; dead answers: none."""
    bed = make_bed(Times(token=6, token_max=6, lease=40))
    lasted = run(bed)
    assert LONG / 6 <= bed.ledger.minted <= 1 + lasted / 2
