"""Our own process is killed, stopped, suspended."""

from __future__ import annotations

import time

import pytest

from tests.integration.faults.bed import BACK, Bed, Times
from tests.integration.faults.conftest import MakeBed
from tests.integration.faults.vault_proxy import UNAVAILABLE, answers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

STOP = 5.0  # seconds that an orderly stop may take, revocation included


def test_killed_without_warning(make_bed: MakeBed) -> None:
    """Its database users end with the token that nobody renews, and Envoy answers 503 meanwhile; dead answers: none."""
    bed = make_bed(Times(token=4, lease=60))
    with bed.traffic() as traffic:
        traffic.wait_for_200(5)
        assert len(bed.postgres.users()) == 1
        bed.serve.kill()
        killed = time.monotonic()
        bed.wait_for_no_users(bed.times.token + 3)
        unserved = traffic.statuses(since=killed + 0.5)
        bed.start_serve()
        traffic.wait_for_200(BACK)
    bed.assert_none_dead()
    assert set(unserved) == {503}
    assert set(traffic.statuses()) == {200, 503}
    assert bed.ledger.minted == 2


def test_stopped_under_load(bed: Bed) -> None:
    """After SIGTERM no request is lost or cut, all is gone within 5 s, then Envoy answers 503; dead answers: none."""
    with bed.traffic() as traffic:
        traffic.wait_for_200(5)
        time.sleep(1)
        asked = time.monotonic()
        status = bed.serve.terminate(timeout=STOP)
        bed.wait_for_no_users(STOP - (time.monotonic() - asked))
        gone = time.monotonic()
        time.sleep(1)
    bed.assert_none_dead()
    assert status == 0
    assert set(traffic.statuses(until=asked - 0.1)) == {200}
    assert set(traffic.statuses()) == {200, 503}
    assert set(traffic.statuses(since=gone)) == {503}
    assert not bed.ledger.cut
    assert not bed.leases()
    assert not bed.tokens()


def test_suspended_past_its_leases_end(bed: Bed) -> None:
    """Woken by SIGCONT after its lease has ended, it answers 503 until it has another; dead answers: none."""
    with bed.traffic() as traffic:
        traffic.wait_for_200(5)
        bed.serve.suspend()
        suspended = time.monotonic()
        bed.wait_for_no_users(bed.times.lease + 3)
        time.sleep(1)
        # Else a replacement could be there before the first request is.
        bed.proxy.misbehave(answers(UNAVAILABLE))
        woken = time.monotonic()
        bed.serve.resume()
        traffic.wait_for_503(2)
        bed.proxy.behave()
        traffic.wait_for_200(BACK)
    bed.assert_none_dead()
    assert set(traffic.statuses()) == {200, 503}
    assert set(traffic.statuses(since=suspended + 0.5, until=woken - 0.6)) == {503}
    assert bed.ledger.minted == 2
