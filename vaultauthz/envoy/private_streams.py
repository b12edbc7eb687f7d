"""What the native transport cannot serve: a grpcio server behind it, on a socket that only this process uses.

In a container, in a sidecar and under systemd nothing may be writable but what the gateway
needs: the folder of the socket that is listened on. That one is looked at first.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc

from vaultauthz.config.addresses import LONGEST_SOCKET_PATH
from vaultauthz.envoy.rpc import MESSAGE_LIMIT, uri
from vaultauthz.envoy.streams import Streams
from vaultauthz.listening import ListenError

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    # All clients come over connections of our own; what bounds them is `Streams`.
    ("grpc.max_concurrent_streams", 1 << 20),
)
_PREFIX: Final = ".vaultauthz-streams-"
_SOCKET: Final = "s"
_STARTS: Final = 60.0  # seconds in which a server that has made its folder will listen
_PATIENCE: Final = 1.0  # seconds for a server to take a connection
_LINUX: Final = sys.platform == "linux"


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


class Private:
    """``path`` is what a client connects to, ``target`` what grpcio binds."""

    def __init__(self, path: str, target: str, forget: Callable[[], None]) -> None:
        self.path = path
        self.target = target
        self.forget = forget  # removes it; to be called once it is closed


def private(beside: Path | None) -> Private:
    """One in a folder that only this user may enter, in ``beside`` or among temporary files.

    ``beside`` is the folder of the unix socket that is listened on, None for TCP. If no folder
    is to be had, Linux has sockets without one; everybody in the network namespace may connect
    to those, and so may they to a TCP port, but not to a unix socket.

    Raises:
        ListenError: there is no place for it; says what would do.
    """
    tried = []
    for place in (beside, _temporary()):
        if place is None:
            continue
        try:
            return _within(place)
        except OSError as exc:
            tried.append(f"{place}: {exc.strerror or exc}")
    if beside is None and _LINUX:
        name = f"vaultauthz-{secrets.token_hex(16)}"
        return Private(f"\0{name}", f"unix-abstract:{name}", lambda: None)
    raise ListenError(
        "no folder can be written in which streams (SDS, access logs) are taken over inside "
        f"({'; '.join(tried) or 'no folder for temporary files'}); make the socket's folder "
        "writable, or set TMPDIR to a folder that is, or set listen.transport: grpcio, which "
        "needs none"
    )


def _temporary() -> Path | None:
    """The system's place for temporary files, if one can be written."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return None


def _within(place: Path) -> Private:
    """A socket in a new folder there. Raises OSError."""
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))  # mode 0700
    opened: list[int] = []

    def forget() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        while opened:
            os.close(opened.pop())

    try:
        path = folder / _SOCKET
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            path = _short(folder, opened)
    except OSError:
        forget()
        raise
    return Private(str(path), uri(f"unix:{path}"), forget)


def _short(folder: Path, opened: list[int]) -> Path:
    """Another path to the socket in ``folder``, whose own is too long for a socket's address."""
    if not _LINUX:
        raise OSError(f"its path is too long for a socket in it, of {LONGEST_SOCKET_PATH} bytes")
    opened.append(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return Path(f"/proc/self/fd/{opened[0]}") / _SOCKET


def _sweep(place: Path) -> None:
    """Remove what servers of ours have left that were killed."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it goes, or was never ours
            found = folder.stat()
            ours = found.st_uid == os.getuid() and time.time() - found.st_mtime > _STARTS
            if ours and not _answers(folder):
                shutil.rmtree(folder)


def _answers(folder: Path) -> bool:
    opened: list[int] = []
    try:
        path = folder / _SOCKET
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            path = _short(folder, opened)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PATIENCE)
            probe.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    finally:
        while opened:
            os.close(opened.pop())
    return True
