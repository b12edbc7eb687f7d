"""A Vault that counts wrong logins as Vault does, gateways that log in to it, and a clock that a test turns."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import inf
from pathlib import Path

from tests.contract.fake_http import FakeServer, Heard, Reply, Wire
from tests.contract.faults import wait_until
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.config.values import Vault
from vaultauthz.core.pace import Pace
from vaultauthz.leases.keeper import Keeper
from vaultauthz.vault.auth.tries import Tries
from vaultauthz.vault.session import Session

THRESHOLD, COUNTER_RESET = 5, 900.0  # Vault's defaults
LATE = 90.0  # seconds after which Vault gives up a directory that hangs
LIFE = 60  # seconds of a token, so that there is a login a minute


class Clock:
    """Of everybody: seconds since 1970. It stands still but for ``turn``."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Count:
    """Of one user, as ``failedUserLoginProcess`` keeps it."""

    wrong: int = 0
    last: float = -inf

    def add(self, at: float) -> None:
        self.wrong = self.wrong + 1 if at <= self.last + COUNTER_RESET else 1
        self.last = at


class Directory:
    """A Vault with users. ``broken``: the directory behind it takes nobody's password.

    ``hangs``: nor does it answer. The client is given no answer, and Vault counts a wrong try
    when it gives up itself; the test says by ``count_late`` that this time has come.
    ``hangs_each``: it hangs at each so manieth login.
    """

    def __init__(self, clock: Clock) -> None:
        self.server = FakeServer(self._respond)
        self.password = "s3cr3t w0rd"
        self.broken = self.hangs = False
        self.hangs_each = 0
        self.logins = 0
        self.most = 0  # wrong tries that Vault counted together
        self.held: threading.Event | None = None  # logins are not answered before
        self._clock = clock
        self._counts: dict[str, Count] = {}
        self._pending: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def _respond(self, heard: Heard, wire: Wire) -> None:
        reply = self._answer(heard, wire)
        if reply is None:
            wire.end()
        else:
            wire.send(b"".join(reply.encoded()))

    def _answer(self, heard: Heard, wire: Wire) -> Reply | None:
        if "/login" not in heard.path:
            return Reply(204) if heard.path.startswith("auth/token/") else Reply(200, {})
        with self._lock:
            self.logins += 1
        while self.held and not self.held.wait(0.02) and not wire.closing.is_set():
            pass
        with self._lock:
            if self.hangs or (self.hangs_each and self.logins % self.hangs_each == 0):
                self._pending.append((self._clock() + LATE, heard.path))
                return None
            secret = heard.body.get("password") or heard.body.get("secret_id")
            if self.broken or secret != self.password:
                self._wrong(heard.path, self._clock())
                return Reply(400, {"errors": ["invalid credentials"]})
            self._counts.pop(heard.path, None)
        auth = {"client_token": "s.t", "accessor": "a", "lease_duration": LIFE, "renewable": False}
        return Reply(200, {"auth": auth})

    def count_late(self) -> None:
        """What Vault has given up by now was a wrong try, of then."""
        with self._lock:
            for entry in sorted(self._pending):
                if entry[0] <= self._clock():
                    self._pending.remove(entry)
                    self._wrong(entry[1], entry[0])

    def _wrong(self, user: str, at: float) -> None:
        count = self._counts.setdefault(user, Count())
        count.add(at)
        self.most = max(self.most, count.wrong)


class Gateway:
    """Stages that log in as the same user; ``restart`` begins anew with what is on the disk."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        auth: AppRole | Ldap | UserPass,
        folder: Path,
        stages: int = 2,
    ) -> None:
        self._directory, self._clock, self._auth, self._folder = directory, clock, auth, folder
        self._names = [f"stage{number}" for number in range(stages)]
        self.keeper: Keeper | None = None

    def restart(self) -> None:
        """As after a crash, too: nothing is revoked."""
        self.stop()
        self.start()
        self.settle()

    def start(self) -> None:
        """With stages that have no login yet."""
        tries = Tries(lambda: self._folder, clock=self._clock)
        vault = Vault(self._directory.server.address, timeout=60.0)
        self.keeper = Keeper(lambda _: None, Pace(), self._clock)
        for name in self._names:
            self.keeper.add_stage(name, Session(vault, self._auth, self._clock, tries=tries))
        self.keeper.start()

    @property
    def logged_in(self) -> int:
        """How many stages are."""
        assert self.keeper
        return sum(stage.tokens.token is not None for stage in self.keeper._stages.values())

    @property
    def logging_in(self) -> int:
        """How many stages are about it."""
        assert self.keeper
        return sum(stage.calls.out.total() for stage in self.keeper._stages.values())

    def turn(self, seconds: float) -> None:
        """Let so much time pass, and everything be done that is due then."""
        self._clock.now += seconds
        self._directory.count_late()
        self.settle()

    def settle(self) -> None:
        """Wait until every stage waits for a later time."""
        assert self.keeper
        with self.keeper.lock:
            self.keeper._waker.wake(self._clock())
            self.keeper._look_round()
        assert wait_until(self._settled)

    def _settled(self) -> bool:
        assert self.keeper
        with self.keeper.lock:
            stages = self.keeper._stages.values()
            for stage in stages:
                if stage.calls.of_login and not stage.calls.out.total():
                    # Its pace is by the clock that stands still.
                    self._clock.now = max(
                        self._clock.now, min(stage.calls.flow.ready_at(), self._clock.now + 5.0)
                    )
                    stage.todo.notify_all()
            return all(
                not stage.login.calls and stage.login.machine.wake_at > self._clock()
                for stage in stages
            )

    def stop(self) -> None:
        if self.keeper:
            self.keeper.stop(0.0)
