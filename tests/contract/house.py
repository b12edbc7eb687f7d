"""A keeper at work against a fake Vault, and what a test wants to know of it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tests.contract.fake_vault import FakeVault
from tests.patience import PATIENCE
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.forms.basic import Basic
from vaultauthz.config.forms.header import Header
from vaultauthz.config.values import (
    KvSecret,
    PathSecret,
    SecretSource,
    Upstream,
    Vault,
)
from vaultauthz.core.callers import Callers
from vaultauthz.core.credential import Slot
from vaultauthz.core.events import Event
from vaultauthz.core.injection import Injection
from vaultauthz.core.pace import Pace
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template
from vaultauthz.leases.clock import boottime
from vaultauthz.leases.keeper import Keeper
from vaultauthz.vault.session import Session

STAGE = "production"
ROLE = AppRole("gateway", Secret("s3cr3t-id"))
FAST = Pace(drain=0.4, backoff_floor=0.05, backoff_cap=0.4, retry_after_cap=2.0)
LOGIN = Basic(Template.parse("{username}"), Template.parse("{password}"))
KEY = Header("x-api-key", Template.parse("{key}"))


def upstream(
    name: str,
    source: SecretSource,
    *,
    inject: Injection | None = None,
    optional: bool = False,
    stages: tuple[str, ...] = (STAGE,),
) -> Upstream:
    """An upstream that wants this secret in each of ``stages``."""
    place = inject or (KEY if isinstance(source, KvSecret) else LOGIN)
    secrets = dict.fromkeys(stages, source)
    return Upstream(name, stages, secrets, (place,), Callers(None), optional=optional)


def database(name: str, *, optional: bool = False) -> Upstream:
    """An upstream whose logins come from ``database/creds/NAME``."""
    return upstream(name, PathSecret(f"database/creds/{name}"), optional=optional)


def key(name: str, *, refresh: float = 0.1, max_stale: float = 60.0) -> Upstream:
    """An upstream whose key is ``secret/NAME`` in KV."""
    return upstream(name, KvSecret(f"secret/{name}", refresh, max_stale))


class HasAddress(Protocol):
    """A Vault, fake or real."""

    @property
    def address(self) -> str: ...


class House:
    """One keeper, by default with one stage; leave the context and it is stopped."""

    def __init__(
        self,
        vault: HasAddress,
        upstreams: Iterable[Upstream],
        *,
        auth: AuthMethod = ROLE,
        stages: Sequence[tuple[str, Session]] = (),
        pace: Pace = FAST,
        timeout: float = PATIENCE,
    ) -> None:
        self.events: list[Event] = []
        self.keeper = Keeper(self.events.append, pace)
        values = Vault(vault.address, timeout=timeout)
        for name, session in stages or [(STAGE, Session(values, auth, boottime))]:
            self.keeper.add_stage(name, session)
        self.slots: dict[tuple[str, str], Slot] = {
            (stage, each.name): self.keeper.add(stage, each)
            for each in upstreams
            for stage in each.stages
        }

    def slot(self, name: str, stage: str = STAGE) -> Slot:
        """Where a check would find the upstream's credential."""
        return self.slots[stage, name]

    def sent(self, name: str, stage: str = STAGE) -> str | None:
        """What a request would carry now: the username or the key; None for 503."""
        credential = self.slot(name, stage).credential
        if credential is None or not credential.usable(boottime()):
            return None
        ((_, value),) = credential.mutation.headers
        if not value.startswith("Basic "):
            return value
        return base64.b64decode(value.removeprefix("Basic ")).decode().split(":")[0]

    def named(self, name: str, upstream: str | None = None) -> list[Event]:
        """The events of this name so far."""
        return [e for e in tuple(self.events) if e.name == name and upstream in (None, e.upstream)]

    def alive(self) -> list[str]:
        """The names of the keeper's threads that run."""
        return [thread.name for thread in self.keeper._threads if thread.is_alive()]

    def __enter__(self) -> Self:
        self.keeper.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.keeper.stop(2.0)


class Traffic:
    """Requests without a pause while the context lasts, each looked at as a service would.

    ``dead`` is what was sent although Vault had ended it, ``none`` how often there was
    nothing to send, ``seen`` each upstream's usernames in order.
    """

    def __init__(self, house: House, vault: FakeVault, *names: str) -> None:
        self._house = house
        self._vault = vault
        self._names = names
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self.dead: list[str] = []
        self.none = 0
        self.count = 0
        self.seen: dict[str, list[str]] = {name: [] for name in names}

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            for name in self._names:
                self._request(name)

    def _request(self, name: str) -> None:
        username = self._house.sent(name)
        self.count += 1
        if username is None:
            self.none += 1
            return
        if not self._vault.is_alive(username):
            self.dead.append(username)
        if username not in self.seen[name]:
            self.seen[name].append(username)

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


def write(path: Path, text: str) -> Path:
    """Put a file in place at once, as an agent does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
    return path
