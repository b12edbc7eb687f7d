"""A socket that only this process uses, and where it may lie.

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
from pathlib import Path
from typing import Final

from vaultauthz.config.addresses import LONGEST_SOCKET_PATH
from vaultauthz.envoy.rpc import uri
from vaultauthz.listening import ListenError

_PREFIX: Final = ".vaultauthz-streams-"
_SOCKET: Final = "s"
_STARTS: Final = 60.0  # seconds in which a server that has made its folder will listen
_PATIENCE: Final = 1.0  # seconds for a server to take a connection
_LINUX: Final = sys.platform == "linux"


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
