"""Against a Vault that counts wrong logins as Vault does, in a hundredth of its time: never locked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

import pytest

from tests.contract.fake_http import FakeServer, Heard, Reply, Wire
from tests.contract.faults import wait_until
from tests.contract.house import FAST, STAGE, write
from vaultauthz.config.methods import Ldap, UserPass
from vaultauthz.config.values import Vault
from vaultauthz.leases.clock import boottime
from vaultauthz.leases.keeper import Keeper
from vaultauthz.vault.auth.tries import Bounds, Tries
from vaultauthz.vault.session import Session

SHARE = 1 / 300  # of Vault's times
THRESHOLD, RESET = 5, 900 * SHARE
# Quiet for longer than need be: a busy machine may count a try late.
SLOW = Bounds(quiet=2400 * SHARE, pause=240 * SHARE)


@dataclass
class Count:
    """Of one user, as ``failedUserLoginProcess`` keeps it."""

    wrong: int = 0
    last: float = -inf

    def add(self, at: float) -> None:
        self.wrong = self.wrong + 1 if at <= self.last + RESET else 1
        self.last = at


class Directory:
    """A Vault with users. ``broken``: the directory behind it takes nobody's password.

    ``hangs``: nor does it answer; Vault counts that as a wrong try, later.
    """

    def __init__(self) -> None:
        self.server = FakeServer(self._respond)
        self.password = "s3cr3t w0rd"
        self.broken = self.hangs = False
        self.counts: dict[str, Count] = {}
        self.logins: list[Heard] = []
        self.most = 0
        self.lock = threading.Lock()

    def _respond(self, heard: Heard, wire: Wire) -> None:
        reply = self._answer(heard, wire)
        if reply is not None:
            wire.send(b"".join(reply.encoded()))

    def _answer(self, heard: Heard, wire: Wire) -> Reply | None:
        if "/login/" not in heard.path:
            return Reply(204) if heard.path.startswith("auth/token/") else Reply(200, {})
        with self.lock:
            self.logins.append(heard)
        if self.hangs:
            wire.closing.wait(90 * SHARE)
            self._wrong(heard.path)
            wire.end()
            return None
        if self.broken or heard.body["password"] != self.password:
            self._wrong(heard.path)
            return Reply(400, {"errors": ["invalid credentials"]})
        with self.lock:
            self.counts.pop(heard.path, None)
        auth = {"client_token": "s.t", "accessor": "a", "lease_duration": 1, "renewable": False}
        return Reply(200, {"auth": auth})

    def _wrong(self, user: str) -> None:
        with self.lock:
            count = self.counts.setdefault(user, Count())
            count.add(time.monotonic())
            self.most = max(self.most, count.wrong)


@pytest.fixture
def directory() -> Iterator[Directory]:
    """One that works, with tokens of a second, so that there is a login each second."""
    found = Directory()
    found.server.start()
    yield found
    found.server.stop()


class Gateway:
    """Stages that log in as the same user; ``restart`` begins anew with what is on the disk."""

    def __init__(self, directory: Directory, auth: Ldap | UserPass, folder: Path) -> None:
        self._vault = Vault(directory.server.address, timeout=0.15)
        self._auth, self._folder = auth, folder
        self.keeper: Keeper | None = None

    def restart(self) -> None:
        self.stop()
        tries = Tries(lambda: self._folder, SLOW)
        self.keeper = Keeper(lambda _: None, FAST)
        for stage in (STAGE, "staging"):
            session = Session(self._vault, self._auth, boottime, tries=tries)
            self.keeper.add_stage(stage, session)
        self.keeper.start()

    @property
    def logged_in(self) -> bool:
        assert self.keeper
        return self.keeper._stages[STAGE].token is not None

    def stop(self) -> None:
        if self.keeper:
            self.keeper.stop(1.0)


@pytest.fixture(params=[Ldap, UserPass])
def gateway(
    request: pytest.FixtureRequest, directory: Directory, tmp_path: Path
) -> Iterator[Gateway]:
    """With two stages that share the user, logged in."""
    file = write(tmp_path / "password", directory.password)
    (tmp_path / "records").mkdir(mode=0o700)
    found = Gateway(directory, request.param("mary", file), tmp_path / "records")
    found.restart()
    assert wait_until(lambda: found.logged_in)
    yield found
    found.stop()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_directory_that_is_broken_for_long_does_not_lock_the_user(
    directory: Directory, gateway: Gateway, *, hangs: bool
) -> None:
    """It is tried again and again, never five times in a row, and works when it is mended."""
    directory.hangs, directory.broken = hangs, not hangs
    before = len(directory.logins)
    assert wait_until(lambda: len(directory.logins) >= before + 4, 60)
    assert directory.most < THRESHOLD
    directory.hangs = directory.broken = False
    after = len(directory.logins)
    assert wait_until(lambda: len(directory.logins) > after and gateway.logged_in, 60)


def test_restarts_while_the_directory_is_broken_do_not_lock_the_user(
    directory: Directory, gateway: Gateway
) -> None:
    """Twelve of them, each of which would be a try; the password is still known to have worked."""
    directory.broken = True
    for _ in range(12):
        gateway.restart()
        time.sleep(0.1)
    assert directory.most < THRESHOLD
    directory.broken = False
    assert wait_until(lambda: gateway.logged_in, 60)


def test_a_password_that_was_changed_is_tried_when_the_file_is(
    directory: Directory, gateway: Gateway, tmp_path: Path
) -> None:
    """At once, though the old one has used up its tries; wrong ones one after the other do not lock."""
    directory.password = "an0ther"
    assert wait_until(lambda: directory.most >= 2, 60)
    for number in range(6):
        write(tmp_path / "password", f"wr0ng-{number}")
        time.sleep(1.1)  # it is looked at each second
    assert directory.most < THRESHOLD
    write(tmp_path / "password", "an0ther")
    assert wait_until(lambda: gateway.logged_in, 60)
