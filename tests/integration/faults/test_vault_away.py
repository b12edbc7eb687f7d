"""Vault is not there, or slow, or drops connections."""

from __future__ import annotations

import time

import pytest

from tests.integration.faults.bed import GEOCODER, Bed, Times
from tests.integration.faults.conftest import MakeBed
from tests.integration.faults.outage import ride_out
from tests.integration.faults.vault_proxy import Kind, blackhole, late, reset_every
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_vault_stopped_and_started(bed: Bed) -> None:
    """With Vault stopped a lease is used to its end and not beyond; dead answers: none."""
    ride_out(bed, bed.bao.stop, bed.bao.start)
    assert bed.ledger.minted == 2


def test_vault_killed_and_restarted(bed: Bed) -> None:
    """With Vault killed (-9) a lease is used to its end and not beyond; dead answers: none."""
    ride_out(bed, bed.bao.kill, bed.bao.start)
    assert bed.ledger.minted == 2


def test_vault_sealed_and_unsealed(bed: Bed) -> None:
    """With Vault sealed a lease is used to its end and not beyond; dead answers: none."""
    ride_out(bed, bed.bao.seal, bed.bao.unseal)
    assert bed.ledger.minted == 2


def test_vault_never_answers(bed: Bed) -> None:
    """With calls that are taken and never answered a lease is used to its end and not beyond; dead answers: none."""
    ride_out(bed, lambda: bed.proxy.misbehave(blackhole), bed.proxy.behave)
    assert bed.ledger.minted == 2


def test_every_call_takes_longer_than_we_wait(bed: Bed) -> None:
    """With 5 s for every call and 2 s of patience the users that nobody hears of are few; dead answers: none."""
    ride_out(bed, lambda: bed.proxy.misbehave(late(5)), bed.proxy.behave)


def test_every_call_takes_five_seconds(make_bed: MakeBed) -> None:
    """With 5 s for every call and leases of 30 s nothing is lost at all; dead answers: none."""
    bed = make_bed(Times(lease=30, call=8))
    with bed.traffic() as traffic:
        traffic.wait_for_200()
        bed.proxy.misbehave(late(5))
        time.sleep(32)  # its renewal is asked for after 22.5 s at the latest
    bed.assert_none_dead()
    bed.assert_paced()
    assert set(traffic.statuses()) == {200}
    assert len(bed.proxy.calls({Kind.RENEW})) == 1
    bed.assert_quiet()
    assert bed.ledger.minted == 1


def test_every_second_call_is_reset(make_bed: MakeBed) -> None:
    """With every second connection reset leases of 8 s go on, but for bad luck; dead answers: none."""
    bed = make_bed(Times(lease=8))
    with bed.traffic() as traffic:
        traffic.wait_for_200()
        began = bed.proxy.misbehave(reset_every(2))
        time.sleep(12)
        ended = bed.proxy.behave()
        traffic.wait_for_200()
    bed.assert_none_dead()
    bed.assert_paced()
    assert set(traffic.statuses()) <= {200, 503}
    # Three tries fit between a renewal's time and the lease's end, and all of them may be reset.
    assert traffic.statuses()[200] > 0.75 * traffic.statuses().total()
    # At most one new login for each lease that could not be renewed, never a storm.
    assert bed.issues(began, ended) <= 6


def test_ready_means_ready(bed: Bed) -> None:
    """A lease that ends while Vault is away is not ready: /readyz, metric and `leases` say so; started stays."""
    assert (bed.admin("/readyz"), bed.metric("vaultauthz_ready"), bed.leases_status()) == (
        200,
        1,
        0,
    )
    with bed.traffic() as traffic, bed.traffic(GEOCODER) as static:
        traffic.wait_for_200()
        bed.bao.stop()
        traffic.wait_for_503()
        assert wait_for(lambda: bed.admin("/readyz") == 503, PATIENCE)
        assert (bed.metric("vaultauthz_ready"), bed.leases_status()) == (0, 1)
        assert bed.admin("/readyz?started") == bed.admin("/healthz") == 200
        bed.bao.start()
        traffic.wait_for_200()
        assert wait_for(lambda: bed.admin("/readyz") == 200, PATIENCE)
        assert (bed.metric("vaultauthz_ready"), bed.leases_status()) == (1, 0)
    bed.assert_none_dead()
    assert set(static.statuses()) == {200}  # one upstream's loss is nobody else's


def test_revoke_says_what_vault_has_done(make_bed: MakeBed) -> None:
    """Status 1 while Vault is away, and the lease ends when it is back; status 0 when that is so already."""
    bed = make_bed(Times(lease=600))
    (first,) = bed.leases()
    status, said = bed.revoked("reports")
    assert (status, "demo: revoked at Vault; another credential is in use" in said) == (0, True)
    (second,) = bed.leases()
    assert second != first
    bed.bao.stop()
    status, said = bed.revoked("reports")
    assert (status, "demo: not revoked at Vault yet" in said) == (1, True), said
    log = (bed.folder / "vaultauthz.log").read_text()
    assert f"{second} could not be revoked" in log
    bed.bao.start()
    assert wait_for(lambda: second not in bed.leases(), PATIENCE)
    audit = (bed.folder / "audit.jsonl").read_text()
    assert "lease.not_revoked" in audit
