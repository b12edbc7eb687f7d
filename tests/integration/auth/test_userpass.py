"""Logins by user name and password against a real OpenBao."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.contract.house import write
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.core.grant import Verdict

from .auth_bao import AuthBao, failure_of

pytestmark = pytest.mark.integration

NUMBERS = itertools.count(1)
PASSWORD = "s3cr3t w0rd"


def user(vault: AuthBao, **params: Any) -> str:
    """A new user with that password; its name."""
    vault.enable_auth("userpass")
    name = f"user-{next(NUMBERS)}"
    vault.write(f"auth/userpass/users/{name}", password=PASSWORD, token_ttl="10m", **params)
    return name


def test_the_password_of_now_is_used(vault: AuthBao, tmp_path: Path) -> None:
    """It is read at each login, so that it can be changed in both places without a restart."""
    name, file = user(vault), write(tmp_path / "password", PASSWORD + "\n")
    session = vault.session(UserPass(name, file))
    grant = session.login()
    assert (grant.ttl, grant.renewable) == (600.0, True)
    vault.write(f"auth/userpass/users/{name}/password", password="n3w w0rd")
    assert failure_of(session, PASSWORD).failure.verdict is Verdict.LOCKED
    write(file, "n3w w0rd")
    session.login()


def test_a_wrong_name_or_password_is_locked(vault: AuthBao, tmp_path: Path) -> None:
    """400, which is not tried again by itself: some of them lock the user for everybody."""
    name, file = user(vault), write(tmp_path / "password", "wrong-word")
    for auth in (UserPass(name, file), UserPass("no-such-user", file)):
        error = failure_of(vault.session(auth), "wrong-word")
        assert (error.status, error.failure.verdict) == (400, Verdict.LOCKED)


def test_a_locked_user_is_told_so_and_tried_again(vault: AuthBao, tmp_path: Path) -> None:
    """After too many failures OpenBao says 403 to the right password too, for a while."""
    name, file = user(vault), write(tmp_path / "password", "wrong-word")
    statuses = [failure_of(vault.elsewhere(UserPass(name, file))).status for _ in range(6)]
    assert (statuses[0], statuses[-1]) == (400, 403)
    write(file, PASSWORD)
    error = failure_of(vault.session(UserPass(name, file)), PASSWORD)
    assert (error.status, error.failure.verdict) == (403, Verdict.REFUSED)
    assert "locked out" in error.failure.reason


def test_we_alone_lock_nobody(vault: AuthBao, tmp_path: Path) -> None:
    """Ten passwords one after the other, in as many starts: the user is let in elsewhere."""
    name, file = user(vault), tmp_path / "password"
    statuses = []
    for number in range(10):
        write(file, f"wr0ng-{number}")
        statuses.append(failure_of(vault.session(UserPass(name, file))).status)
    assert statuses == [400] * 4 + [0] * 6
    write(file, PASSWORD)
    vault.elsewhere(UserPass(name, file)).login()


def test_an_address_that_may_not_is_refused(vault: AuthBao, tmp_path: Path) -> None:
    """403 at the login itself."""
    name = user(vault, token_bound_cidrs=["10.0.0.0/8"])
    file = write(tmp_path / "password", PASSWORD)
    error = failure_of(vault.session(UserPass(name, file)), PASSWORD)
    assert (error.status, error.failure.verdict) == (403, Verdict.REFUSED)


def test_a_file_that_is_not_there_yet_is_waited_for(vault: AuthBao, tmp_path: Path) -> None:
    """An agent may be about to write it."""
    name, file = user(vault), tmp_path / "password"
    session = vault.session(UserPass(name, file))
    error = failure_of(session)
    assert (error.status, error.failure.verdict) == (0, Verdict.RETRY)
    assert str(file) in error.detail
    write(file, PASSWORD)
    session.login()
