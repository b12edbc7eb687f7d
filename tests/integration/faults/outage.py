"""What every outage that outlasts a lease must look like."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.integration.faults.bed import GEOCODER, Bed, most_issues
from tests.integration.faults.services import CROSSED
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for

OUTAGE = 6.0  # seconds; more than the lease has


def ride_out(bed: Bed, begin: Callable[[], object], end: Callable[[], object]) -> None:
    """An outage longer than the lease: served on, then 503, then served again, and few calls meanwhile."""
    with bed.traffic() as traffic, bed.traffic(GEOCODER) as static:
        traffic.wait_for_200()
        began, minted = time.monotonic(), bed.ledger.minted
        begin()
        traffic.wait_for_503()
        time.sleep(max(0.0, OUTAGE - (time.monotonic() - began)))
        end()
        ended = time.monotonic()
        traffic.wait_for_200()
        static.wait_for_200()
    bed.assert_none_dead()
    bed.assert_paced()
    assert set(traffic.statuses()) - {CROSSED} == {200, 503}
    # A lease is renewed at three quarters of its time at the latest: what there was is used on.
    assert min(traffic.asked(began), key=lambda asked: asked.at).status == 200
    # A static secret is served on for as long as it may be stale.
    assert set(static.statuses()) == {200}
    assert bed.issues(began, ended) <= most_issues(ended - began)
    assert bed.ledger.minted - minted <= 1 + most_issues(ended - began)
    bed.assert_told()
    _assert_static_told(bed)


def _assert_static_told(bed: Bed) -> None:
    """If reading the static secret failed, one line says that it is read again; it was never an outage."""
    assert bed.told("error", upstream="geocoder") == []
    if not bed.told("warning", upstream="geocoder"):
        return

    def over() -> bool:
        lines = bed.told("info", upstream="geocoder", event="vault.recovered")
        return ["it was used all the time" in line["message"] for line in lines] == [True]

    assert wait_for(over, PATIENCE), bed.told(upstream="geocoder")
