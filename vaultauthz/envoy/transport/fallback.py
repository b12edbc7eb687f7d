"""What the native transport cannot serve: a grpcio server behind it, on a private socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc

from vaultauthz.config.addresses import LONGEST_SOCKET_PATH
from vaultauthz.envoy.rpc import MESSAGE_LIMIT
from vaultauthz.envoy.transport.streams import Streams

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    # All clients come over connections of our own; what bounds them is `Streams`.
    ("grpc.max_concurrent_streams", 1 << 20),
)
_PREFIX: Final = "vaultauthz-streams-"
_SOCKET: Final = "grpc.sock"
_RANDOM: Final = 8  # characters that the folder's name gets besides
_STARTS: Final = 60.0  # seconds in which a server that has made its folder will listen


class Fallback:
    """Serves streams at ``path``, in a folder that only this user may enter."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_place()))  # mode 0700
        self.path = self._folder / _SOCKET
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
        """Listen. Raises RuntimeError when that is not to be had."""
        try:
            self._server.add_insecure_port(f"unix:{self.path}")
            self._server.start()
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
        shutil.rmtree(self._folder, ignore_errors=True)


def _place() -> Path:
    """The system's place for temporary files, where a socket's path fits into it."""
    usual = Path(tempfile.gettempdir())
    longest = len(os.fsencode(usual / _PREFIX / _SOCKET)) + _RANDOM
    return usual if longest <= LONGEST_SOCKET_PATH else Path("/tmp")  # noqa: S108  a folder of its own


def _sweep() -> None:
    """Remove what servers of ours have left that were killed."""
    for folder in _place().glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it goes, or was never ours
            found = folder.stat()
            ours = found.st_uid == os.getuid() and time.time() - found.st_mtime > _STARTS
            if ours and not _answers(folder / _SOCKET):
                shutil.rmtree(folder)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True
