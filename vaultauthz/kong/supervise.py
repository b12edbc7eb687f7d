"""``vaultauthz kong serve --child``: what Kong starts, and keeps a server for it.

Kong's worker 0 ends what it has started by SIGTERM and, 0.1 s later, SIGKILL, at a stop and at
each reload. A server needs longer: it has requests to finish and leases to revoke. So Kong
starts this small process, and the server is another one, in a session of its own, which no
signal of Kong's reaches. It ends when Kong has (``kong.door``), or when another takes over.

At a reload the next supervisor goes on with the server that runs, and not a connection is
closed. It starts another only where it was told to by another command or version, or where
that one's configuration has a change that only a restart takes over; then the one hands over
to the other (``kong.ownership``). All that supervisors and servers know of each other are two
locked files beside the socket, so that any of them may be killed at any moment.

What a server says that Kong has started goes into a file, and to Kong while it listens. The file is
what lasts: Kong shows what its plugin servers say at its level ``info`` alone, and the pipe ends
with each of its workers.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from vaultauthz.kong.ownership import Failures, Holder, SupervisorClaim, claimed, coming, holder
from vaultauthz.kong.processes import began_at, master_of
from vaultauthz.leases.clock import boottime
from vaultauthz.terminal import LOG_FORMATS
from vaultauthz.version import __version__
from vaultauthz.watching import Watch

log = logging.getLogger(__name__)

_LOOK: Final = 0.1  # seconds between looks
_BRIEF: Final = 10.0  # seconds; a server that lives less has failed
_ORPHAN: Final = 3.0  # seconds without the supervisor that came after us, until we are back
_COMES: Final = 20.0  # … for a server that another one has started to take over


class SuperviseError(Exception):
    """It cannot do its work; the message says why."""


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """``words`` are the options of `kong serve`; ``log_file`` is where the server's words go."""

    socket: Path
    config: Path
    log_file: Path
    log_format: str  # of LOG_FORMATS
    words: tuple[str, ...]


def run(options: SupervisorOptions) -> int:
    """Keep a server until Kong ends this process; its status when it cannot be started.

    Raises:
        SuperviseError: Kong did not start this, or a file beside the socket cannot be made.
    """
    parent = os.getppid()
    if parent <= 1:
        raise SuperviseError("--child is for Kong, which starts it; leave it out")
    try:
        words = ServerLog(options.log_file, options.log_format)
        root = logging.getLogger()
        root.handlers[:] = [words]
        root.setLevel(logging.INFO)
        return Supervisor(options, parent, master_of(parent), words).run()
    except OSError as exc:
        why = f"{exc.filename or options.socket}: {exc.strerror}"
        log.error("%s", why)  # noqa: TRY400 - into the file, if there is one
        raise SuperviseError(why) from exc


@dataclass(slots=True)
class _Started:
    """A server that this process has started."""

    process: subprocess.Popen[bytes]
    at: float  # boottime
    served: bool = False


class Supervisor:
    """``run`` until the worker of Kong's that started us has ended, or says that we shall."""

    def __init__(
        self, options: SupervisorOptions, worker: int, master: int, words: ServerLog
    ) -> None:
        self._options = options
        self._worker = worker
        self._words = words
        kong = f"{master},{began_at(master) if master else ''}"
        start = [__version__, sys.executable, *options.words, kong]
        self._fits = sha256(json.dumps(start).encode()).hexdigest()[:16]
        self._kong = f"{kong},{self._fits}"
        self._claim = SupervisorClaim(options.socket)
        self._watch = Watch(options.config)
        self._server: _Started | None = None
        self._settled = False  # the server that there is is the one to keep
        self._unfit = False  # … at the last look there was another
        self._alone_at: float | None = None
        self._coming_at: float | None = None
        self._signals: SimpleQueue[int] = SimpleQueue()

    def run(self) -> int:
        """Raises OSError."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda heard, _: self._signals.put(heard))
        self._claim.take()
        try:
            return self._watch_over()
        finally:
            if self._claim.mine:
                self._words.relay()

    def _watch_over(self) -> int:
        while os.getppid() == self._worker:
            status = self._look()
            if status is not None:
                return status
            if self._heard() in (signal.SIGTERM, signal.SIGINT):
                break
        log.info("Kong ends its supervisor; the server ends when Kong has, or is taken over")
        return 0

    def _heard(self) -> int:
        with suppress(Empty):
            number = self._signals.get(timeout=_LOOK)
            found = holder(self._options.socket) if number == signal.SIGHUP else None
            if found and found.signalable:
                os.kill(found.pid, number)
            return number
        return 0

    def _look(self) -> int | None:
        """See to the server; the status to end with, if any."""
        started = self._server
        status = started.process.poll() if started else None
        if started and status is not None:
            self._server = None
        if not self._is_ours():
            return None
        self._words.relay()
        found = holder(self._options.socket)
        if started and status is not None:
            return self._ended(started, status, found)
        if started:
            self._see(started, found)
        elif self._comes():
            self._unfit = False
        elif found is None:
            self._start_in_time()
        elif not self._settled:
            self._judge(found)
        return None

    def _is_ours(self) -> bool:
        """Whether no other supervisor has come; one that came and has died does not count."""
        if self._claim.mine:
            return True
        now = boottime()
        if claimed(self._options.socket):
            self._alone_at = None
        elif self._alone_at is None:
            self._alone_at = now
        elif now - self._alone_at >= _ORPHAN:
            self._alone_at, self._settled = None, True
            self._claim.take()
            return True
        return False

    def _comes(self) -> bool:
        """Whether a server that another supervisor has started is about to have the place."""
        if not coming(self._options.socket):
            self._coming_at = None
            return False
        if self._coming_at is None:
            self._coming_at = boottime()
        return boottime() - self._coming_at < _COMES

    def _judge(self, found: Holder) -> None:
        """Keep the server that there is, or have another one take over."""
        if found.fits == self._fits and not found.stale:
            self._settled = True
            log.info("the server goes on, process %d", found.pid)
        elif self._unfit:  # twice: the first time it may not have told us yet
            log.info("another server takes over from process %d", found.pid)
            self._start()
        else:
            self._unfit = True

    def _see(self, started: _Started, found: Holder | None) -> None:
        if found and found.pid == started.process.pid and not started.served:
            started.served = self._settled = True

    def _ended(self, started: _Started, status: int, found: Holder | None) -> int | None:
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        lived = boottime() - started.at
        if started.served or status <= 0:  # not one that gave up by itself
            if lived >= _BRIEF:
                self._claim.note(Failures())
            elif status:
                self._fail()
            log.warning("the server, process %d, has ended %s", started.process.pid, how)
            return None
        if found:
            self._settled = True
            log.error("the next server did not start (it ended %s): the one before stays", how)
            return None
        self._fail()
        log.error("the server did not start: it ended %s", how)
        return status

    def _fail(self) -> None:
        self._claim.note(Failures(self._claim.failures.count + 1, boottime()))

    def _start_in_time(self) -> None:
        """Start it, but not at once where the last starts have failed."""
        failures = self._claim.failures
        waited = boottime() - failures.at
        if 0 <= waited < pause(failures.count) and not self._watch.changed():
            return
        self._start()

    def _start(self) -> None:
        words = self._words.open()
        # -P: not what lies in the folder that somebody has started Kong from.
        command = [sys.executable, "-P", "-m", "vaultauthz", "kong", "serve", *self._options.words]
        try:
            process = subprocess.Popen(  # noqa: S603 - ourselves
                [*command, "--supervised", self._kong],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,  # no signal of Kong's, or of its terminal
            )
        finally:
            os.close(words)
        self._server = _Started(process, boottime())
        log.info("the server is started, process %d", process.pid)


def pause(failures: int) -> float:
    """Seconds to wait before the next start, after so many that failed one after the other."""
    return 0.0 if failures <= 0 else min(30.0, 2.0 ** min(failures - 1, 5))


_MOST: Final = 32_768  # bytes that Kong is told at once; a pipe holds 65,536


class ServerLog(logging.Handler):
    """The log file, which the servers write to as well; ``relay`` passes on to Kong what is new.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, form: str) -> None:
        super().__init__(logging.INFO)
        self._path = path
        self.setFormatter(LOG_FORMATS[form]())
        os.close(self.open())  # now: a wrong name is told of at the start
        self._relayed = self._size
        with suppress(OSError):
            os.set_blocking(_kong(), False)  # a Kong that stands still holds us not up

    def open(self) -> int:
        """The file, to append to. Raises OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._path, flags, 0o600)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                exc.strerror = "is a link, and the log is not written through one: name the file"
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line of our own."""
        data = f"{self.format(record)}\n".encode(errors="backslashreplace")
        try:
            fd = self.open()
            try:
                os.write(fd, data)
            finally:
                os.close(fd)
        except OSError:  # a full disk: Kong is told at least
            _tell(data)

    def relay(self) -> None:
        """Tell Kong what was written since it was told last; of very much, the end."""
        size = self._size
        if size == self._relayed:
            return
        begin = self._relayed if self._relayed < size else 0  # it was cut, by whoever rotates it
        self._relayed = size
        with suppress(OSError), self._path.open("rb") as file:
            file.seek(max(begin, size - _MOST))
            _tell(file.read(size - file.tell()))

    @property
    def _size(self) -> int:
        with suppress(OSError):
            return self._path.stat().st_size
        return 0


def _tell(data: bytes) -> None:
    with suppress(OSError):  # it listens no more, or is too slow
        os.write(_kong(), data)


def _kong() -> int:
    # Python has none where it was closed before; its number may be another file's by now.
    return sys.stderr.fileno() if sys.stderr else -1
