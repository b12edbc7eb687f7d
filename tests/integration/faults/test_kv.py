"""A static secret that is broken, deleted, or answered by a node that lags behind."""

from __future__ import annotations

import time

import pytest

from tests.integration.faults.bed import GEOCODER, KEY_PATH, Bed, Times
from tests.integration.faults.conftest import MakeBed
from tests.integration.faults.vault_proxy import Kind, answers
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def wait_until_used(bed: Bed, key: str) -> None:
    """Until the service has been given this key."""
    assert wait_for(lambda: bed.geocoder.uses.get(key, 0) > 0, PATIENCE)


def test_secret_field_missing_after_a_rotation(make_bed: MakeBed) -> None:
    """A new version without the field is not used; the old one is, to its max_stale and not beyond; dead: none."""
    bed = make_bed(Times(max_stale=8))
    with bed.traffic(GEOCODER) as traffic:
        traffic.wait_for_200()
        bed.bao.put_kv(KEY_PATH, {"key": "the field has another name now"})
        broken = time.monotonic()
        # It was read before this, so its max_stale is over by then.
        bed.geocoder.retire("key-one", at=broken + bed.times.max_stale)
        traffic.wait_for_503()
        bed.new_key("key-three")
        traffic.wait_for_200()
    bed.assert_none_dead()
    # It was read a second before, or some more on a busy machine.
    assert set(traffic.statuses(until=broken + bed.times.max_stale / 2)) == {200}
    log = (bed.folder / "vaultauthz.log").read_text()
    assert "geocoder" in log
    assert "api_key" in log
    bed.assert_told("geocoder")


def test_kv_version_deleted(bed: Bed) -> None:
    """A deleted version is not used on; detection bound: the next read, 1 s later with this refresh."""
    with bed.traffic(GEOCODER) as traffic:
        traffic.wait_for_200()
        kv = bed.bao.client().secrets.kv.v2
        kv.delete_latest_version_of_secret("geocoder", mount_point="secret")
        deleted = time.monotonic()
        bed.geocoder.retire("key-one")
        traffic.wait_for_503()
        # When it reads again it has taken in what it read before.
        assert wait_for(lambda: len(bed.proxy.calls({Kind.READ}, deleted)) >= 3, PATIENCE)
        known = bed.proxy.calls({Kind.READ}, deleted)[1].at
        bed.new_key("key-two")
        traffic.wait_for_200()
    bed.assert_none_dead(after=known, allowed="after the deletion, until the next read")
    assert set(traffic.statuses(since=known)) == {200, 503}
    bed.assert_told("geocoder")


def test_kv_answered_by_a_stale_standby(bed: Bed) -> None:
    """While every second read comes from a node that lags, a newer key never gives way to an older; dead: none."""
    with bed.traffic(GEOCODER) as traffic:
        traffic.wait_for_200()
        bed.proxy.misbehave(answers(bed.proxy.last(Kind.READ), every=2), Kind.READ)
        bed.new_key("key-two")
        wait_until_used(bed, "key-two")
        bed.geocoder.retire("key-one", at=time.monotonic() + 2.0)  # for requests on their way
        time.sleep(6)
        # And now the node that lags is the only one that answers.
        bed.proxy.misbehave(answers(bed.proxy.last(Kind.READ)), Kind.READ)
        time.sleep(1)
        bed.proxy.behave()
        bed.new_key("key-three")
        wait_until_used(bed, "key-three")
    bed.assert_none_dead()
    assert set(traffic.statuses()) == {200}
    bed.assert_quiet()
    assert bed.told("warning", upstream="geocoder")
