"""TLS of the admin server, with certificates that are renewed while it runs."""

from __future__ import annotations

import logging
import socket
import ssl

from vaultauthz.admin.place import AdminError
from vaultauthz.config.values import ServerTls
from vaultauthz.stamps import Stamp, stamp

_log = logging.getLogger(__name__)


class Terminator:
    """Wraps accepted connections; files that change are read again for the next one.

    Raises:
        AdminError: at the start a file cannot be read, or key and certificate don't fit.
    """

    def __init__(self, files: ServerTls) -> None:
        self._files = files
        try:
            self._stamps = self._stamped()
            self._context = self._loaded()
        except OSError as exc:  # ssl.SSLError is one
            raise AdminError(f"listen.admin_tls: {files.cert}: {exc.strerror or exc}") from exc

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """The connection as TLS; the handshake is the caller's to ask for."""
        self._follow()
        return self._context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )

    def _follow(self) -> None:
        try:
            stamps = self._stamped()
            if stamps != self._stamps:
                self._context, self._stamps = self._loaded(), stamps
        except OSError as exc:
            # Half of a new pair, most likely: the old one serves until both are there.
            _log.warning("admin_tls is not read again: %s", exc.strerror or exc)

    def _stamped(self) -> list[Stamp]:
        files = (self._files.cert, self._files.key, self._files.client_ca)
        return [stamp(path) for path in files if path]

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._files.cert, self._files.key)
        if self._files.client_ca:
            context.load_verify_locations(self._files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
