from __future__ import annotations

import pytest

from vaultauthz.core.decision import ANSWERS, Reason

# The contract, written out a second time on purpose.
CONTRACT = {
    "no_upstream": (403, 7),
    "caller_denied": (403, 7),
    "no_credential": (503, 14),
    "bad_request": (400, 3),
    "overloaded": (503, 8),
    "internal": (500, 13),
}


def test_every_reason_has_its_answer() -> None:
    """Each reason has an HTTP status and a gRPC code, and there is no other."""
    assert {reason.value: tuple(status) for reason, status in ANSWERS.items()} == CONTRACT
    assert set(ANSWERS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_no_reason_lets_through(reason: Reason) -> None:
    """Every reason is an error in both protocols."""
    assert ANSWERS[reason].http >= 400
    assert 0 < ANSWERS[reason].grpc <= 16
