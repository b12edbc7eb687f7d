"""The keeper against real OpenBao and PostgreSQL, under load: never a login that is dead."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import pytest

from tests.contract.house import House, database, write
from tests.patience import PATIENCE
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.core import events
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for
from vaultauthz.leases.clock import boottime

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

POLICY = """
path "database/creds/keeper-*" { capabilities = ["read"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""


class Logins:
    """Opens PostgreSQL sessions with what a request would carry, one after the other."""

    def __init__(self, house: House, postgres: Postgres, name: str) -> None:
        self._house = house
        self._postgres = postgres
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.good = 0
        self.none = 0
        self.dead: list[str] = []
        self.users: list[str] = []

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            login = self._sent()
            if login is None:
                self.none += 1
            else:
                self._open(*login)

    def _sent(self) -> tuple[str, str] | None:
        credential = self._house.slot(self._name).credential
        if credential is None or not credential.usable(boottime()):
            return None
        ((_, value),) = credential.mutation.headers
        text = base64.b64decode(value.removeprefix("Basic ")).decode()
        username, _, password = text.partition(":")
        return username, password

    def _open(self, username: str, password: str) -> None:
        if username not in self.users:
            self.users.append(username)
        try:
            self._postgres.connect(username, password).close()
            self.good += 1
        except psycopg.OperationalError:
            # A connection takes any time: what has been replaced meanwhile has crossed with it.
            if self._sent() == (username, password):
                self.dead.append(username)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()


def house_of(
    bao: OpenBao, folder: Path, name: str, *, token_ttl: str = "1h", token_max_ttl: str = "24h"
) -> House:
    """A keeper with one upstream, logged in by AppRole with a secret_id file."""
    role_id, secret_id = bao.enable_approle(
        name, POLICY, token_ttl=token_ttl, token_max_ttl=token_max_ttl
    )
    auth = AppRole(role_id, secret_id_file=write(folder / "secret_id", secret_id))
    return House(bao, [database(name)], auth=auth)


def test_a_database_user_is_rotated_under_load(
    bao: OpenBao, postgres: Postgres, tmp_path: Path
) -> None:
    """Leases of 6 s with an end after 9: several users one after the other, each let in."""
    bao.database(postgres, "keeper-rotate", default_ttl="6s", max_ttl="9s")
    with house_of(bao, tmp_path, "keeper-rotate") as house:
        assert wait_for(lambda: house.keeper.ready, PATIENCE)
        with Logins(house, postgres, "keeper-rotate") as logins:
            assert wait_for(lambda: len(logins.users) >= 3, PATIENCE)
        assert (logins.dead, logins.none) == ([], 0)
        assert logins.good > 20
        last = logins.users[-1]
        assert house.keeper.stop(PATIENCE)
    assert wait_for(lambda: last not in postgres.users(), PATIENCE)


def test_a_login_token_is_replaced_under_load(
    bao: OpenBao, postgres: Postgres, tmp_path: Path
) -> None:
    """A token that ends after 9 s: the lease moves to the next in time, its user is let in."""
    bao.database(postgres, "keeper-token", default_ttl="1h", max_ttl="2h")
    house = house_of(bao, tmp_path, "keeper-token", token_ttl="7s", token_max_ttl="9s")
    with house:
        assert wait_for(lambda: house.keeper.ready, PATIENCE)
        first = house.sent("keeper-token")
        with Logins(house, postgres, "keeper-token") as logins:
            assert wait_for(lambda: first not in postgres.users(), PATIENCE)
        assert (logins.dead, logins.none) == ([], 0)
        assert len(logins.users) == 2
        assert len(house.named(events.LOGIN)) == 2


def test_a_token_that_an_operator_revoked_is_noticed(
    bao: OpenBao, postgres: Postgres, tmp_path: Path
) -> None:
    """At the next call: one login, a new user; the dead one is sent until then and not after."""
    bao.database(postgres, "keeper-dead", default_ttl="4s", max_ttl="1h")
    with house_of(bao, tmp_path, "keeper-dead") as house:
        assert wait_for(lambda: house.keeper.ready, PATIENCE)
        (login,) = house.named(events.LOGIN)
        bao.client().auth.token.revoke_accessor(login.lease_id)
        assert wait_for(lambda: bool(house.named(events.TOKEN_LOST)), PATIENCE)
        assert wait_for(lambda: house.sent("keeper-dead") is not None, PATIENCE)
        with Logins(house, postgres, "keeper-dead") as logins:
            assert wait_for(lambda: logins.good >= 20 or bool(logins.dead), PATIENCE)
        assert (logins.dead, logins.none) == ([], 0)
        assert len(house.named(events.LOGIN)) == 2


def test_a_lease_that_an_operator_revoked_is_replaced(
    bao: OpenBao, postgres: Postgres, tmp_path: Path
) -> None:
    """Its renewal finds it gone and a new one takes its place, with the same login."""
    bao.database(postgres, "keeper-lease", default_ttl="3s", max_ttl="1h")
    with house_of(bao, tmp_path, "keeper-lease") as house:
        assert wait_for(lambda: house.keeper.ready, PATIENCE)
        (issued,) = house.named(events.ISSUED)
        bao.client().sys.revoke_lease(issued.lease_id)
        assert wait_for(lambda: bool(house.named(events.LOST)), PATIENCE)
        assert wait_for(lambda: house.sent("keeper-lease") is not None, PATIENCE)
        assert len(house.named(events.LOGIN)) == 1


def test_stop_under_a_foreign_token_revokes_each_lease(
    bao: OpenBao, postgres: Postgres, tmp_path: Path
) -> None:
    """The database user goes, the token that is another program's stays."""
    bao.database(postgres, "keeper-file", default_ttl="1h", max_ttl="2h")
    bao.client().sys.create_or_update_policy("keeper-file", POLICY)
    made = bao.client().auth.token.create(ttl="10m", policies=["keeper-file"])["auth"]
    auth = TokenFile(write(tmp_path / "token", made["client_token"]))
    with House(bao, [database("keeper-file")], auth=auth) as house:
        assert wait_for(lambda: house.keeper.ready, PATIENCE)
        username = house.sent("keeper-file")
        assert house.keeper.stop(PATIENCE)
    assert wait_for(lambda: username not in postgres.users(), PATIENCE)
    assert bao.client().auth.token.lookup_accessor(made["accessor"])
