"""HTTP over a unix socket, for a Vault Agent or Vault Proxy on the same host."""

from __future__ import annotations

import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError


class _Connection(HTTPConnection):
    def __init__(self, path: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = path

    def _new_conn(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        timeout = self.timeout
        sock.settimeout(timeout if isinstance(timeout, (int, float)) else None)
        try:
            sock.connect(self._path)
        except OSError as exc:
            sock.close()
            raise NewConnectionError(self, f"cannot connect: {exc.strerror}") from exc
        return sock


class _Pool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> _Connection:
        return _Connection(self._path, "localhost", timeout=self.timeout.connect_timeout)


class UnixAdapter(HTTPAdapter):
    """Sends every request of a requests session to the socket at ``path``."""

    def __init__(self, path: str) -> None:
        self._pool = _Pool(path)
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> _Pool:
        """Where requests asks which pool to use."""
        return self._pool

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.close()
        super().close()
