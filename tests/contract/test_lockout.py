"""Against a Vault that counts wrong logins as Vault does, by a clock that is turned: never locked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.faults import wait_until
from tests.contract.house import write
from tests.contract.lockout_bed import THRESHOLD, Clock, Directory, Gateway
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.config.values import Vault
from vaultauthz.core.secret import Secret
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.auth.tries import Bounds, Tries
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

STEP = 30.0
HOUR = int(3600 / STEP)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(clock: Clock) -> Iterator[Directory]:
    found = Directory(clock)
    found.server.start()
    yield found
    found.server.stop()


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "records"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(params=[Ldap, UserPass])
def gateway(
    request: pytest.FixtureRequest,
    directory: Directory,
    clock: Clock,
    tmp_path: Path,
    records: Path,
) -> Iterator[Gateway]:
    """With two stages that share the user, logged in."""
    file = write(tmp_path / "password", directory.password)
    found = Gateway(directory, clock, request.param("mary", file), records)
    found.restart()
    assert found.logged_in == 2
    yield found
    found.stop()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_directory_that_is_broken_for_long_does_not_lock_the_user(
    directory: Directory, gateway: Gateway, *, hangs: bool
) -> None:
    """It is tried again and again, never five times in a row, and works when it is mended."""
    directory.hangs, directory.broken = hangs, not hangs
    before = directory.logins
    for _ in range(2 * HOUR):
        gateway.turn(STEP)
    assert 2 <= directory.most < THRESHOLD
    assert directory.logins - before >= 10
    directory.hangs = directory.broken = False
    for _ in range(HOUR // 2):
        gateway.turn(STEP)
    assert gateway.logged_in == 2


def test_a_directory_that_hangs_now_and_then_does_not_lock_the_user(
    directory: Directory, gateway: Gateway
) -> None:
    """A login that works makes up for none that Vault is still to find wrong."""
    directory.hangs_each = 2
    for _ in range(HOUR):
        gateway.turn(7.0)
    assert 1 <= directory.most < THRESHOLD
    directory.hangs_each, directory.broken = 0, True
    for _ in range(HOUR):
        gateway.turn(7.0)
    assert directory.most < THRESHOLD


def test_restarts_while_the_directory_is_broken_do_not_lock_the_user(
    directory: Directory, gateway: Gateway
) -> None:
    """Each of which would be a try; the password is still known to have worked."""
    directory.broken = True
    for _ in range(30):
        gateway.restart()
        gateway.turn(STEP)
    assert directory.most < THRESHOLD
    directory.broken = False
    for _ in range(HOUR // 2):
        gateway.turn(STEP)
    assert gateway.logged_in == 2


def test_a_password_that_was_changed_is_tried_when_the_file_is(
    directory: Directory, gateway: Gateway, tmp_path: Path
) -> None:
    """At once, though the old one has used up its tries; wrong ones one after the other do not lock."""
    directory.password = "an0ther"
    for _ in range(HOUR // 6):
        gateway.turn(STEP)
    assert directory.most == Bounds().same
    write(tmp_path / "password", "an0ther")
    gateway.turn(2.0)
    assert gateway.logged_in
    directory.password = "a third"
    for number in range(20):
        write(tmp_path / "password", f"wr0ng-{number}")
        gateway.turn(STEP)
    assert directory.most < THRESHOLD
    write(tmp_path / "password", "a third")
    for _ in range(HOUR // 2):
        gateway.turn(STEP)
    assert gateway.logged_in == 2


@pytest.mark.parametrize("kind", ["approle", "userpass"])
def test_stages_that_start_together_do_not_wait_for_one_another_for_long(
    directory: Directory, clock: Clock, tmp_path: Path, records: Path, kind: str
) -> None:
    """The first is out when the others are to log in: it is no wrong try before Vault says so."""
    file = write(tmp_path / "password", directory.password)
    auth = (
        UserPass("mary", file) if kind == "userpass" else AppRole("r", Secret(directory.password))
    )
    directory.held = threading.Event()
    gateway = Gateway(directory, clock, auth, records, stages=6)
    gateway.start()
    assert wait_until(lambda: directory.logins >= 1 and gateway.logging_in == 6)
    directory.held.set()
    gateway.settle()
    assert gateway.logged_in == 6
    assert clock.now < Clock().now + Bounds().pause / 10
    gateway.stop()


def test_logins_that_time_out_after_they_were_sent_are_wrong_tries(
    directory: Directory, clock: Clock, tmp_path: Path, records: Path
) -> None:
    """Twelve, each after the one before was given up: two are sent, the third waits."""
    file = write(tmp_path / "password", directory.password)
    directory.held = threading.Event()
    vault = Vault(directory.server.address, timeout=0.5)
    tries = Tries(lambda: records, clock=clock)
    session = Session(vault, Ldap("mary", file), boottime, tries=tries)
    for _ in range(12):
        with pytest.raises(VaultError):
            session.login()
        clock.now += 1.0
    assert wait_until(lambda: directory.logins >= 1)
    assert directory.logins <= 2
    directory.held.set()
