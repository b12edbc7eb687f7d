"""What systemd is told of a server that it has started, and what it has opened for one.

A datagram to the socket in ``NOTIFY_SOCKET`` (sd_notify(3)), and descriptors from number 3 on, by their
names in ``LISTEN_FDNAMES`` (sd_listen_fds(3)). Where there is no systemd, nothing is told and nothing given.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final, Self

_FIRST: Final = 3  # the first descriptor that is passed on
_MOST: Final = 64
_OF_ONE_PROCESS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")
_WAIT: Final = 1.0  # seconds for systemd to have room for a datagram


class Notifier:
    """Tells systemd; made with ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` of the environment.

    ``clock`` is monotonic, in seconds: systemd compares a reload's beginning with its own.
    """

    def __init__(
        self, place: str = "", watchdog: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._place = place
        self._every = watchdog / 2  # as sd_watchdog_enabled(3) wants it
        self._clock = clock
        self._fed_at = -watchdog

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """The one that this process was started with, if it was by systemd."""
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        ours = pid in ("", str(os.getpid()))
        watchdog = int(usec) / 1e6 if usec.isascii() and usec.isdigit() and ours else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog)

    def __bool__(self) -> bool:
        return bool(self._place)

    def ready(self, status: str, *, main: bool = False) -> None:
        """It serves. ``main``: this process is the service's main one from now on."""
        own = [f"MAINPID={os.getpid()}"] if main else []
        self._tell("READY=1", f"STATUS={status}", *own)

    def status(self, text: str) -> None:
        """What `systemctl status` shows; one line."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """The configuration is read again; ``ready`` ends that."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._clock() * 1e6)}")

    def stopping(self, status: str) -> None:
        """It is about to end."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog, if it is time to; call it often, from the thread that must not hang."""
        now = self._clock()
        if self._every and now - self._fed_at >= self._every:
            self._fed_at = now
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._place:
            return
        # One that does not listen, or has no room, must not end the server.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(_WAIT)
            path = f"\0{self._place[1:]}" if self._place.startswith("@") else self._place
            line.sendto("\n".join(lines).encode(), path)


def passed(environment: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """The listening sockets that systemd has opened for us, by ``FileDescriptorName``; once.

    What says so is taken out of the environment: those that we start have others' numbers.
    """
    found = {name: environment.pop(name, "") for name in _OF_ONE_PROCESS[:3]}
    count = found["LISTEN_FDS"]
    if found["LISTEN_PID"] != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return {}
    names = found["LISTEN_FDNAMES"].split(":")
    sockets = {}
    for at in range(min(int(count), _MOST)):
        fd = _FIRST + at
        os.set_inheritable(fd, False)
        sockets[names[at] if at < len(names) else ""] = socket.socket(fileno=fd)
    return sockets


def for_another(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of ours: without what was meant for this one alone."""
    return {name: value for name, value in environment.items() if name not in _OF_ONE_PROCESS}
