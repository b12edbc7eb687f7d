"""Vault, or what stands before it, answers nonsense or asks for patience: an outage like any other."""

from __future__ import annotations

import itertools

import pytest

from tests.integration.faults.bed import Bed
from tests.integration.faults.outage import ride_out
from tests.integration.faults.vault_proxy import (
    BROKEN,
    HTML,
    TOO_MANY,
    Kind,
    Reply,
    answers,
    retry_after,
    truncated,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PATIENCE = 3  # seconds that a 429 asks for


def ride_out_answers(bed: Bed, reply: Reply) -> None:
    """An outage in which every call gets this reply; nothing is minted in it."""
    ride_out(bed, lambda: bed.proxy.misbehave(answers(reply)), bed.proxy.behave)
    assert bed.ledger.minted == 2


def test_429_with_retry_after(bed: Bed) -> None:
    """Told to come back in 3 s, no call for the lease comes earlier than that; dead answers: none."""
    ride_out_answers(bed, retry_after(TOO_MANY, PATIENCE))
    calls = bed.proxy.calls({Kind.ISSUE, Kind.RENEW})
    gaps = [second.at - first.at for first, second in itertools.pairwise(calls) if not first.good]
    assert gaps
    assert min(gaps) >= PATIENCE - 0.05


def test_429_without_retry_after(bed: Bed) -> None:
    """With 429 and no time named the lease is used to its end and the backoff kept; dead answers: none."""
    ride_out_answers(bed, TOO_MANY)


def test_500(bed: Bed) -> None:
    """With 500 for everything the lease is used to its end and the backoff kept; dead answers: none."""
    ride_out_answers(bed, BROKEN)


def test_200_with_html(bed: Bed) -> None:
    """With a login page for every answer the lease is used to its end and no longer; dead answers: none."""
    ride_out_answers(bed, HTML)


def test_truncated_json(bed: Bed) -> None:
    """With half of each answer, users are made that nobody hears of, and they are few; dead answers: none."""
    ride_out(bed, lambda: bed.proxy.misbehave(truncated), bed.proxy.behave)
