"""Answers that call things by a secret of theirs: none gets into an event, a log or a row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.fake_http import Heard, Reply, Wire
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import House, database, key, upstream
from vaultauthz.config.values import PathSecret
from vaultauthz.core import events

Echo = Callable[[dict[str, Any], Heard], Any]


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with FakeVault() as fake:
        fake.set_approle()
        fake.set_creds("database/creds/pay", ttl=60.0)
        fake.put_kv("secret/key", {"key": "k3y-value"})
        yield fake


def echoing(vault: FakeVault, path: str, echo: Echo) -> None:
    """From now on ``echo`` changes the body of what answers ``path``."""

    def fault(heard: Heard, usual: Callable[[], Reply], wire: Wire) -> Reply:
        reply = usual()
        assert isinstance(reply.body, dict)
        echo(reply.body, heard)
        return replace(reply, body=reply.body)

    vault.fault(fault, path)


def as_accessor(body: dict[str, Any], heard: Heard) -> None:
    body["auth"]["accessor"] = f"by {body['auth']['client_token']}"


def as_accessor_secret_id(body: dict[str, Any], heard: Heard) -> None:
    body["auth"]["accessor"] = heard.body["secret_id"]


def as_login_id(body: dict[str, Any], heard: Heard) -> None:
    body["request_id"] = f"{heard.body['secret_id']}/{body['auth']['client_token']}"


def as_request_id(body: dict[str, Any], heard: Heard) -> None:
    data = body["data"].get("data", body["data"])
    body["request_id"] = f"{heard.token}/{sorted(data.items())}"


@pytest.mark.parametrize(
    ("path", "echo"),
    [
        ("approle/login", as_accessor),
        ("approle/login", as_accessor_secret_id),
        ("approle/login", as_login_id),
        ("database/creds", as_request_id),
        ("secret/data", as_request_id),
    ],
)
def test_what_is_called_by_a_secret_is_not_told_so(
    vault: FakeVault, caplog: pytest.LogCaptureFixture, path: str, echo: Echo
) -> None:
    """It is used all the same, and a token without a name is given back like any other."""
    caplog.set_level(logging.DEBUG)
    echoing(vault, path, echo)
    with House(vault, [database("pay"), key("key")]) as house:
        assert wait_until(lambda: bool(house.sent("pay") and house.sent("key")))
        rows = str(house.keeper.rows())
    assert vault.live_tokens() == []
    shown = caplog.text + str(house.events) + rows
    for secret in ("hvs.", "s3cr3t-id", "p4ssw0rd", "k3y-value"):
        assert secret not in shown


def test_a_lease_that_is_called_by_the_token_is_none(vault: FakeVault) -> None:
    """It could neither be told nor revoked: the answer is not Vault's."""

    def echo(body: dict[str, Any], heard: Heard) -> None:
        body["lease_id"] = f"database/creds/pay/{heard.token}"

    echoing(vault, "database/creds", echo)
    with House(vault, [database("pay", optional=True)]) as house:
        assert wait_until(lambda: bool(house.named(events.FAILED)))
        assert house.sent("pay") is None
    assert "hvs." not in str(house.events)


def test_a_parameter_of_a_read_is_hidden_as_one_of_a_write(
    vault: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes along in the query comes back in an error's text just as well."""

    def refuse(heard: Heard, usual: Callable[[], Reply], wire: Wire) -> Reply:
        return Reply(400, {"errors": [f"bad argument {heard.query['password']!r}"]})

    vault.fault(refuse, "engine/x")
    source = PathSecret("engine/x", params=(("password", "two words and more"),))
    with House(vault, [upstream("u", source, optional=True)]) as house:
        assert wait_until(lambda: bool(house.named(events.FAILED)))
    assert "bad argument" in caplog.text
    assert "words" not in caplog.text
