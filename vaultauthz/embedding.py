"""The library's front door, for a program that is its own gateway."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from vaultauthz.config import load
from vaultauthz.core.decision import Allowed, Decision
from vaultauthz.core.events import Event
from vaultauthz.core.request import Request
from vaultauthz.engine import Engine
from vaultauthz.observe.audit_log import AuditLog

_POLL = 0.01  # seconds


class OpenBroker:
    """Keeps the leases of a configuration and answers checks until ``close``.

    Made by ``open_broker``; also a context manager.
    """

    def __init__(self, config: Path, listener: Callable[[Event], None] | None) -> None:
        settings = load(config, os.environ)
        self.warnings = settings.warnings  # what the configuration should be told about
        self._audit = AuditLog(settings.audit)
        listeners = [self._audit.record_event, *([listener] if listener else [])]
        self._engine = Engine(settings, [self._audit.record_check], listeners)
        self._engine.start()

    @property
    def ready(self) -> bool:
        """Whether every upstream that is not ``optional`` has a credential for a request of now."""
        return self._engine.ready

    def wait_ready(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for ``ready``; what it then is."""
        until = time.monotonic() + timeout
        while not self.ready and time.monotonic() < until:
            time.sleep(_POLL)
        return self.ready

    def check(self, request: Request) -> Decision:
        """Whether the request may go on, and with which credential.

        Safe for threads; takes microseconds and never calls Vault.
        """
        return self._engine.check(request)

    def rejected(self, decision: Decision) -> None:
        """The upstream answered 401 to what this decision gave: ask for a replacement.

        At most one for each upstream in 30 seconds comes of it, and none when the
        credential has been replaced meanwhile.
        """
        if isinstance(decision, Allowed) and decision.credential:
            self._engine.rejected(decision.upstream, decision.stage, decision.credential)

    def close(self, timeout: float = 5.0) -> bool:
        """Revoke what was leased; True when all of it was, within ``timeout`` seconds."""
        revoked = self._engine.close(timeout)
        self._audit.close(timeout=1.0)
        return revoked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_broker(
    config: str | os.PathLike[str], listener: Callable[[Event], None] | None = None
) -> OpenBroker:
    """Log in and hold the leases that the configuration file asks for.

    Returns at once; the credentials arrive in the background. ``listener`` hears of
    every event: it must be quick and must not call the broker.

    Raises:
        ConfigError: the file is not usable; its text says where and why.
        AuditError: the audit log cannot be written.
    """
    return OpenBroker(Path(config), listener)
