"""An engine at work against fake Vaults, the configurations it may get, and requests that go on."""

from __future__ import annotations

import base64
import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import FAST
from tests.patience import PATIENCE
from vaultauthz.config import Config, parse
from vaultauthz.config.changes import Changes
from vaultauthz.core.decision import Allowed
from vaultauthz.core.events import Event
from vaultauthz.core.pace import Pace
from vaultauthz.core.request import Request
from vaultauthz.engine import Engine

Settings = dict[str, Any]
NO_CREDENTIAL, NO_UPSTREAM, CALLER_DENIED = "no_credential", "no_upstream", "caller_denied"
LATER = Pace(drain=60.0, backoff_floor=0.05, backoff_cap=0.4)  # nothing is over by itself
KEY = [{"header": {"name": "X-Api-Key", "value": "{key}"}}]


def approle(secret_id: str = "s3cr3t-id") -> Settings:
    """A stage that logs in by AppRole."""
    return {"auth": {"method": "approle", "role_id": "gateway", "secret_id": secret_id}}


def database(name: str, **more: Any) -> Settings:
    """An upstream whose logins come from ``database/creds/NAME``."""
    login = {"basic": {"username": "{username}", "password": "{password}"}}
    path = {"path": f"database/creds/{name}"}
    return {"secret": path, "inject": [login], "callers": "any", **more}


def kv(name: str, **more: Any) -> Settings:
    """An upstream whose key is ``secret/NAME``; it is not read again within a test."""
    return {"secret": {"kv": f"secret/{name}"}, "inject": KEY, "callers": "any", **more}


def settings(vault: FakeVault, **upstreams: Settings) -> Settings:
    """A configuration with one stage; ``pay`` is from the database if nothing is said."""
    return {
        "vault": {"address": vault.address, "timeout": f"{PATIENCE:.0f}s"},
        "stages": {"production": approle()},
        "upstreams": upstreams or {"pay": database("pay")},
    }


def configured(document: Settings) -> Config:
    """The configuration as it would be read from a file."""
    return parse(yaml.safe_dump(document), "c.yaml", Path("/nowhere"), {})


class Running:
    """An engine, started by entering the context and closed by leaving it."""

    def __init__(self, document: Settings, pace: Pace = FAST) -> None:
        self.events: list[Event] = []
        self.engine = Engine(configured(document), [], [self.events.append], pace)

    def reload(self, document: Settings) -> Changes:
        """Take over another configuration."""
        return self.engine.reload(configured(document))

    def sent(self, upstream: str = "pay", stage: str = "", **request: Any) -> str:
        """What a request would carry now: the user or the key; otherwise why it is denied."""
        decision = self.engine.check(Request("test", upstream=upstream, stage=stage, **request))
        if not isinstance(decision, Allowed):
            return str.__str__(decision.reason)
        assert decision.credential
        ((_, value),) = decision.credential.mutation.headers
        if not value.startswith("Basic "):
            return value
        return base64.b64decode(value.removeprefix("Basic ")).decode().split(":")[0]

    def headers(self, upstream: str = "pay") -> tuple[tuple[str, str], ...]:
        """The headers that a request would get now."""
        decision = self.engine.check(Request("test", upstream=upstream))
        assert isinstance(decision, Allowed)
        assert decision.credential
        return decision.credential.mutation.headers

    def named(self, name: str, upstream: str | None = None) -> list[Event]:
        """The events of this name so far."""
        return [e for e in tuple(self.events) if e.name == name and upstream in (None, e.upstream)]

    def wait_ready(self) -> None:
        """Until every required upstream has had its credential."""
        assert wait_until(lambda: self.engine.ready), self.engine.keeper.rows()

    def settle(self) -> None:
        """Until nothing leaves any more: what was dropped has drained and is revoked."""
        assert wait_until(lambda: not self.leaving()), self.leaving()

    def leaving(self) -> list[str]:
        """What has been replaced or dropped and is not yet gone."""
        keeper = self.engine.keeper
        with keeper.lock:
            stages = [*keeper._stages.values(), *keeper._departing]
            runners = [runner for stage in stages for runner in (stage.login, *stage.leases)]
            old = [old.lease_id for runner in runners for old in runner.machine.retired]
            return [*old, *(stage.name for stage in keeper._departing)]

    def threads(self) -> list[str]:
        """The names of the keeper's threads that run."""
        return sorted(t.name for t in self.engine.keeper._threads if t.is_alive())

    def __enter__(self) -> Self:
        self.engine.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.engine.close(PATIENCE)


class Load:
    """Requests for an upstream without a pause, while the context lasts.

    ``denied`` are the reasons of those that got nothing, ``dead`` the users that were
    sent although no Vault had them any more, ``seen`` each user or key in order.
    """

    def __init__(self, running: Running, *vaults: FakeVault, upstream: str = "pay") -> None:
        self._running = running
        self._vaults = vaults
        self._upstream = upstream
        self._stop = threading.Event()
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.denied: list[str] = []
        self.dead: list[str] = []
        self.seen: list[str] = []

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            sent = self._running.sent(self._upstream)
            if sent in (NO_CREDENTIAL, NO_UPSTREAM, CALLER_DENIED):
                self.denied.append(sent)
            elif sent not in self.seen:
                self.seen.append(sent)
            if sent.startswith("v-") and not any(vault.is_alive(sent) for vault in self._vaults):
                self.dead.append(sent)
            self._began.set()

    def see(self, count: int) -> None:
        """Until so many different users or keys were sent."""
        assert wait_until(lambda: len(self.seen) >= count), self.seen

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._began.wait(PATIENCE)  # what is in use now is seen, however busy the machine is
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()


@contextlib.contextmanager
def fake() -> Iterator[FakeVault]:
    """A Vault with a role, two databases and two keys."""
    with FakeVault() as vault:
        vault.set_approle()
        for name in ("pay", "geo"):
            vault.set_creds(f"database/creds/{name}")
        for name in ("one", "two"):
            vault.put_kv(f"secret/{name}", {"key": f"{name}-1"})
        yield vault


def changed(document: Settings, change: Callable[[Settings], Any]) -> Settings:
    """A copy of ``document`` after ``change``."""
    new = copy.deepcopy(document)
    change(new)
    return new


def two_stages(vault: FakeVault) -> Settings:
    """``pay`` in production and staging."""
    document = settings(vault)
    return {**document, "stages": {"production": approle(), "staging": approle()}}
