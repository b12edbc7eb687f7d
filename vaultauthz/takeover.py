"""One server takes over from another: what they say to each other.

Each that has a unix socket listens on another one beside it, for the user that runs it alone. The next one
gets ready first, with all that the one before has. Only then it says

- ``place``: the one before writes out its audit lines, lets go of the file and gives its admin listener.
  The next one opens the file, binds, and has the addresses.
- ``go``: the one before has its gateways turn to the next one, and from now on sends it its audit lines; it
  goes on with what is under way, revokes what is its own and ends.
- ``back``, or nothing any more: the one before has all of it again. What the next one has written down of
  itself goes into its audit log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final, Protocol, Self

from vaultauthz.config.values import Config, Listen
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.listening import Address, SocketName, peer_of
from vaultauthz.observe.handing_over import END, sent
from vaultauthz.observe.record import Entry
from vaultauthz.talk import Talk

log = logging.getLogger(__name__)

PLACE, GO, BACK = "place", "go", "back"

_VERSION: Final = 1  # of what is said here
ANSWER: Final = 10.0  # seconds for the other side to do what takes no call to Vault
_READY: Final = 180.0  # … for the next one to be ready, until another one may try
AGAIN: Final = 0.1  # seconds between two looks, or tries
_MODE: Final = 0o600  # of the socket
_TAG: Final = ".take-over"
_UNREACHABLE: Final = (
    "the next server could not be ended, should it hang; "
    "start it as the same user, where processes see each other"
)


class TakeOverError(Exception):
    """It cannot be done; the text says why, and that the server before goes on, if it does."""


def place_of(listen: Listen) -> Path | None:
    """The socket by which a server can be asked to give way; None where it has no unix socket."""
    for text in (listen.admin, listen.grpc):
        path = Address.parse(text).path if text else None
        if path:
            return path.with_name(f".{path.name}{_TAG}")
    return None


@dataclass(frozen=True, slots=True)
class Running:
    """The server before, as it says itself. ``audit`` is its file, "" where it has none.

    ``given``: its admin socket is systemd's, whose name nobody else removes. ``followed``: whoever started
    it follows it to the next one, which tells (``NOTIFY_SOCKET``).
    """

    pid: int
    grpc: str
    admin: str
    audit: str
    started: bool
    usable: frozenset[tuple[str, str]]  # stage and upstream, whose credential it can use now
    given: bool = False
    followed: bool = False

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        started: bool,
        rows: Iterable[LeaseRow],
        given: bool = False,
        followed: bool = False,
    ) -> Self:
        """This process, as it stands."""
        listen = config.listen
        usable = frozenset((r.stage, r.upstream) for r in rows if _is_shared(r) and r.usable)
        place = listen.grpc, listen.admin, audit_of(config)
        return cls(os.getpid(), *place, started, usable, given, followed)

    def lacks(self, rows: Iterable[LeaseRow], *, started: bool) -> tuple[str, ...]:
        """What this one has and the next one, with these rows, has not yet: names for people.

        What the next one is not to have, as its configuration is another, is not missed.
        """
        theirs = [row for row in rows if _is_shared(row) and not row.usable]
        missing = [r.upstream for r in theirs if (r.stage, r.upstream) in self.usable]
        return tuple(missing or (["what is not optional"] if self.started and not started else []))


def audit_of(config: Config) -> str:
    """The audit log's file, whatever leads to it; "" for standard output."""
    return os.path.realpath(config.audit.file) if config.audit.file else ""


def _is_shared(row: LeaseRow) -> bool:
    return bool(row.upstream) and row.shared


class Desk(Protocol):
    """What a server that runs does for the next one."""

    def described(self) -> Running:
        """See ``Running``."""

    def let_go(self) -> list[socket.socket]:
        """Let go of the audit log, and give what listens for operators. Raises OSError: it cannot."""

    def take_back(self) -> bool:
        """Have all of it again; False when that has to be tried again."""

    def go(self, line: socket.socket, grpc: str) -> None:
        """Send audit lines by ``line``, have gateways go to the next one, at ``grpc``, and end."""

    def record(self, entry: Entry) -> None:
        """Write a line of another process."""


class Incumbent:
    """Waits at ``place`` for the next server, from ``start`` to ``stop``."""

    def __init__(self, place: Path, desk: Desk, patience: float = ANSWER) -> None:
        self._name = SocketName(place, _TAG)
        self._desk = desk
        self._patience = patience
        self._turn, self._giving = Lock(), Lock()
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Listen, in the place of whoever did. Raises OSError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._name.bind(listener)
            self._name.publish(_MODE, listen=lambda: listener.listen(8))
        except OSError:
            listener.close()
            raise
        self._listener = listener
        Thread(target=self._run, args=(listener,), name="take-over", daemon=True).start()

    def settle(self) -> None:
        """Wait until it is known who has the place, if that is being handed over; no other gets it from now on."""
        self._giving.acquire(timeout=3 * self._patience)

    def stop(self) -> None:
        """Listen no more; the name goes, unless it is another server's by now."""
        if self._listener is not None:
            self._name.release()
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self._listener.close()
            self._listener = None

    def _run(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                line, _ = listener.accept()
                Thread(target=self._meet, args=(line,), name="take-over", daemon=True).start()

    def _meet(self, line: socket.socket) -> None:
        talk = Talk(line, self._patience)
        pid, known = peer_of(line)
        try:
            if not known:
                log.warning("take-over: process %d is another user's; it is not answered", pid)
            elif not _could_be_ended(pid):
                log.warning("take-over: process %d: %s", pid, _UNREACHABLE)
                talk.say({"refused": _UNREACHABLE})
            elif not self._turn.acquire(blocking=False):
                talk.say({"busy": True})
            elif self._in_turn(talk, pid):
                return  # the audit log has the line from now on
        except OSError as exc:
            log.warning("take-over: process %d: %s", pid, exc.strerror or exc)
        line.close()

    def _in_turn(self, talk: Talk, pid: int) -> bool:
        """As ``_hand_over``; who comes after one that has the place is told to ask there."""
        over = False
        try:
            over = self._hand_over(talk, pid)
        finally:
            if not over:
                self._turn.release()
        return over

    def _hand_over(self, talk: Talk, pid: int) -> bool:
        """Do as the next one says; whether it has the place at the end."""
        running = self._desk.described()
        told = asdict(running) | {"take_over": _VERSION, "usable": sorted(running.usable)}
        talk.say(told)
        if talk.hear(_READY).get("ask") == BACK:
            self._record(talk)
            return False
        with self._giving:
            return self._give(talk, pid)

    def _give(self, talk: Talk, pid: int) -> bool:
        try:
            listeners = self._desk.let_go()
        except OSError as exc:
            self._take_back()
            log.error("take-over: refused: %s", exc)  # noqa: TRY400 - it is no fault of ours
            talk.say({"refused": str(exc)})
            if talk.hear().get("ask") == BACK:
                self._record(talk)
            return False
        log.info("take-over: process %d is ready; it gets the audit log and the addresses", pid)
        told = self._next_says(talk, pid, listeners)
        ask = told.get("ask")
        if ask == GO:
            self._desk.go(talk.line, str(told.get("grpc")))
            return True
        self._take_back()
        log.error(
            "take-over: process %d did not take over; this one, %d, goes on", pid, os.getpid()
        )
        if ask == BACK:
            self._record(talk)
        return False

    def _next_says(self, talk: Talk, pid: int, listeners: list[socket.socket]) -> dict[str, Any]:
        """What it says when it has the place; nothing where it ends or hangs, and then it is ended."""
        try:
            talk.say({"left": True}, listeners)
            return talk.hear()
        except TimeoutError:
            # It may have the name that gateways connect to, and answers nobody.
            log.error("take-over: process %d does not go on: it is killed", pid)  # noqa: TRY400
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
        return {}

    def _take_back(self) -> None:
        while not self._desk.take_back():
            time.sleep(AGAIN)

    def _record(self, talk: Talk) -> None:
        for entry in sent(talk.line, talk.rest):
            self._desk.record(entry)


class Successor:
    """The next server's side, from ``meet`` to ``go`` or ``back``."""

    def __init__(self, talk: Talk, running: Running, patience: float) -> None:
        self._talk = talk
        self._patience = patience
        self.running = running

    @classmethod
    def meet(cls, place: Path, patience: float = ANSWER) -> Self | None:
        """Ask who serves; None for nobody.

        Raises:
            TakeOverError: it does not answer, is another user's, or another take-over is under way.
        """
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(patience)
        try:
            line.connect(str(place))
        except (FileNotFoundError, ConnectionRefusedError):
            line.close()
            return None
        except OSError as exc:
            line.close()
            raise TakeOverError(f"{place}: {exc.strerror or exc}") from exc
        try:
            return cls(talk := Talk(line, patience), _running(line, talk), patience)
        except TakeOverError:
            line.close()
            raise

    @property
    def lost(self) -> bool:
        """Whether the server before has ended."""
        poll = select.poll()
        poll.register(self._talk.line, select.POLLIN)
        with contextlib.suppress(OSError):
            return bool(poll.poll(0)) and not self._talk.line.recv(1, socket.MSG_PEEK)
        return True

    def place(self) -> list[socket.socket]:
        """Have the audit log's file and the addresses left to us; the listener for operators, if there is one.

        Raises:
            TakeOverError: it keeps them.
        """
        try:
            self._talk.say({"ask": PLACE})
            answer = self._talk.hear(self._patience)
        except OSError as exc:
            if isinstance(exc, ConnectionError):  # it has ended, and with it all that it had
                return []
            pid = self.running.pid
            raise TakeOverError(f"process {pid}, which serves, does not answer any more") from exc
        if why := answer.get("refused"):
            raise TakeOverError(f"process {self.running.pid} keeps its place: {why}")
        return self._talk.sockets

    def go(self, grpc: str) -> None:
        """Let it end, as gateways are served at ``grpc``; ``entries`` come from now on."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self._talk.say({"ask": GO, "grpc": grpc})

    def back(self, *, end: bool = False) -> socket.socket:
        """Let it have everything back; where our own audit lines are to go then, unless this is the ``end``."""
        with contextlib.suppress(OSError):
            self._talk.say({"ask": BACK})
            if end:
                self._talk.line.sendall(END)
        return self._talk.line

    def entries(self) -> Iterator[Entry]:
        """Its audit lines until it has ended. Raises OSError: it ended in the middle."""
        self._talk.line.settimeout(None)
        yield from sent(self._talk.line, self._talk.rest)

    def close(self) -> None:
        """Say no more."""
        self._talk.line.close()


def _could_be_ended(pid: int) -> bool:
    """Whether we could end it, should it hang with the place: not in another PID namespace, nor root's."""
    try:
        if pid > 0:  # 0 is nobody's, and to kill() our own group's
            os.kill(pid, 0)
            return True
    except OSError:
        pass
    return False


def _running(line: socket.socket, talk: Talk) -> Running:
    pid, known = peer_of(line)
    if not known:
        raise TakeOverError(
            f"process {pid}, which serves, is another user's; start this one as that"
        )
    try:
        told = talk.hear()
    except TimeoutError:
        raise TakeOverError(
            f"process {pid}, which serves, does not answer; it was left as it is. If it hangs, end it "
            f"(kill -KILL {pid}) and start this one anew"
        ) from None
    except OSError as exc:
        raise TakeOverError(f"process {pid}, which serves: {exc.strerror or exc}") from exc
    if told.get("busy"):
        raise TakeOverError(f"another take-over from process {pid} is under way; wait for its end")
    if why := told.get("refused"):
        raise TakeOverError(f"process {pid} keeps its place: {why}")
    if told.get("take_over") != _VERSION:
        raise TakeOverError(f"process {pid} speaks another version; stop it, then start this one")
    try:
        usable = frozenset((str(stage), str(upstream)) for stage, upstream in told["usable"])
        grpc, admin, audit = (str(told[key]) for key in ("grpc", "admin", "audit"))
        started, given, followed = (told[key] is True for key in ("started", "given", "followed"))
        return Running(int(told["pid"]), grpc, admin, audit, started, usable, given, followed)
    except (KeyError, TypeError, ValueError) as exc:
        raise TakeOverError(f"process {pid} does not speak as vaultauthz does") from exc
