"""Our own process is killed, stopped, suspended."""

from __future__ import annotations

import time

import pytest

from tests.integration.faults.bed import Bed, Times
from tests.integration.faults.conftest import MakeBed
from tests.integration.faults.services import CROSSED
from tests.integration.faults.vault_proxy import UNAVAILABLE, answers
from tests.patience import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_killed_without_warning(make_bed: MakeBed) -> None:
    """Its database users end with the token that nobody renews, and Envoy answers 503 meanwhile; dead answers: none."""
    bed = make_bed(Times(token=4, lease=60))
    with bed.traffic() as traffic:
        traffic.wait_for_200()
        assert len(bed.postgres.users()) == 1
        bed.serve.kill()
        killed = time.monotonic()
        bed.wait_for_no_users()
        unserved = traffic.statuses(since=killed + 0.5)
        bed.start_serve()
        traffic.wait_for_200()
    bed.assert_none_dead()
    assert set(unserved) == {503}
    bed.wait_until_told(lambda: 4, "info", logger="vaultauthz.serve")  # serving and ready, twice
    assert set(traffic.statuses()) - {CROSSED} == {200, 503}
    assert bed.ledger.minted == 2


def test_stopped_under_load(bed: Bed) -> None:
    """After SIGTERM no request is lost or cut, all is given back, then Envoy answers 503; dead answers: none."""
    with bed.traffic() as traffic:
        traffic.wait_for_200()
        time.sleep(1)
        asked = time.monotonic()
        status = bed.serve.terminate(timeout=PATIENCE)
        bed.wait_for_no_users()
        gone = time.monotonic()
        time.sleep(1)
    bed.assert_none_dead()
    assert status == 0
    assert {each.status for each in traffic.asked() if each.answered < asked} == {200}
    assert set(traffic.statuses()) == {200, 503}
    assert set(traffic.statuses(since=gone)) == {503}
    assert not bed.ledger.cut
    last = [line["message"] for line in bed.told(logger="vaultauthz.serve")[-2:]]
    assert [text.split(";")[0].split(":")[0] for text in last] == ["stopping", "stopped"]
    bed.assert_quiet()
    assert not bed.leases()
    assert not bed.tokens()


def test_suspended_past_its_leases_end(make_bed: MakeBed) -> None:
    """Woken by SIGCONT after its lease has ended, it answers 503 until it has another; dead answers: none."""
    bed = make_bed(Times(check=0.5))
    with bed.traffic() as traffic:
        traffic.wait_for_200()
        bed.serve.suspend()
        suspended = time.monotonic()
        bed.wait_for_no_users()
        time.sleep(1)
        # Else a replacement could be there before the first request is.
        bed.proxy.misbehave(answers(UNAVAILABLE))
        woken = time.monotonic()
        bed.serve.resume()
        traffic.wait_for_503()
        bed.proxy.behave()
        traffic.wait_for_200()
    bed.assert_none_dead()
    assert set(traffic.statuses()) - {CROSSED} == {200, 503}
    assert set(traffic.statuses(since=suspended + 0.5, until=woken - 1.0)) == {503}
    bed.assert_told()
    assert bed.ledger.minted == 2
