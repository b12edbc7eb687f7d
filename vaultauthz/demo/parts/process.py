"""A child process that logs to a file and never outlives us."""

import atexit
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 15


class PartError(Exception):
    """A part cannot start or work. The message names the binary, port or package at fault, and the way out."""


# Sockets that hold the newest ports of `free_port`: bound, never listening.
_held: deque[socket.socket] = deque()
_MOST_HELD = 256


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that nobody but a server is given from now on.

    On Linux it is held until this process ends (or asks for 256 more): a server with SO_REUSEADDR, as all of ours
    have it, can listen there, again after a stop too, and neither another process that looks for a port nor a
    connection on its way out gets it meanwhile. Elsewhere it is free at the moment of the call and no more.
    """
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port: int = probe.getsockname()[1]
    if sys.platform == "linux":
        # After bind: before it, the kernel would also choose a port that somebody else holds in this way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _held.append(probe)
        if len(_held) > _MOST_HELD:
            _held.popleft().close()
    else:
        probe.close()
    return port


@atexit.register
def _let_go() -> None:
    while _held:
        _held.pop().close()


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 (a port in TIME_WAIT counts as free)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_for(ready: Callable[[], bool], timeout: float) -> bool:
    """Ask `ready` every 20 ms; True as soon as it says so, False after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


class Process:
    """One child process: started, watched, stopped; its output goes to `log`.

    The child gets a session of its own, so that Ctrl-C in the terminal reaches only us and we stop the parts in order.
    On Linux the kernel sends it `death_signal` when the thread that called `start` ends.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: pwd.struct_passwd | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.log = log
        self.name = Path(self.argv[0]).name
        self._env = env
        self._cwd = cwd
        self._user = user
        self._death_signal = death_signal
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._child.pid if self._child and self.running else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status; negative for a signal; None while it runs or before the start."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        """Start the program. Raises PartError if there is no such file or it is running already."""
        if self.running:
            raise PartError(f"{self.name} is running already (pid {self.pid})")
        if not os.access(self.argv[0], os.X_OK):
            raise PartError(
                f"{self.argv[0]} is missing or cannot be run: run make demo in the checkout"
            )
        uid, gid = (self._user.pw_uid, self._user.pw_gid) if self._user else (-1, -1)
        words = [os.getpid(), int(self._death_signal), uid, gid, *self.argv]
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], timeout: float = 20) -> None:
        """Wait until `ready` is true. Raises PartError with the log's tail if the child ends or `timeout` s pass."""
        wait_for(lambda: not self.running or ready(), timeout)
        if not self.running:
            raise PartError(f"{self.name} ended with status {self.returncode}:\n{self.log_tail()}")
        if not ready():
            self.kill()
            raise PartError(f"{self.name} was not ready within {timeout:g} s:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines the child wrote."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def terminate(self, timeout: float = 10, ask: signal.Signals = signal.SIGTERM) -> int | None:
        """Ask it to end, wait `timeout` seconds, then kill it; its exit status, None if it never ran."""
        if self._child is None:
            return None
        self._send(ask)
        # A suspended process takes the signal only when it goes on.
        self._send(signal.SIGCONT)
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.returncode

    def kill(self) -> None:
        """End it at once (SIGKILL) and wait until it is gone."""
        if self._child is not None:
            self._send(signal.SIGKILL)
            self._child.wait()

    def suspend(self) -> None:
        """Freeze it (SIGSTOP): its sockets stay open and nobody answers."""
        self._send(signal.SIGSTOP)
        if self._child is not None:
            # The signal is sent when kill returns; here all of its threads have stopped.
            with contextlib.suppress(ChildProcessError):  # it has ended before
                os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a suspended process go on (SIGCONT)."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        # Popen polls first, so a pid that the kernel gave to somebody else is never signalled.
        if self._child is not None:
            self._child.send_signal(number)
