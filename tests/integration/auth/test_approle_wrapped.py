"""Response-wrapped secret_ids against a real OpenBao, and in a whole server."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.house import write
from tests.integration.served import Login, Served, asking
from tests.patience import PATIENCE
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.demo.parts import binaries

from .auth_bao import AuthBao, failure_of

pytestmark = pytest.mark.integration

NUMBERS = itertools.count(1)
NOTHING = 'path "nothing" { capabilities = ["read"] }'
INTERCEPTED = "possible interception"


class Delivery:
    """A role whose secret_ids come wrapped, and the file that they are delivered to."""

    def __init__(self, vault: AuthBao, folder: Path, policy: str = NOTHING) -> None:
        self._vault = vault
        self.name = f"wrapped-{next(NUMBERS)}"
        self.role_id, _ = vault.enable_approle(self.name, policy)
        self.file = folder / "secret_id"
        self.auth = AppRole(self.role_id, secret_id_file=self.file, secret_id_wrapped=True)

    def wrapped(self, path: str = "", *, ttl: str = "5m", **fields: Any) -> str:
        """A wrapping token for the answer to a POST; by default for a new secret_id."""
        path = path or f"auth/approle/role/{self.name}/secret-id"
        answer = self._call(path, {"X-Vault-Wrap-TTL": ttl}, **fields)
        return str(answer["wrap_info"]["token"])

    def deliver(self, token: str = "") -> str:
        """Write a wrapping token to the file, by default one for a new secret_id."""
        token = token or self.wrapped()
        write(self.file, token + "\n")
        return token

    def unwrap(self, token: str) -> str:
        """Use a wrapping token, as an interceptor does: the secret_id."""
        answer = self._call("sys/wrapping/unwrap", {"X-Vault-Token": token})
        return str(answer["data"]["secret_id"])

    def _call(self, path: str, headers: dict[str, str], **fields: Any) -> Any:
        response = requests.post(
            f"{self._vault.address}/v1/{path}",
            json=fields or None,
            headers={"X-Vault-Token": self._vault.root_token, **headers},
            timeout=PATIENCE,
        )
        response.raise_for_status()
        return response.json()


@pytest.fixture
def delivery(vault: AuthBao, tmp_path: Path) -> Delivery:
    """A role of this test's own."""
    return Delivery(vault, tmp_path)


def test_the_token_is_used_once_and_the_secret_id_again(vault: AuthBao, delivery: Delivery) -> None:
    """Two logins and one after a reload, with one wrapping token; not in another process."""
    token = delivery.deliver()
    session = vault.session(delivery.auth)
    first, second = session.login(), session.login()
    assert first.lease_id != second.lease_id
    reloaded = vault.session(delivery.auth, session.memory)
    reloaded.login()
    assert failure_of(vault.session(delivery.auth), token).failure.verdict is Verdict.LOCKED
    told = f"{session.memory!r}"
    assert token not in told


def test_a_new_token_in_the_file_takes_the_place_of_the_old(
    vault: AuthBao, delivery: Delivery
) -> None:
    """It is unwrapped at the next login, and what the old one gave is forgotten."""
    session = vault.session(delivery.auth)
    delivery.deliver()
    session.login()
    before = dict(session.memory)
    delivery.deliver()
    session.login()
    assert len(session.memory) == 1
    assert not set(session.memory) & set(before)


def test_a_used_token_is_a_possible_interception(vault: AuthBao, delivery: Delivery) -> None:
    """Used by somebody, expired, or no wrapping token at all: final, and it says what to do."""
    used = delivery.wrapped()
    stolen = delivery.unwrap(used)
    for token in (used, "s.never0000000000000000001", vault.root_token, "a.b.c"):
        delivery.deliver(token)
        error = failure_of(vault.session(delivery.auth), token, stolen)
        assert error.failure.verdict is Verdict.LOCKED
        assert error.status in ((400, 403) if binaries.vault().hashicorps else (400,))
        assert INTERCEPTED in error.failure.reason
        assert "issue a new secret_id" in error.failure.reason


def test_a_token_that_something_else_made_is_not_used(vault: AuthBao, delivery: Delivery) -> None:
    """Whoever puts another token there could choose our secret_id: by the path it is told."""
    vault.enable_auth("approle", "others")
    vault.write("auth/others/role/x", token_policies=["default"])
    for path, fields in (
        ("sys/wrapping/wrap", {"secret_id": "chosen", "secret_id_accessor": "x"}),
        ("auth/others/role/x/secret-id", {}),
        (f"auth/approle/role/{delivery.name}/custom-secret-id", {"secret_id": "chosen"}),
    ):
        token = delivery.deliver(delivery.wrapped(path, **fields))
        error = failure_of(vault.session(delivery.auth), token, "chosen")
        assert error.failure.verdict is Verdict.LOCKED
        assert INTERCEPTED in error.failure.reason
        assert "not made by auth/approle/role/" in error.failure.reason
        assert path in error.detail
        assert delivery.unwrap(token)  # it was left as it is


def test_a_bare_secret_id_raises_no_alarm(vault: AuthBao, delivery: Delivery) -> None:
    """One that is not wrapped where a wrapped one should be is a mistake, and not sent."""
    secret_id = delivery.unwrap(delivery.wrapped())
    delivery.deliver(secret_id)
    error = failure_of(vault.session(delivery.auth), secret_id)
    assert (error.status, error.failure.verdict) == (0, Verdict.RETRY)
    assert error.failure.reason == "what the secret_id file holds is no wrapping token"


def test_a_rewrapped_token_and_one_of_another_format_are_as_good(
    vault: AuthBao, delivery: Delivery
) -> None:
    """Rewrapping keeps the path that it was made by; a JWT carries the token inside."""
    answer = delivery._call("sys/wrapping/rewrap", {}, token=delivery.wrapped())
    delivery.deliver(answer["wrap_info"]["token"])
    vault.session(delivery.auth).login()
    path = f"auth/approle/role/{delivery.name}/secret-id"
    headers = {"X-Vault-Wrap-TTL": "5m", "X-Vault-Wrap-Format": "jwt"}
    delivery.deliver(delivery._call(path, headers)["wrap_info"]["token"])
    vault.session(delivery.auth).login()


def test_a_wrong_role_does_not_use_the_token_up_twice(vault: AuthBao, delivery: Delivery) -> None:
    """The secret_id is kept when the login with it fails, so that mending the role is enough."""
    delivery.deliver()
    memory: dict[str, Secret] = {}
    wrong = AppRole("no-such-role", secret_id_file=delivery.file, secret_id_wrapped=True)
    assert failure_of(vault.session(wrong, memory)).failure.verdict is Verdict.LOCKED
    vault.session(delivery.auth, memory).login()


def test_a_restart_waits_for_a_new_token_and_needs_no_other(vault: AuthBao, tmp_path: Path) -> None:
    """With the used token the server has no credential and says why; a new file mends it."""
    vault.put_kv("secret/wrapped", {"key": "kv-0123456789"})
    policy = 'path "secret/data/wrapped" { capabilities = ["read"] }'
    upstreams = """\
upstreams:
  geocoder:
    secret: {kv: secret/wrapped}
    inject: [{header: {name: X-Api-Key, value: "{key}"}}]
    callers: any
"""
    delivery = Delivery(vault, tmp_path, policy)
    tokens = [delivery.wrapped(), delivery.wrapped()]
    server = Served(tmp_path, Login(vault.address, delivery.role_id, tokens[0]), upstreams)
    config = server.config.read_text()
    server.config.write_text(
        config.replace("_id_file: secret_id", "_id_file: secret_id, secret_id_wrapped: true")
    )
    with server:
        server.wait_ready()
        assert INTERCEPTED not in server.stderr
        server.process.terminate()
        server.start()
        server.wait(lambda: INTERCEPTED in server.stderr, "it did not tell")
        with asking(server.socket) as asker:
            assert not server.ready
            answer = asker.check("geocoder")
            assert (answer.status, answer.error) == (503, "no_credential")
            delivery.deliver(tokens[1])
            server.wait_ready()
            assert asker.check("geocoder").headers["x-api-key"] == "kv-0123456789"
        for token in tokens:
            assert token not in server.stderr + server.stdout
