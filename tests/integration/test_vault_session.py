"""A session's calls against a real OpenBao: what the fake pretends is what the real one does."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.patience import PATIENCE
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.values import KvSecret, PathSecret, Vault
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

POLICY = """
path "database/creds/session*" { capabilities = ["read"] }
path "secret/data/session/*" { capabilities = ["read"] }
path "old/session/*" { capabilities = ["read"] }
path "old/data/session/*" { capabilities = ["read"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""
NUMBERS = itertools.count(1)


class Client:
    """A session with a login of its own and the token at hand."""

    def __init__(self, bao: OpenBao, **ttls: str) -> None:
        role_id, secret_id = bao.enable_approle(f"session-{next(NUMBERS)}", POLICY, **ttls)
        self.auth: AuthMethod = AppRole(role_id, Secret(secret_id))
        self.session = Session(Vault(bao.address), self.auth, boottime)
        self.grant = self.session.login()
        self.token: Secret = self.grant.payload

    def fetch(self, source: PathSecret | KvSecret) -> Grant:
        return self.session.fetch(self.token, self.grant.login, source)


def failure_of(call: Callable[[], object]) -> VaultError:
    """The VaultError that the call must raise."""
    with pytest.raises(VaultError) as caught:
        call()
    return caught.value


def opens(postgres: Postgres, grant: Grant) -> bool:
    """Whether PostgreSQL lets this login in."""
    try:
        username, password = (grant.payload[n].reveal() for n in ("username", "password"))
        postgres.connect(username, password).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_database_login_is_fetched_renewed_and_revoked(bao: OpenBao, postgres: Postgres) -> None:
    """The whole life of a lease, as PostgreSQL sees it."""
    path = bao.database(postgres, "session-pay", default_ttl="30s", max_ttl="60s")
    client = Client(bao, token_ttl="10m")
    assert (client.grant.ttl, client.grant.renewable) == (600.0, True)
    lease = client.fetch(PathSecret(path))
    assert (lease.ttl, lease.renewable) == (30.0, True)
    assert lease.lease_id.startswith(f"{path}/")
    assert opens(postgres, lease)
    renewal = client.session.renew(client.token, lease.lease_id, 40)
    assert (renewal.ttl, renewal.renewable) == (40.0, True)
    client.session.revoke(client.token, lease.lease_id)
    assert wait_for(lambda: not opens(postgres, lease), PATIENCE)
    gone = failure_of(lambda: client.session.renew(client.token, lease.lease_id, 30))
    assert gone.failure.verdict is Verdict.LEASE_GONE


def test_near_its_max_ttl_a_lease_gets_less_and_then_nothing(
    bao: OpenBao, postgres: Postgres
) -> None:
    """A renewal is cut to what the max TTL leaves, and refused after that for good."""
    path = bao.database(postgres, "session-brief", default_ttl="3s", max_ttl="4s")
    client = Client(bao)
    lease = client.fetch(PathSecret(path))
    time.sleep(2.1)
    assert client.session.renew(client.token, lease.lease_id, 3).ttl < 3.0
    assert wait_for(lambda: not opens(postgres, lease), PATIENCE)
    gone = failure_of(lambda: client.session.renew(client.token, lease.lease_id, 3))
    assert gone.failure.verdict in (Verdict.LEASE_GONE, Verdict.REFUSED)


def test_a_revoked_token_takes_its_leases_along(bao: OpenBao, postgres: Postgres) -> None:
    """Renewed, then revoked: its database user goes, and a further call finds it dead."""
    path = bao.database(postgres, "session-token", default_ttl="1h", max_ttl="2h")
    client = Client(bao, token_ttl="10m", token_max_ttl="15m")
    lease = client.fetch(PathSecret(path))
    assert client.session.renew_token(client.token, 1200).ttl <= 900.0
    client.session.revoke_token(client.token)
    assert wait_for(lambda: not opens(postgres, lease), PATIENCE)
    dead = failure_of(lambda: client.fetch(PathSecret(path)))
    assert (dead.failure.verdict, dead.status) == (Verdict.TOKEN_DEAD, 403)
    renew = failure_of(lambda: client.session.renew_token(client.token, 60))
    assert renew.failure.verdict is Verdict.TOKEN_DEAD


def test_a_policy_that_says_no_is_told_from_a_dead_token(bao: OpenBao) -> None:
    """403 for a path outside the policy, an engine that is not there, a KV path not ours."""
    client = Client(bao)
    bao.enable_engine("secret", "kv-v2")
    for source in (
        PathSecret("database/creds/other"),
        PathSecret("no-engine/creds/x"),
        KvSecret("secret/other"),
        KvSecret("no-engine/other"),
    ):
        error = failure_of(lambda source=source: client.fetch(source))  # type: ignore[misc]
        assert (error.failure.verdict, error.status) == (Verdict.REFUSED, 403)


def test_an_unknown_database_role_is_refused(bao: OpenBao, postgres: Postgres) -> None:
    """A role that is not there is no secret that was deleted."""
    bao.database(postgres, "session-known", default_ttl="30s", max_ttl="60s")
    error = failure_of(lambda: Client(bao).fetch(PathSecret("database/creds/session-unknown")))
    assert error.failure.verdict is Verdict.REFUSED


def test_a_database_that_is_down_passes(tmp_path: Path, bao: OpenBao) -> None:
    """Issuing and renewing fail with a verdict that is tried again."""
    with Postgres(tmp_path) as own:
        path = bao.database(own, "session-down", default_ttl="30s", max_ttl="60s")
        client = Client(bao)
        client.fetch(PathSecret(path))
        lease = client.fetch(PathSecret(path))
        own.stop()
        issue = failure_of(lambda: client.fetch(PathSecret(path)))
        renew = failure_of(lambda: client.session.renew(client.token, lease.lease_id, 30))
        own.start()
        assert client.fetch(PathSecret(path)).lease_id
    assert issue.failure.verdict is Verdict.RETRY
    assert renew.failure.verdict is Verdict.RETRY


def test_kv_version_2_has_editions_that_can_be_deleted(bao: OpenBao) -> None:
    """Written, written again, deleted, undeleted, destroyed, and never there."""
    source = KvSecret("secret/session/a")
    bao.put_kv(source.path, {"key": "k-1", "port": 1})
    client = Client(bao)
    first = client.fetch(source)
    bao.put_kv(source.path, {"key": "k-2"})
    second = client.fetch(source)
    assert [first.version.number, second.version.number] == [1, 2]
    assert first.version.older_than(second.version)
    assert second.payload["key"].reveal() == "k-2"
    kv = bao.client().secrets.kv.v2
    kv.delete_latest_version_of_secret("session/a", mount_point="secret")
    assert failure_of(lambda: client.fetch(source)).failure.verdict is Verdict.SECRET_GONE
    kv.undelete_secret_versions("session/a", [2], mount_point="secret")
    assert client.fetch(source).version.number == 2
    kv.destroy_secret_versions("session/a", [2], mount_point="secret")
    assert failure_of(lambda: client.fetch(source)).failure.verdict is Verdict.SECRET_GONE
    never = failure_of(lambda: client.fetch(KvSecret("secret/session/never")))
    assert never.failure.verdict is Verdict.SECRET_GONE


def test_a_kv_secret_with_an_end_is_read_until_then(bao: OpenBao) -> None:
    """delete_version_after gives a living version a deletion_time; it counts only once over."""
    source = KvSecret("secret/session/brief")
    bao.put_kv(source.path, {"key": "x"})
    kv: Any = bao.client().secrets.kv.v2
    kv.update_metadata("session/brief", delete_version_after="2s", mount_point="secret")
    bao.put_kv(source.path, {"key": "y"})
    client = Client(bao)
    assert client.fetch(source).payload["key"].reveal() == "y"
    time.sleep(2.2)
    assert failure_of(lambda: client.fetch(source)).failure.verdict is Verdict.SECRET_GONE


def test_kv_version_1_is_read_and_noticed_when_it_is_upgraded(bao: OpenBao) -> None:
    """The engine's version is found out, and found out again after an upgrade."""
    admin = bao.client()
    if bao.enable_engine("old", "kv-v1"):
        admin.write_data("old/session/a", data={"key": "one"})
    client, source = Client(bao), KvSecret("old/session/a")
    grant = client.fetch(source)
    assert (grant.payload["key"].reveal(), grant.version.number) == ("one", 0)
    absent = failure_of(lambda: client.fetch(KvSecret("old/session/b")))
    assert absent.failure.verdict is Verdict.SECRET_GONE
    assert not grant.lease_id
    admin.sys.tune_mount_configuration("old", options={"version": "2"})

    def version() -> int:
        try:
            return client.fetch(source).version.number
        except VaultError:
            return 0

    assert wait_for(lambda: version() == 1, PATIENCE)


def test_a_wrong_secret_id_is_locked(bao: OpenBao) -> None:
    """OpenBao answers 400, which is not tried again; so for a role that is not there."""
    client = Client(bao)
    assert isinstance(client.auth, AppRole)
    for auth in (AppRole(client.auth.role_id, Secret("wrong")), AppRole("no-role", Secret("x"))):
        session = Session(Vault(bao.address), auth, boottime)
        assert failure_of(session.login).failure.verdict is Verdict.LOCKED


def test_an_auth_mount_that_is_not_there_is_refused(bao: OpenBao) -> None:
    """No retry storm and no lock: somebody must change the configuration."""
    auth = AppRole("role", Secret("x"), mount="no-mount")
    error = failure_of(Session(Vault(bao.address), auth, boottime).login)
    assert error.failure.verdict is Verdict.REFUSED


def test_a_role_without_a_secret_id_logs_in(bao: OpenBao) -> None:
    """A role with bind_secret_id=false takes the role_id alone."""
    Client(bao)
    admin = bao.client()
    admin.auth.approle.create_or_update_approle(
        "session-bare", bind_secret_id=False, token_bound_cidrs=["127.0.0.1/32"]
    )
    role_id = admin.auth.approle.read_role_id("session-bare")["data"]["role_id"]
    assert Session(Vault(bao.address), AppRole(role_id), boottime).login().lease_id


def test_batch_tokens_are_told_apart(bao: OpenBao) -> None:
    """They have no accessor and cannot be renewed; each login is still one of its own."""
    client = Client(bao)
    assert isinstance(client.auth, AppRole)
    bao.client().auth.approle.create_or_update_approle(
        "session-batch", token_type="batch", token_ttl="60s"
    )
    admin = bao.client().auth.approle
    role_id = admin.read_role_id("session-batch")["data"]["role_id"]
    secret_id = admin.generate_secret_id("session-batch")["data"]["secret_id"]
    session = Session(Vault(bao.address), AppRole(role_id, Secret(secret_id)), boottime)
    first, second = session.login(), session.login()
    assert (first.ttl, first.renewable) == (60.0, False)
    assert first.lease_id != second.lease_id


def test_a_token_file_is_looked_up(bao: OpenBao, tmp_path: Path) -> None:
    """A token with an end is taken, the root token wants leave, a dead one is refused."""
    path = tmp_path / "token"
    admin = bao.client()
    made = admin.auth.token.create(ttl="10m", policies=["default"])["auth"]
    path.write_text(made["client_token"])
    session = Session(Vault(bao.address), TokenFile(path), boottime)
    grant = session.login()
    assert 590.0 <= grant.ttl <= 600.0
    assert (grant.lease_id, grant.renewable) == (made["accessor"], False)
    admin.auth.token.revoke_accessor(made["accessor"])
    assert failure_of(session.login).failure.verdict is Verdict.REFUSED
    path.write_text(bao.root_token)
    assert failure_of(session.login).failure.verdict is Verdict.REFUSED
    lasting = TokenFile(path, allow_long_lived=True)
    assert Session(Vault(bao.address), lasting, boottime).login().ttl == inf


def test_a_sealed_or_stopped_vault_passes(tmp_path: Path) -> None:
    """503 and a refused connection are tried again; unsealed, the same token works."""
    with OpenBao(tmp_path) as own:
        own.put_kv("secret/session/a", {"key": "x"})
        client = Client(own)
        source = KvSecret("secret/session/a")
        client.fetch(source)
        own.seal()
        sealed = failure_of(lambda: client.fetch(source))
        assert (sealed.failure.verdict, sealed.status) == (Verdict.RETRY, 503)
        own.unseal()
        client.fetch(source)
        own.stop()
        assert failure_of(lambda: client.fetch(source)).failure.verdict is Verdict.RETRY
        own.start()
        client.fetch(source)


def test_vaults_audit_log_has_our_calls(bao: OpenBao) -> None:
    """The request_id of a grant is that of the audit entry, which holds our correlation id."""
    bao.put_kv("secret/session/audited", {"key": "x"})
    grant = Client(bao).fetch(KvSecret("secret/session/audited"))
    requests = [entry["request"] for entry in bao.audit_entries()]
    (ours, _) = [request for request in requests if request.get("id") == grant.request_id]
    (correlation,) = ours["headers"]["x-correlation-id"]
    assert len(correlation) == 32
