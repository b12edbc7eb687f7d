"""What a server that runs does for the next one, which takes over from it."""

from __future__ import annotations

import contextlib
import logging
import os
from socket import socket
from typing import Final

from vaultauthz.observe.handing_over import END
from vaultauthz.observe.record import Entry
from vaultauthz.observe.sink import AuditError
from vaultauthz.service import FINISH_REQUESTS, Service
from vaultauthz.takeover import Running, audit_of

log = logging.getLogger(__name__)

OPEN: Final = 1.0  # seconds for the audit log from one server to the next
# The kernel steers a port's connections to the last of its listeners by number. When one of three ends, the numbers
# are others, and one that leaves would get some: in plaintext it sends them on, over TLS it cannot.
_STILL_LEAVING: Final = (
    "the server before it still has gateways over TLS (listen.grpc_tls); come again in two minutes"
)
_SENDS: Final = 10  # tries to have our last lines written by the next one


class ServiceDesk:
    """A service as a ``takeover.Desk``. Not by the thread of ``run``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def described(self) -> Running:
        """See ``Desk``."""
        service = self._service
        return Running.of(
            service.engine.config,
            started=service.started,
            rows=service.rows(),
            given="admin" in service.given,
            followed=bool(os.environ.get("NOTIFY_SOCKET")),
        )

    def let_go(self) -> list[socket]:
        """See ``Desk``."""
        service = self._service
        if service.engine.config.listen.grpc_tls and service.receives():
            raise OSError(_STILL_LEAVING)
        service.door.let_go(FINISH_REQUESTS)
        if audit_of(service.engine.config):
            try:
                service.audit.let_go(OPEN)
            except AuditError as exc:
                raise OSError(str(exc)) from exc
        service.door.recorded()
        listener = service.admin.listener if service.admin else None
        return [listener] if listener else []

    def take_back(self) -> bool:
        """See ``Desk``."""
        audit = self._service.audit
        try:
            if audit.held:
                audit.open(OPEN)
            self._service.door.take_back()
        except (AuditError, OSError) as exc:
            log.error("%s; it is tried again", exc)  # noqa: TRY400 - it is no fault of ours
            return False
        return True

    def go(self, line: socket, grpc: str) -> None:
        """See ``Desk``."""
        line.settimeout(OPEN)
        self._service.succeeded = grpc  # whatever comes of our lines: the next one serves
        if self._service.audit.held:
            self._send(line)
        else:
            with contextlib.suppress(OSError):
                line.sendall(END)
            line.close()

    def _send(self, line: socket) -> None:
        for _ in range(_SENDS):
            try:
                return self._service.audit.send(line, OPEN)
            except AuditError as exc:
                why = exc
        log.error("%s: the lines of this server's end may be lost", why)
        return None

    def record(self, entry: Entry) -> None:
        """See ``Desk``."""
        self._service.audit.record_entry(entry)
