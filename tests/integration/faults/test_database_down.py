"""Vault is there, and the database behind its lease is not."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.faults.bed import Times, most_issues
from tests.integration.faults.conftest import MakeBed
from tests.integration.faults.services import CROSSED
from tests.integration.faults.vault_proxy import Kind
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

OUTAGE = 6.0


def test_postgresql_down_during_issue(make_bed: MakeBed) -> None:
    """Without PostgreSQL no user can be made; the last is used to its lease's end, then 503; dead answers: none."""
    bed = make_bed(Times(lease=4, lease_max=4))
    with bed.traffic() as traffic:
        traffic.wait_for_200()
        began, minted = time.monotonic(), bed.ledger.minted
        bed.postgres.stop()
        try:
            traffic.wait_for_503()
            time.sleep(max(0.0, OUTAGE - (time.monotonic() - began)))
        finally:
            bed.postgres.start()
        ended = time.monotonic()
        traffic.wait_for_200()
    bed.assert_none_dead()
    bed.assert_paced()
    # 502 is the service's own answer when it finds no database.
    assert set(traffic.statuses()) - {CROSSED} == {200, 502, 503}
    assert bed.issues(began, ended) <= most_issues(ended - began)
    assert bed.ledger.minted <= minted + 3
    bed.assert_told()


def test_postgresql_down_during_renew(make_bed: MakeBed) -> None:
    """A renewal that fails for want of PostgreSQL is tried again, in time for the lease; dead answers: none."""
    bed = make_bed(Times(lease=16))

    def renewal_failed() -> bool:
        return any(not call.good for call in bed.proxy.calls({Kind.RENEW}))

    def over() -> list[dict[str, Any]]:
        return [line for line in bed.told("info", upstream="reports") if "failed_calls" in line]

    with bed.traffic() as traffic:
        traffic.wait_for_200()
        bed.postgres.stop()
        try:
            assert wait_for(renewal_failed, PATIENCE)
        finally:
            bed.postgres.start()
        back = time.monotonic()
        traffic.wait_for_200()
        time.sleep(bed.times.lease)
    bed.assert_none_dead()
    bed.assert_paced()
    assert set(traffic.statuses()) == {200, 502}
    assert set(traffic.statuses(since=back)) == {200}
    assert bed.ledger.minted <= 2
    assert bed.told("warning", upstream="reports")
    # Renewed, or another in its place: one line says that it is over, and how many calls failed.
    assert wait_for(lambda: bool(over()), PATIENCE), "the log tells of no end"
    assert [line["event"] in {"lease.renewed", "lease.rotated"} for line in over()] == [True], (
        over()
    )
    bed.assert_quiet()
