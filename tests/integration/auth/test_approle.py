"""AppRole against a real OpenBao."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.contract.house import write
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.values import KvSecret
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.errors import VaultError

from .auth_bao import AuthBao, failure_of

pytestmark = pytest.mark.integration

NUMBERS = itertools.count(1)


class Role:
    """An AppRole of its own, and the secret_ids that are issued for it."""

    def __init__(self, vault: AuthBao, **params: Any) -> None:
        vault.enable_auth("approle")
        self.name = f"approle-{next(NUMBERS)}"
        self._vault = vault
        vault.write(f"auth/approle/role/{self.name}", token_ttl="10m", **params)
        answer = vault.client().read(f"auth/approle/role/{self.name}/role-id")
        self.role_id = str(answer["data"]["role_id"])

    def secret_id(self, **params: Any) -> Secret:
        path = f"auth/approle/role/{self.name}/secret-id"
        return Secret(self._vault.write(path, **params)["secret_id"])


def test_ids_are_values_or_come_from_files(vault: AuthBao, tmp_path: Path) -> None:
    """Each of the two, given either way; the files are read anew at each login."""
    role, other = Role(vault), Role(vault)
    secret_id = role.secret_id()
    role_file = write(tmp_path / "role_id", role.role_id + "\n")
    secret_file = write(tmp_path / "secret_id", secret_id.reveal() + "\n")
    for auth in (
        AppRole(role.role_id, secret_id),
        AppRole(role.role_id, secret_id_file=secret_file),
        AppRole(secret_id=secret_id, role_id_file=role_file),
        AppRole(role_id_file=role_file, secret_id_file=secret_file),
    ):
        grant = vault.session(auth).login()
        assert (grant.ttl, grant.renewable) == (600.0, True)
    write(role_file, other.role_id)
    session = vault.session(AppRole(role_id_file=role_file, secret_id_file=secret_file))
    assert failure_of(session, secret_id).failure.verdict is Verdict.LOCKED
    write(secret_file, other.secret_id().reveal())
    session.login()


def test_another_mount_has_roles_of_its_own(vault: AuthBao) -> None:
    """``mount`` is where the role is looked for."""
    vault.enable_auth("approle", "gateways/eu")
    vault.write(
        "auth/gateways/eu/role/gateway", bind_secret_id=False, token_bound_cidrs="127.0.0.1"
    )
    answer = vault.client().read("auth/gateways/eu/role/gateway/role-id")
    role_id = answer["data"]["role_id"]
    assert vault.session(AppRole(role_id, mount="gateways/eu")).login().lease_id
    assert failure_of(vault.session(AppRole(role_id))).failure.verdict is Verdict.LOCKED


def test_every_refused_id_is_locked(vault: AuthBao) -> None:
    """OpenBao answers 400 to each of these, and none is tried again by itself."""
    role = Role(vault)
    used = role.secret_id(num_uses=1)
    vault.session(AppRole(role.role_id, used)).login()
    elsewhere = role.secret_id(cidr_list=["10.0.0.0/8"])
    bound = Role(vault, secret_id_bound_cidrs=["10.0.0.0/8"])
    for auth in (
        AppRole(role.role_id, used),
        AppRole(role.role_id, elsewhere),
        AppRole(bound.role_id, bound.secret_id()),
        AppRole(role.role_id),
        AppRole("no-such-role", Secret("no-such-secret-id")),
    ):
        error = failure_of(vault.session(auth), auth.secret_id or "no secret_id to tell")
        assert (error.failure.verdict, error.status) == (Verdict.LOCKED, 400)


def test_who_failed_too_often_is_told_so(vault: AuthBao) -> None:
    """From the sixth on OpenBao refuses the right secret_id too: that passes, and says why."""
    role = Role(vault)
    wrong, right = AppRole(role.role_id, Secret("wrong")), AppRole(role.role_id, role.secret_id())
    statuses = [failure_of(vault.elsewhere(wrong)).status for _ in range(6)]
    assert (statuses[0], statuses[-1]) == (400, 403)
    error = failure_of(vault.session(right))
    assert (error.failure.verdict, error.status) == (Verdict.REFUSED, 403)
    assert "locked out" in error.failure.reason


def test_a_token_that_is_bound_elsewhere_fails_at_its_first_use(vault: AuthBao) -> None:
    """OpenBao gives it, and then denies it whatever it asks, as it does a dead one."""
    role = Role(vault, token_bound_cidrs=["10.0.0.0/8"])
    session = vault.session(AppRole(role.role_id, role.secret_id()))
    grant = session.login()
    with pytest.raises(VaultError) as caught:
        session.fetch(grant.payload, grant.login, KvSecret("secret/anything"))
    assert caught.value.failure.verdict is Verdict.TOKEN_DEAD
