"""A signed upstream from the check's side: signed when it is allowed, denied when it cannot be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import cast

import pytest

from vaultauthz.broker import Binding, BindingTable, Broker
from vaultauthz.core.callers import Callers
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.decision import Allowed, Decision, Denied, Reason
from vaultauthz.core.injection import Mutation
from vaultauthz.core.request import Message, Request
from vaultauthz.core.routing import Routes
from vaultauthz.core.signing import Outgoing, SigningError
from vaultauthz.core.signing.signatures import Signatures
from vaultauthz.leases.later import Later
from vaultauthz.leases.scopes import Scope

REQUEST = Request(
    "test",
    "GET",
    "api.test",
    "/a?b",
    "api",
    message=lambda: Message((("x-a", "client's"), ("x-gone", "1")), b"body"),
)


class Seal:
    """Signs with what it was told, or fails as it was told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.sent: list[Outgoing] = []

    def sign(
        self, sent: Outgoing, now: float, nonce: Callable[[], str]
    ) -> tuple[tuple[str, str], ...]:
        """The time and the nonce."""
        self.sent.append(sent)
        if self.error:
            raise self.error
        return (("x-sig", f"{now} {nonce()}"),)


def credential_of(seal: Seal | None) -> Credential:
    """A credential that signs so, and sets and removes a header."""
    mutation = Mutation(headers=(("x-a", "ours"),), remove=("x-gone",), signer=seal)
    return Credential(mutation, "c_1", "lease/1", inf)


def broker_of(seal: Seal | None, source: Scope | None = None) -> tuple[Broker, list[Decision]]:
    """A broker of one upstream, and what it records."""
    slot = Slot()
    slot.credential = credential_of(seal)
    recorded: list[Decision] = []

    def record(_: Request, decision: Decision) -> bool:
        recorded.append(decision)
        return True

    table = BindingTable([Binding("api", "prod", Callers(allow=None), source or slot)], Routes())
    signatures = Signatures(wall=lambda: 1.5, nonce=lambda: "n")
    return Broker(table, record, lambda: 0.0, signatures), recorded


def test_signed() -> None:
    """The decision carries the headers of this request, and is what is recorded."""
    seal = Seal()
    broker, recorded = broker_of(seal)
    decision = broker.check(REQUEST)
    assert isinstance(decision, Allowed)
    assert decision.signed == (("x-sig", "1.5 n"),)
    assert recorded == [decision]


def test_a_credential_that_comes_later() -> None:
    """A caller's own credential, for which the request has waited, signs as well."""
    promised: Later[Decision] = Later()

    class Waits:
        def take(self, request: Request, wait: float) -> Later[Decision]:
            return promised

    broker, recorded = broker_of(None, cast("Scope", Waits()))
    answer = broker.start(REQUEST)
    assert isinstance(answer, Later)
    promised.answer(Allowed("api", "prod", credential_of(Seal())))
    decision = answer.wait()
    assert isinstance(decision, Allowed)
    assert decision.signed == (("x-sig", "1.5 n"),)
    assert recorded == [decision]


def test_what_is_signed_is_what_is_sent() -> None:
    """The signer sees the request with our headers set and the unwanted dropped."""
    seal = Seal()
    broker_of(seal)[0].check(REQUEST)
    assert seal.sent == [
        Outgoing("GET", "api.test", "/a", "b", {"x-a": ["ours"]}, b"body"),
    ]


def test_an_upstream_that_does_not_sign() -> None:
    """The request is never asked for its headers and body."""

    def asked() -> Message:
        raise AssertionError

    request = Request("test", upstream="api", message=asked)
    decision = broker_of(None)[0].check(request)
    assert isinstance(decision, Allowed)
    assert decision.signed == ()


def test_what_cannot_be_signed(caplog: pytest.LogCaptureFixture) -> None:
    """It is denied as a bad request and recorded so; the log says why, once."""
    broker, recorded = broker_of(Seal(SigningError("the body is missing")))
    wanted = Denied(Reason.BAD_REQUEST, "api", "prod")
    assert [broker.check(REQUEST) for _ in range(3)] == [wanted] * 3
    assert recorded == [wanted] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "upstream api, stage prod: a request is denied: the body is missing"
    ]


def test_an_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """It is denied, not let through unsigned; the log names the place and no value."""
    broker, recorded = broker_of(Seal(RuntimeError("the-secret")))
    wanted = Denied(Reason.INTERNAL, "api", "prod")
    assert broker.check(REQUEST) == wanted
    assert recorded == [wanted]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "the-secret" not in record.getMessage()


def test_a_gateway_that_cannot_tell() -> None:
    """A request without its headers is denied."""
    decision = broker_of(Seal())[0].check(Request("test", upstream="api"))
    assert decision == Denied(Reason.BAD_REQUEST, "api", "prod")


def test_nothing_shows_a_signature() -> None:
    """Neither the decision nor the request shows what was signed, and with what."""
    decision = broker_of(Seal())[0].check(REQUEST)
    assert "x-sig" not in repr(decision)
    assert "body" not in repr(REQUEST)
    assert "client" not in repr(Message((("cookie", "client"),), b"client"))
