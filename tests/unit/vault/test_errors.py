"""What each outcome of a call means: the table, line by line and for everything else."""

from __future__ import annotations

import http.client
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.vault.errors import (
    ROWS,
    Call,
    Denial,
    NodeFate,
    VaultError,
    of_exception,
    of_status,
)

EVERY = st.sampled_from(Call)
# An answer that each row, and no row before it, is for. The texts are OpenBao 2.7's where
# tests/integration/test_vault_errors.py has them from the real server, else as it says here.
LDAP = 'error connecting to host "ldap://ad": LDAP Result Code 200 "Network Error": dial tcp'
KEYS = "error validating token: fetching keys: dial tcp 10.0.0.1:443: connect: connection refused"
NO_KEYS = "error validating token: fetching keys oidc: get keys failed: 500 Internal Server Error"
OTHER_CERT = "failed to renew entry: client identity during renewal not matching client identity"
NO_ACTIVE = "local node not active but active cluster node not found"
LOCKED = 'API access to this namespace has been locked by an administrator - "x/" must be'
EXAMPLES = [
    (Call.LOGIN_LOCKABLE, 400, LDAP),  # Vault's source, sdk/helper/ldaputil
    (Call.LOGIN_LOCKABLE, 400, "invalid username or password"),
    (Call.LOGIN, 400, KEYS),  # go-oidc's and net's words, as Vault's jwt engine passes them on
    (Call.LOGIN, 400, NO_KEYS),
    (Call.RENEW, 400, "lease not found"),
    (Call.RENEW, 400, "failed to renew entry: err: failed to connect to `host=db`"),
    (Call.READ, 400, "Error creating IAM user: Throttling: Rate exceeded"),  # AWS's words
    (Call.RENEW, 500, OTHER_CERT),
    (Call.READ, 400, "unknown role: pay"),
    (Call.LOGIN, 401, ""),  # a proxy's: Vault has no 401
    (Call.LOGIN_LOCKABLE, 403, "permission denied"),
    (Call.READ, 403, "permission denied"),
    (Call.READ, 404, "namespace not found"),
    (Call.LOGIN, 404, "namespace not found"),
    (Call.READ, 404, 'no handler for route "x/y". route entry not found.'),
    (Call.READ, 404, ""),
    (Call.OTHER, 404, ""),
    (Call.OTHER, 405, "unsupported operation"),
    (Call.READ, 408, ""),  # a load balancer's
    (Call.READ, 412, ""),  # Vault's documentation, "HTTP Status Codes"
    (Call.OTHER, 413, "http: request body too large"),
    (Call.READ, 429, 'request path "x": rate limit quota exceeded'),
    (Call.READ, 472, ""),  # the same, of Vault Enterprise
    (Call.READ, 473, ""),  # the same
    (Call.READ, 307, ""),
    (Call.READ, 500, NO_ACTIVE),
    (Call.OTHER, 500, "error parsing JSON: JSON string value exceeds allowed length"),  # Vault 1.21
    (Call.READ, 503, LOCKED),
    (Call.READ, 503, "Vault is sealed"),
    (Call.READ, 503, "overloaded, try again later"),  # Vault Enterprise, adaptive protection
    (Call.READ, 502, "Error creating IAM user: Throttling: Rate exceeded"),  # Vault 1.21
    (Call.LOGIN_LOCKABLE, 503, ""),  # a proxy's: Envoy's of a connection that broke meanwhile
    (Call.READ, 501, ""),
    (Call.READ, 502, ""),  # a load balancer's
    (Call.READ, 503, ""),  # the same
    (Call.READ, 500, "internal error"),
    (Call.READ, 418, ""),
]


def test_every_row_is_reached() -> None:
    """No row is hidden by one before it: each example is answered by its own."""
    reached = [of_status(call, status, [text]) for call, status, text in EXAMPLES]
    assert [error.failure.reason for error in reached] == [
        row.reason.format(status) for row, (_, status, _) in zip(ROWS, EXAMPLES, strict=True)
    ]
    assert [(error.failure.verdict, error.node) for error in reached] == [
        (row.verdict, row.node) for row in ROWS
    ]


@given(EVERY, st.integers(100, 999), st.lists(st.text()), st.floats(0, 1e6))
def test_every_status_has_a_meaning_in_our_own_words(
    call: Call, status: int, texts: list[str], retry_after: float
) -> None:
    """No status is without one, and the words don't depend on what Vault wrote."""
    error = of_status(call, status, texts, retry_after)
    told = of_status(call, status, [*texts, "s3cr3t"], retry_after)
    assert isinstance(error.failure.verdict, Verdict)
    assert error.failure.reason
    assert "s3cr3t" not in str(told)
    assert error.failure.retry_after in (0.0, retry_after, 60.0)
    assert error.status == status


@given(EVERY, st.sampled_from([408, 412, 429, 472, 473, 474, 500, 501, 502, 503, 504]))
def test_what_passes_by_itself_is_tried_again(call: Call, status: int) -> None:
    """Overload, seals, standbys and errors inside Vault never cost a lease."""
    failure = of_status(call, status, [], 7.0).failure
    assert (failure.verdict, failure.retry_after) == (Verdict.RETRY, 7.0)
    # A 500 may be one engine's; the others say that Vault itself cannot serve just now.
    assert failure.away == (status != 500)


@given(EVERY, st.integers(100, 999), st.lists(st.text()))
def test_a_call_is_sent_again_only_if_it_was_not_done(
    call: Call, status: int, texts: list[str]
) -> None:
    """Only statuses that Vault gives instead of doing anything send a call to another node."""
    again = of_status(call, status, texts).node is NodeFate.OUT
    by_engine = status in (501, 503) and any(map(str.strip, texts))  # it was asked, and failed
    not_done = status in (412, 472, 473, 474, 501, 503) or 300 <= status < 400
    if call is Call.LOGIN_LOCKABLE and status == 503:
        not_done = False  # a proxy's: it may have been delivered
    assert again == (not_done and not by_engine)


@given(EVERY, st.integers(500, 599), st.text(min_size=1).filter(str.strip))
def test_what_vault_itself_says_of_an_engine_is_that_engines_trouble(
    call: Call, status: int, text: str
) -> None:
    """The next call may well work: nothing is slowed down, and no other node is asked."""
    error = of_status(call, status, [f"Error creating IAM user: {text}"])
    assert (error.failure.verdict, error.node) == (Verdict.RETRY, NodeFate.FINE)
    assert not error.failure.away


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("texts", [[], [""], ["  "], ["Bad Gateway"], ["service unavailable "]])
def test_a_proxy_without_vaults_words_is_in_vaults_place(status: int, texts: list[str]) -> None:
    """An HTML page, an empty body, or JSON that says nothing."""
    assert of_status(Call.READ, status, texts).failure.away


@pytest.mark.parametrize(
    "text",
    ["Vault is sealed", "Vault is not initialized", "node is a standby", "in recovery mode"],
)
def test_a_whole_vault_that_does_not_serve_is_told_from_an_engine(text: str) -> None:
    """503 with Vault's own words, and the next node is asked."""
    error = of_status(Call.READ, 503, [text])
    assert (error.failure.away, error.node) == (True, NodeFate.OUT)


@pytest.mark.parametrize(
    ("status", "texts", "denied"),
    [
        # What OpenBao 2.7 and Vault 1.21 answer, see tests/integration/test_vault_errors.py.
        (403, ["permission denied"], Denial.TOKEN),
        (403, ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"], Denial.TOKEN),
        (403, ["bad token"], Denial.TOKEN),
        (403, ["1 error occurred:\n\t* permission denied\n\n"], Denial.POLICY),
        (403, ['2 errors occurred:\n\t* egp "x" denied\n\t* permission denied\n\n'], Denial.POLICY),
        (403, ["preflight capability check returned 403, please ensure …"], Denial.POLICY),
        (403, [], Denial.UNCLEAR),  # a firewall's page
        (403, ["request blocked by WAF"], Denial.UNCLEAR),
        (403, ["permission denied", "by the proxy"], Denial.UNCLEAR),
        (400, ["permission denied"], Denial.UNCLEAR),
    ],
)
def test_whom_a_403_is_about(status: int, texts: list[str], denied: Denial) -> None:
    """The token before any policy was asked, or a policy's no to one path."""
    assert of_status(Call.READ, status, texts).denied is denied


@given(st.lists(st.text()))
def test_a_refused_approle_login_is_locked_whatever_the_text(texts: list[str]) -> None:
    """No wording of Vault's makes us try a refused AppRole login again."""
    assert of_status(Call.LOGIN_LOCKABLE, 400, texts).failure.verdict is Verdict.LOCKED


def test_a_locked_user_is_not_hammered() -> None:
    """A 403 at a login that locks comes from the lock: a minute passes between two tries."""
    failure = of_status(Call.LOGIN_LOCKABLE, 403, ["permission denied"]).failure
    assert (failure.verdict, failure.retry_after) == (Verdict.REFUSED, 60.0)
    assert of_status(Call.LOGIN, 403, ["permission denied"]).failure.retry_after == 0.0


@pytest.mark.parametrize("call", [Call.READ, Call.LOGIN, Call.OTHER])
def test_a_lease_that_is_gone_is_heard_of_only_when_asked_about(call: Call) -> None:
    """The same words in the answer to another call say nothing about a lease."""
    assert of_status(call, 400, ["lease not found"]).failure.verdict is Verdict.REFUSED


@pytest.mark.parametrize("call", [c for c in Call if c is not Call.READ])
def test_a_404_is_a_missing_secret_only_for_a_read(call: Call) -> None:
    """A wrong auth mount is no deleted secret."""
    assert of_status(Call.READ, 404, []).failure.verdict is Verdict.SECRET_GONE
    assert of_status(call, 404, []).failure.verdict is Verdict.REFUSED


WRONG_NAME = ssl.SSLCertVerificationError(1, "[SSL] whole text")
WRONG_NAME.verify_message = "Hostname mismatch"


@pytest.mark.parametrize(
    ("exc", "verdict", "detail"),
    [
        (WRONG_NAME, Verdict.REFUSED, "Hostname mismatch"),
        (ssl.SSLError(1, "[SSL] whole text"), Verdict.REFUSED, "[SSL] whole text"),
        (ssl.SSLEOFError(8, "EOF occurred"), Verdict.RETRY, "EOF occurred"),
        (socket.gaierror(-2, "Name or service not known"), Verdict.RETRY, "Name or service not"),
        (ConnectionRefusedError(111, "Connection refused"), Verdict.RETRY, "Connection refused"),
        (ConnectionResetError(), Verdict.RETRY, "ConnectionResetError"),
        (TimeoutError(), Verdict.RETRY, "TimeoutError"),
        (OSError(2, "No such file", "/run/agent.sock"), Verdict.RETRY, "No such file"),
        (http.client.RemoteDisconnected("hvs.token"), Verdict.RETRY, "RemoteDisconnected"),
        (http.client.BadStatusLine("hvs.token"), Verdict.RETRY, "BadStatusLine"),
        (http.client.IncompleteRead(b"hvs.token", 2), Verdict.RETRY, "IncompleteRead"),
        (ValueError("hvs.token"), Verdict.RETRY, "ValueError"),
    ],
)
@pytest.mark.parametrize("sent", [False, True])
def test_every_broken_exchange_has_a_meaning(
    exc: Exception, verdict: Verdict, detail: str, *, sent: bool
) -> None:
    """Only a TLS failure is final; what was sent or received is in no word of it."""
    error = of_exception(exc, sent=sent)
    assert error.failure.verdict is verdict
    assert error.detail.startswith(detail)
    assert "token" not in error.failure.reason + error.detail
    assert error.node is (NodeFate.UNSURE if sent else NodeFate.OUT)


def test_the_detail_is_not_in_the_text() -> None:
    """Whoever prints the error by accident prints our words, not Vault's."""
    error = VaultError(Failure(Verdict.RETRY, "ours"), 500, "Vault's")
    assert str(error) == "ours"
    assert "Vault's" not in repr(error)
