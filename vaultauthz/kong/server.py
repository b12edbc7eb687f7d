"""Our plugin server: Kong's connections, all on one thread.

One is enough, as nothing in it blocks: what must wait for Vault is promised, and the thread
goes on. There is no hand-over from thread to thread to pay for, and what may run away is
bounded: connections, the bytes of each, and the time that each may take for its turn.
"""

from __future__ import annotations

import errno
import logging
import resource
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from vaultauthz.core.decision import Decision
from vaultauthz.core.redaction import where
from vaultauthz.kong.connection import Connection, HangUp
from vaultauthz.kong.gate import Gate, Instances
from vaultauthz.kong.handover import Giver
from vaultauthz.kong.ownership import Ownership
from vaultauthz.leases.later import Later

log = logging.getLogger(__name__)

CONNECTIONS: Final = 8192  # at once; beyond, idle ones are closed, which Kong's pool notices
STALL: Final = 10.0  # seconds for the other side's turn: the rest of a frame, a result
# At the start requests wait so long for the first credentials, instead of being denied.
HOLD: Final = 5.0
_LOOK: Final = 0.25  # seconds between looks at who is late
_READ: Final = 65_536  # bytes at once
_ACCEPT: Final = 64  # connections at once


class _Line:
    """A connection and its socket."""

    __slots__ = ("connection", "ending", "fd", "heard_at", "out", "sock")

    def __init__(self, sock: socket.socket, heard_at: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.heard_at = heard_at
        self.out = bytearray()
        self.ending = False  # we send no more, and read only to see Kong close it
        self.connection: Connection


class PluginServer:
    """Answers Kong at ``place``, which is taken already, from ``start`` to ``stop``.

    ``started`` tells whether each credential was there once; until then, for ``HOLD`` seconds at most,
    connections wait. ``stall`` is in seconds, see ``STALL``.
    """

    def __init__(
        self,
        ownership: Ownership,
        gate: Gate,
        started: Callable[[], bool],
        *,
        connections: int = CONNECTIONS,
        stall: float = STALL,
    ) -> None:
        self._ownership = ownership
        self._gate = gate
        self._started = started
        self._most = connections
        self._stall = stall
        self._instances = Instances()
        self._instances.inherit(ownership.inherited.instances, ownership.inherited.next)
        self._lines: dict[int, _Line] = {}
        self._posted: deque[Callable[[], None]] = deque()
        self._wakes, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="kong", daemon=True)
        self._until: float | None = None  # when stopping: how long requests are finished
        self._accepts = False
        self._now = 0.0

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._lines)

    @property
    def busy(self) -> bool:
        """Whether a request waits for us."""
        return any(line.connection.busy for line in tuple(self._lines.values()))

    def start(self) -> None:
        """Answer, from a thread of its own."""
        for end in (self._wakes, self._waker):
            end.setblocking(False)
        self._selector.register(self._wakes, selectors.EVENT_READ, None)
        self._thread.start()

    def stop(self, grace: float = 1.0) -> None:
        """Take no new connections, finish requests within ``grace`` seconds, close."""
        self._until = time.monotonic() + grace
        self._wake()
        if self._thread.is_alive():
            self._thread.join(grace + 4 * _LOOK)
        self._ownership.leave()
        self._wakes.close()
        self._waker.close()

    # --- the thread ---

    def _run(self) -> None:
        self._now = time.monotonic()
        begin, look_at = self._now, 0.0
        while self._until is None:
            if not self._accepts and (self._started() or self._now - begin > HOLD):
                self._begin()
            self._turn(_LOOK if self._accepts else _LOOK / 10)
            if self._now >= look_at:
                look_at = self._now + _LOOK
                self._look()
        self._finish(self._until)

    def _begin(self) -> None:
        """Take those who wait, and what the server before has given."""
        self._accepts = True
        self._selector.register(self._ownership.listener, selectors.EVENT_READ, None)
        for sock in self._ownership.inherited.connections:
            self._open(sock)

    def _finish(self, until: float) -> None:
        """Finish what is under way, and let go of each connection without losing a request.

        The next server gets it, if there is one. One that we closed while Kong sends a call on
        it would be an error to Kong. So else we only say that we send no more: Kong closes it,
        and takes most calls elsewhere.
        """
        giver = Giver.to(self._ownership.path) if self._ownership.lost else None
        if not self._accepts:  # it gives way before it had a credential
            self._begin()
        while self._accept():  # who came before the end was called
            pass
        self._selector.unregister(self._ownership.listener)
        self._ownership.leave()
        while self._lines and time.monotonic() < until:
            for line in tuple(self._lines.values()):
                if line.connection.quiet and not line.out:
                    self._let_go(line, giver)
            self._turn(_LOOK / 10)
        for line in tuple(self._lines.values()):
            self._guarded(line, line.connection.give_up)
            self._close(line)
        if giver is not None:
            giver.end(self._instances.named, self._instances.last)
        self._selector.close()

    def _let_go(self, line: _Line, giver: Giver | None) -> None:
        if line.ending:
            return
        if giver is not None and giver.give(line.sock):
            self._close(line)
            return
        line.ending = True
        try:
            line.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(line)

    def _turn(self, wait: float) -> bool:
        """Serve who has something to say, within ``wait`` seconds; whether anybody had."""
        events = self._selector.select(wait)
        self._now = time.monotonic()
        for key, mask in events:
            self._serve(key.data, key.fd, mask)
        while self._posted:
            self._posted.popleft()()
        return bool(events)

    def _serve(self, line: _Line | None, fd: int, mask: int) -> None:
        if line is not None:
            if mask & selectors.EVENT_READ:
                self._read(line)
            elif self._lines.get(fd) is line:
                self._flush(line)
        elif fd == self._wakes.fileno():
            self._wakes.recv(_READ)
        else:
            self._accept()

    def _accept(self) -> bool:
        """Take some of those who wait; whether there may be more."""
        for _ in range(_ACCEPT):
            try:
                sock, _address = self._ownership.listener.accept()
            except BlockingIOError:
                return False
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE) and not self._close_an_idle_one():
                    time.sleep(_LOOK / 10)  # others' files are not ours to close
                return False
            self._open(sock)
        return True

    def _open(self, sock: socket.socket) -> None:
        if len(self._lines) >= self._most and not self._close_an_idle_one():
            sock.close()
            return
        sock.setblocking(False)
        line = _Line(sock, self._now)
        line.connection = Connection(
            self._gate,
            self._instances,
            partial(self._send, line),
            partial(self._later, line),
        )
        self._lines[line.fd] = line
        self._selector.register(sock, selectors.EVENT_READ, line)

    def _close_an_idle_one(self) -> bool:
        idle = [line for line in self._lines.values() if not line.connection.busy]
        if not idle:
            return False
        self._close(min(idle, key=lambda line: line.heard_at))
        return True

    def _read(self, line: _Line) -> None:
        try:
            data = line.sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(line)
            return
        if line.ending:
            return  # Kong makes this call again, on another connection
        line.heard_at = self._now
        self._guarded(line, partial(line.connection.take, data))

    def _guarded(self, line: _Line, act: Callable[[], None]) -> None:
        try:
            act()
        except HangUp:
            self._close(line)
        except Exception as exc:  # noqa: BLE001 - one connection must not end the thread of all
            log.error("a connection of Kong's failed: %s", where(exc))  # noqa: TRY400
            self._close(line)

    def _send(self, line: _Line, data: bytes) -> None:
        if line.out:
            line.out += data
            return
        try:
            sent = line.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # Kong has gone: reading will tell
        if sent < len(data):
            line.out += data[sent:]
            self._selector.modify(line.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, line)

    def _flush(self, line: _Line) -> None:
        try:
            del line.out[: line.sock.send(line.out)]
        except BlockingIOError:
            return
        except OSError:
            self._close(line)
            return
        if not line.out:
            self._selector.modify(line.sock, selectors.EVENT_READ, line)

    def _close(self, line: _Line) -> None:
        if self._lines.get(line.fd) is line:
            del self._lines[line.fd]
            self._selector.unregister(line.sock)
            line.sock.close()

    def _look(self) -> None:
        """Hang up on whoever takes too long for its turn."""
        late = self._now - self._stall
        for line in tuple(self._lines.values()):
            if line.heard_at < late and (line.connection.owed or line.out):
                self._close(line)

    # --- promises, which other threads keep ---

    def _later(self, line: _Line, promised: Later[Decision]) -> None:
        def post(act: Callable[[], None]) -> None:
            self._posted.append(partial(self._resume, line, act))
            self._wake()

        connection = line.connection
        promised.then(
            lambda decision: post(partial(connection.decided, decision)),
            lambda _error: post(connection.not_decided),
        )

    def _resume(self, line: _Line, act: Callable[[], None]) -> None:
        if self._lines.get(line.fd) is line:
            line.heard_at = self._now
            self._guarded(line, act)

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except OSError:
            return  # full: it will wake; or closed: it has ended


def raise_file_limit() -> None:
    """Let this process have as many connections as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 256 if hard == resource.RLIM_INFINITY else min(hard, CONNECTIONS + 256)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
