"""Sockets to a node of Vault, each wait of which ends at a deadline.

A socket's own timeout bounds one wait; here every wait, also that for each byte of a
header that drips in, gets what is left.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

Found = list[tuple[Any, Any, Any, Any, Any]]  # as socket.getaddrinfo gives it


class Deadline:
    """The end of a call, on ``clock``."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self.clock = clock
        self._at = clock() + seconds

    def passed(self) -> bool:
        """Whether no time is left."""
        return self.clock() >= self._at

    def left(self) -> float:
        """Seconds, always more than 0. Raises TimeoutError when it has passed."""
        left = self._at - self.clock()
        if left <= 0:
            raise TimeoutError
        return left

    def share(self, parts: int) -> Deadline:
        """An earlier one, after a part of what is left."""
        return Deadline(self.clock, self.left() / parts)


class _Bounded:
    """For a socket: each wait lasts as long as the deadline lets it."""

    deadline: Deadline

    def recv_into(self, *args: Any) -> int:
        self.settimeout(self.deadline.left())  # type: ignore[attr-defined]
        return super().recv_into(*args)  # type: ignore[misc,no-any-return]

    def send(self, *args: Any) -> int:
        self.settimeout(self.deadline.left())  # type: ignore[attr-defined]
        return super().send(*args)  # type: ignore[misc,no-any-return]

    def sendall(self, *args: Any) -> None:
        self.settimeout(self.deadline.left())  # type: ignore[attr-defined]
        super().sendall(*args)  # type: ignore[misc]


class Plain(_Bounded, socket.socket):
    pass


class _Secured(_Bounded, ssl.SSLSocket):
    pass


def connect(host: str, port: int, deadline: Deadline) -> Plain:
    """A connection to one of the host's addresses; each gets a share of the time.

    Raises:
        OSError: there is none.
    """
    places = _resolved(host, port, deadline)
    while True:
        family, _, _, _, place = places.pop(0)
        try:
            sock = _to(family, place, deadline.share(1 + len(places)))
        except OSError:
            if not places:
                raise
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock


def connect_unix(path: str, deadline: Deadline) -> Plain:
    """A connection to the unix socket at ``path``. Raises OSError."""
    return _to(socket.AF_UNIX, path, deadline)


def secure(sock: Plain, context: ssl.SSLContext, name: str, deadline: Deadline) -> ssl.SSLSocket:
    """TLS over ``sock``, with a server that is called ``name``.

    Raises:
        OSError: the handshake failed (ssl.SSLError is one); ``sock`` is closed.
    """
    context.sslsocket_class = _Secured
    try:
        sock.settimeout(deadline.left())  # of the whole handshake
        return context.wrap_socket(sock, server_hostname=name)
    except BaseException:
        sock.close()
        raise


def _to(family: int, place: Any, deadline: Deadline) -> Plain:
    sock = Plain(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.left())
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolved(host: str, port: int, deadline: Deadline) -> Found:
    """The host's addresses. The system's resolver has no deadline, so a thread waits for it."""
    with contextlib.suppress(OSError, UnicodeError):
        return _look_up(host, port, socket.AI_NUMERICHOST)
    answers: queue.SimpleQueue[Found | OSError] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            answers.put(_look_up(host, port))
        except OSError as exc:
            answers.put(exc)
        except UnicodeError:  # a label that is too long
            answers.put(socket.gaierror(socket.EAI_NONAME, "no name of a host"))

    threading.Thread(target=resolve, name="vault-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _look_up(host: str, port: int, flags: int = 0) -> Found:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
