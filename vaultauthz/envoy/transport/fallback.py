"""What the native transport cannot serve: a grpcio server behind it, on a private socket."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc

from vaultauthz.envoy.rpc import MESSAGE_LIMIT
from vaultauthz.envoy.transport.private import private
from vaultauthz.envoy.transport.streams import Streams
from vaultauthz.listening import ListenError

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    # All clients come over connections of our own; what bounds them is `Streams`.
    ("grpc.max_concurrent_streams", 1 << 20),
)


class Fallback:
    """Serves streams at ``path``, which only this process knows or may reach.

    ``beside`` is the folder of the socket that clients use, None if they come by TCP.

    Raises:
        ListenError: there is no place for that socket.
    """

    def __init__(self, streams: Streams, beside: Path | None) -> None:
        self._streams = streams
        self._socket = private(beside)
        self.path = self._socket.path
        self._pool = ThreadPoolExecutor(1)  # grpcio wants one; each stream brings its own
        # The hard limit behind the soft one: refusing takes its time too.
        limit = 2 * streams.most
        self._server = grpc.server(
            self._pool,
            handlers=streams.handlers(),
            options=_OPTIONS,
            maximum_concurrent_rpcs=limit,
        )

    def start(self) -> None:
        """Listen. Raises ListenError when that is not to be had."""
        try:
            self._server.add_insecure_port(self._socket.target)
            self._server.start()
        except RuntimeError as exc:
            self._forget()
            raise ListenError(f"streams (SDS, access logs): {self._socket.target}: {exc}") from exc
        except BaseException:
            self._forget()
            raise

    def stop(self, grace: float) -> None:
        """End what is open within ``grace`` seconds."""
        self._streams.end()
        ended = self._server.stop(grace)
        # grpcio ends what is late by itself; the extra second is for its own threads.
        ended.wait(grace + 1.0)
        self._streams.close()
        self._forget()

    def _forget(self) -> None:
        self._pool.shutdown(wait=False)
        self._socket.forget()
