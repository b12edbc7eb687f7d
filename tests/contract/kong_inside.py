"""Our plugin server in threads of the test, over a gate whose decisions the test makes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.contract.kong import Server as ServerCommands
from vaultauthz.broker import Binding, BindingTable
from vaultauthz.config.values import Config, Vault
from vaultauthz.core.callers import Callers
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.decision import Allowed, Decision
from vaultauthz.core.injection import Mutation
from vaultauthz.core.request import Request
from vaultauthz.core.routing import Routes
from vaultauthz.kong.gate import Gate
from vaultauthz.kong.log_phase import LogPhase
from vaultauthz.kong.ownership import Ownership
from vaultauthz.kong.server import PluginServer
from vaultauthz.leases.later import Later

Check = Callable[[Request], Decision | Later[Decision]]


def allowed(name: str, *, stage: str = "prod", **mutation: Any) -> Allowed:
    """A credential that sets ``authorization`` to ``Bearer NAME``."""
    headers = {"headers": (("authorization", f"Bearer {name}"),), **mutation}
    return Allowed(name, stage, Credential(Mutation(**headers), f"c-{name}", "lease", 9e9))


class Nobody:
    """Hears of upstreams' answers, and keeps them."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int]] = []
        self.rejections: list[tuple[str, str, str]] = []
        self.trials: list[tuple[str, str, str, int]] = []

    def answered(self, stage: str, upstream: str, status: int) -> None:
        """See ``LogPhase``."""
        self.heard.append((stage, upstream, status))

    def rejected(self, upstream: str, stage: str, credential_id: str) -> None:
        """See ``LogPhase``."""
        self.rejections.append((upstream, stage, credential_id))

    def tried(self, stage: str, upstream: str, credential_id: str, status: int) -> None:
        """See ``LogPhase``."""
        self.trials.append((stage, upstream, credential_id, status))


def nobody() -> LogPhase:
    """Follows requests, and tells nobody."""
    hears = Nobody()
    return LogPhase(hears.answered, hears.rejected, hears.tried)


class Inside:
    """The server; ``commands`` is what a Kong is told of it. A context manager."""

    def __init__(self, folder: Path, check: Check, **options: Any) -> None:
        self.hears = Nobody()
        self.log_phase = LogPhase(self.hears.answered, self.hears.rejected, self.hears.tried)
        self.ownership = Ownership(folder / "k.sock")
        bindings = [Binding(name, "prod", Callers(None), Slot()) for name in ("pay", "geo")]
        table, config = (
            BindingTable(bindings, Routes()),
            Config(Vault("http://127.0.0.1:1"), {}, {}),
        )
        self.gate = Gate(check, lambda: table, lambda: config, self.log_phase)
        ready = options.pop("ready", lambda: True)
        self.server = PluginServer(self.ownership, self.gate, ready, **options)
        dump = shlex.join([sys.executable, "-m", "vaultauthz", "kong", "dump"])
        self.commands = ServerCommands(self.ownership.path, dump)

    def __enter__(self) -> Self:
        self.ownership.take(0)
        self.log_phase.start()
        self.server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.stop(1.0)
        self.log_phase.stop()
        self.ownership.release()
