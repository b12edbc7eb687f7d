"""An operator, or Vault, takes away what is in use."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.integration.faults.bed import CREDS, ROLE, Bed
from tests.integration.faults.outage import ride_out
from tests.integration.faults.vault_proxy import FORBIDDEN, REFUSED, Kind, Reply, answers
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def lose(bed: Bed, revoke: Callable[[], object]) -> None:
    """What is revoked is noticed at the lease's renewal at the latest, and replaced once."""
    with bed.traffic() as traffic:
        traffic.wait_for_200()
        revoke()
        revoked = time.monotonic()
        assert wait_for(lambda: bed.ledger.minted == 2, PATIENCE), "the loss was not noticed"
        traffic.wait_for_200()
        settled = time.monotonic()
        time.sleep(bed.times.lease)
    # Who asks for another has understood.
    known = bed.proxy.calls({Kind.ISSUE}, revoked)[0].at
    allowed = "after the revocation, until the next call about the lease"
    bed.assert_none_dead(after=known, allowed=allowed)
    assert len(bed.proxy.calls({Kind.RENEW}, revoked, known)) <= 1
    bed.assert_paced()
    assert set(traffic.statuses()) <= {200, 401, 502, 503}
    assert set(traffic.statuses(since=settled)) == {200}
    bed.assert_told()
    assert bed.ledger.minted == 2


def test_login_token_revoked_by_an_operator(bed: Bed) -> None:
    """The leases die with the token; detection bound: the next call with the token, 4 s at the latest."""

    def revoke() -> None:
        for accessor in bed.tokens():
            bed.bao.client().auth.token.revoke_accessor(accessor)

    lose(bed, revoke)
    assert len(bed.proxy.calls({Kind.LOGIN})) == 2


def test_single_lease_revoked(bed: Bed) -> None:
    """The lease is replaced; detection bound: its renewal, 4 s at the latest."""

    def revoke() -> None:
        (lease,) = bed.leases()
        bed.bao.client().write_data("sys/leases/revoke", data={"lease_id": lease, "sync": True})

    lose(bed, revoke)
    assert len(bed.proxy.calls({Kind.LOGIN})) == 1


def test_lease_prefix_revoked(bed: Bed) -> None:
    """Every lease under the path is revoked and replaced; detection bound: the renewal, 4 s at the latest."""
    lose(bed, lambda: bed.bao.client().sys.revoke_prefix(CREDS))
    assert len(bed.proxy.calls({Kind.LOGIN})) == 1


@pytest.mark.parametrize("reply", [FORBIDDEN, REFUSED], ids=["403", "400"])
def test_renewal_refused(bed: Bed, reply: Reply) -> None:
    """A lease that may not be renewed is used for two thirds and then replaced, once; dead answers: none."""
    with bed.traffic() as traffic:
        traffic.wait_for_200()
        began = bed.proxy.misbehave(answers(reply), Kind.RENEW)
        time.sleep(2.5 * bed.times.lease)
        ended = bed.proxy.behave()
        time.sleep(2)
    bed.assert_none_dead()
    bed.assert_paced()
    bed.assert_quiet()
    assert bed.told("warning", upstream="reports")
    assert set(traffic.statuses()) == {200}
    # Each is held for two thirds of its time, so so many fit in, and one more on each side.
    assert 3 <= bed.ledger.minted <= 2 + (ended - began) / (bed.times.lease * 2 / 3)


def test_role_deleted(bed: Bed) -> None:
    """Without its role a lease is used to its end, then 503 until the role is back; dead answers: none."""
    ride_out(bed, lambda: bed.bao.client().secrets.database.delete_role(ROLE), bed.write_role)
    assert bed.ledger.minted == 2
