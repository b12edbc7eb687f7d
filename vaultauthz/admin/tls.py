"""TLS of the admin server, with certificates that are renewed while it runs."""

from __future__ import annotations

import socket
import ssl

from vaultauthz.config.values import ServerTls
from vaultauthz.listening import ListenError
from vaultauthz.server_tls import FollowedTls, UnusableError


class Terminator:
    """Wraps accepted connections; files that change are read again for the next one.

    Raises:
        ListenError: at the start a file cannot be read, or key and certificate don't fit.
    """

    def __init__(self, files: ServerTls) -> None:
        try:
            self.files = FollowedTls("listen.admin_tls", files)
        except UnusableError as exc:
            raise ListenError(f"listen.admin_tls: {exc}") from exc

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """The connection as TLS; the handshake is the caller's to ask for."""
        self.files.look()
        return self.files.identity.context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
