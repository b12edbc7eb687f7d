"""What each outcome of a call means: the table, line by line and for everything else."""

from __future__ import annotations

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.vault.errors import Call, VaultError, of_exception, of_status

EVERY = st.sampled_from(Call)


@given(EVERY, st.integers(100, 999), st.lists(st.text()), st.floats(0, 1e6))
def test_every_status_has_a_meaning_in_our_own_words(
    call: Call, status: int, texts: list[str], retry_after: float
) -> None:
    """No status is without one, and the words don't depend on what Vault wrote."""
    failure = of_status(call, status, texts, retry_after)
    told = of_status(call, status, [*texts, "s3cr3t"], retry_after)
    assert isinstance(failure.verdict, Verdict)
    assert failure.reason
    assert "s3cr3t" not in told.reason
    assert failure.retry_after in (0.0, retry_after)


@given(EVERY, st.sampled_from([412, 429, 472, 473, 500, 502, 503, 504]))
def test_what_passes_by_itself_is_tried_again(call: Call, status: int) -> None:
    """Overload, seals, standbys and errors inside Vault never cost a lease."""
    failure = of_status(call, status, [], 7.0)
    assert (failure.verdict, failure.retry_after) == (Verdict.RETRY, 7.0)
    # A 500 may be one engine's; the others say that Vault itself cannot serve just now.
    assert failure.away == (status not in (412, 500))


@given(st.lists(st.text()))
def test_a_refused_approle_login_is_locked_whatever_the_text(texts: list[str]) -> None:
    """No wording of Vault's makes us try a refused AppRole login again."""
    assert of_status(Call.LOGIN_LOCKABLE, 400, texts, 0.0).verdict is Verdict.LOCKED


@pytest.mark.parametrize("call", [Call.READ, Call.LOGIN, Call.OTHER])
def test_a_lease_that_is_gone_is_heard_of_only_when_asked_about(call: Call) -> None:
    """The same words in the answer to another call say nothing about a lease."""
    assert of_status(call, 400, ["lease not found"], 0.0).verdict is Verdict.REFUSED


@pytest.mark.parametrize("call", [c for c in Call if c is not Call.READ])
def test_a_404_is_a_missing_secret_only_for_a_read(call: Call) -> None:
    """A wrong auth mount is no deleted secret."""
    assert of_status(Call.READ, 404, [], 0.0).verdict is Verdict.SECRET_GONE
    assert of_status(call, 404, [], 0.0).verdict is Verdict.REFUSED


@pytest.mark.parametrize(
    ("exc", "verdict"),
    [
        (requests.exceptions.SSLError("certificate verify failed"), Verdict.REFUSED),
        (requests.ConnectTimeout(), Verdict.RETRY),
        (requests.ReadTimeout(), Verdict.RETRY),
        (requests.ConnectionError(), Verdict.RETRY),
        (requests.exceptions.InvalidHeader("hvs.token"), Verdict.RETRY),
        (urllib3.exceptions.ProtocolError("broken"), Verdict.RETRY),
        (urllib3.exceptions.IncompleteRead(1, 2), Verdict.RETRY),
        (OSError("no such file"), Verdict.RETRY),
        (ValueError("hvs.token"), Verdict.RETRY),
    ],
)
def test_every_broken_exchange_has_a_meaning(exc: Exception, verdict: Verdict) -> None:
    """Only a TLS failure is final; none of the exception's own words are taken over."""
    failure = of_exception(exc)
    assert failure.verdict is verdict
    assert "token" not in failure.reason


def test_the_detail_is_not_in_the_text() -> None:
    """Whoever prints the error by accident prints our words, not Vault's."""
    error = VaultError(Failure(Verdict.RETRY, "ours"), 500, "Vault's")
    assert str(error) == "ours"
    assert "Vault's" not in repr(error)
