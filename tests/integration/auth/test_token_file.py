"""A token that something else keeps fresh, against a real OpenBao and in a whole broker."""

from __future__ import annotations

import logging
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tests.contract.house import write
from tests.patience import PATIENCE
from vaultauthz import open_broker
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.core import events
from vaultauthz.core.events import Event
from vaultauthz.core.grant import Verdict
from vaultauthz.demo.parts import wait_for

from .auth_bao import AuthBao, failure_of

pytestmark = pytest.mark.integration

POLICY = 'path "secret/data/token-file" { capabilities = ["read"] }'
CONFIG = """\
vault: {{address: "{address}"}}
stages: {{production: {{auth: {{method: token_file, path: token}}}}}}
upstreams:
  geocoder:
    secret: {{kv: secret/token-file}}
    inject: [{{header: {{name: X-Api-Key, value: "{{key}}"}}}}]
    callers: any
audit: {{file: audit.jsonl}}
"""


def new_token(vault: AuthBao, ttl: str = "10m") -> dict[str, Any]:
    """A token as an agent would have it."""
    vault.client().sys.create_or_update_policy("token-file", POLICY)
    made = vault.client().auth.token.create(ttl=ttl, policies=["token-file"])
    return dict(made["auth"])


def test_the_file_is_read_at_each_login(vault: AuthBao, tmp_path: Path) -> None:
    """A token with an end is taken for what it has left, is not ours to renew, and may change."""
    first, second = new_token(vault), new_token(vault)
    file = write(tmp_path / "token", first["client_token"] + "\n")
    session = vault.session(TokenFile(file))
    grant = session.login()
    assert (grant.lease_id, grant.renewable) == (first["accessor"], False)
    assert 590.0 <= grant.ttl <= 600.0
    assert not session.owns_token
    write(file, second["client_token"])
    assert session.login().lease_id == second["accessor"]


def test_a_token_that_vault_does_not_know_is_refused(vault: AuthBao, tmp_path: Path) -> None:
    """Revoked, or never made: nothing of it is told. No token at all is not sent."""
    revoked = new_token(vault)["client_token"]
    vault.client().auth.token.revoke(revoked)
    file = tmp_path / "token"
    for token in (revoked, "s.never0000000000000000001"):
        write(file, token)
        error = failure_of(vault.session(TokenFile(file)), token)
        assert (error.status, error.failure.verdict) == (403, Verdict.REFUSED)
        assert "does not know the token in the file" in error.failure.reason
    write(file, "two words")
    error = failure_of(vault.session(TokenFile(file)), "two words")
    assert (error.status, error.failure.verdict) == (0, Verdict.RETRY)


def test_a_token_without_an_end_wants_leave(
    vault: AuthBao, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused by itself; with allow_long_lived it is used, and a warning is logged."""
    file = write(tmp_path / "token", vault.root_token)
    error = failure_of(vault.session(TokenFile(file)), vault.root_token)
    assert error.failure.verdict is Verdict.REFUSED
    assert "allow_long_lived" in error.failure.reason
    caplog.set_level(logging.WARNING)
    assert vault.session(TokenFile(file, allow_long_lived=True)).login().ttl == inf
    assert "never expires" in caplog.text
    assert vault.root_token not in caplog.text


def test_a_token_that_an_agent_rotates_is_followed(vault: AuthBao, tmp_path: Path) -> None:
    """The broker logs in by the new one, and leaves the old one to the agent."""
    vault.put_kv("secret/token-file", {"key": "kv-0123456789"})
    first, second = new_token(vault), new_token(vault)
    file = write(tmp_path / "token", first["client_token"])
    file.chmod(0o600)
    config = write(tmp_path / "vaultauthz.yaml", CONFIG.format(address=vault.address))
    heard: list[Event] = []
    with open_broker(config, heard.append) as broker:
        assert broker.wait_ready(10)
        agent = write(tmp_path / "token.new", second["client_token"])
        agent.chmod(0o600)
        agent.rename(file)

        def logins() -> list[str]:
            return [event.lease_id for event in heard if event.name == events.LOGIN]

        assert wait_for(lambda: len(logins()) == 2, PATIENCE)
        assert logins() == [first["accessor"], second["accessor"]]
        assert broker.ready
    for token in (first, second):
        assert vault.client(token["client_token"]).auth.token.lookup_self()
