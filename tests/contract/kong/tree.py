"""Kong's processes, a script of its own: nginx's master, and worker 0, which runs `start_cmd`.

A worker 0 that ends sends SIGTERM to what it has started and, a moment later, SIGKILL: the first is Kong's, the
second is in the destructor of its pipe object. Both go to that one process. It happens at a stop, at a quit, and
at each reload; never when the worker itself is killed.

Commands come on standard input, events go to standard output, each a line of JSON. Used by `process`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

DESTRUCTOR = 0.14  # seconds from SIGTERM to SIGKILL; 0.10 to 0.18 were measured
MOST = 3000  # bytes of a line: below PIPE_BUF, so that those of two processes do not mix


def tell(**event: Any) -> None:
    """Write an event."""
    os.write(1, json.dumps(event).encode() + b"\n")


class Worker:
    """Worker 0 of one generation."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.child = 0

    def run(self) -> NoReturn:
        """Run the command, and again when it ended, at most once in `respawn` seconds."""
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, self.exit)
        while True:
            next_start = time.monotonic() + self.told["respawn"]
            keep, output = self.spawn()
            self.grab(output)
            _, status = os.waitpid(self.child, 0)
            ended, self.child = self.child, 0
            os.close(keep)
            os.close(output)
            code = os.waitstatus_to_exitcode(status)
            why = f"exit {code}" if code >= 0 else f"signal {-code}"
            tell(generation=self.told["generation"], ended=ended, why=why)
            time.sleep(max(0.0, next_start - time.monotonic()))

    def spawn(self) -> tuple[int, int]:
        """Start the command; our ends of its standard input and output."""
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        self.child = os.fork()
        if not self.child:
            for number in (signal.SIGTERM, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            for end, fd in ((theirs_in, 0), (theirs_out, 1), (theirs_out, 2)):
                os.dup2(end, fd)
            command = ["/bin/sh", "-c", f"exec {self.told['command']}"]
            os.execve(command[0], command, self.told["environment"])
        os.close(theirs_in)
        os.close(theirs_out)
        tell(generation=self.told["generation"], started=self.child)
        return ours_in, ours_out

    def grab(self, output: int) -> None:
        """Pass its lines on until nobody can write any more: whoever else has the pipe holds Kong up."""
        with os.fdopen(os.dup(output), "rb") as lines:
            for line in lines:
                text = line[:MOST].decode(errors="replace").rstrip()
                tell(generation=self.told["generation"], pid=self.child, line=text)

    def exit(self, _number: int, _frame: object) -> NoReturn:
        """Both signals, and the end."""
        if self.child:
            os.kill(self.child, signal.SIGTERM)
            time.sleep(DESTRUCTOR)
            if os.waitpid(self.child, os.WNOHANG) == (0, 0):
                os.kill(self.child, signal.SIGKILL)
        os._exit(0)


class Master:
    """Starts workers, starts one that has died again, and ends with the last one."""

    def __init__(self) -> None:
        self.workers: dict[int, dict[str, Any]] = {}

    def run(self) -> None:
        """Until told to stop, or nobody is there any more to tell."""
        rest = b""
        while True:
            if select.select([0], [], [], 0.02)[0]:
                data = os.read(0, 65536)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.take(json.loads(line))
            self.reap()
        for worker in self.workers:
            os.kill(worker, signal.SIGTERM)
        for worker, told in self.workers.items():
            os.waitpid(worker, 0)
            tell(generation=told["generation"], over=worker)

    def take(self, told: dict[str, Any]) -> None:
        """A generation is to begin, or to end."""
        if "command" in told:
            self.start(told)
            return
        for worker, of in self.workers.items():
            if of["generation"] == told["generation"]:
                of["ends"] = True
                os.kill(worker, signal.SIGQUIT)

    def start(self, told: dict[str, Any]) -> None:
        """Another worker 0."""
        pid = os.fork()
        if not pid:
            script = ["-I", "-S", __file__, json.dumps(told)]
            os.execv(str(Path("/proc/self/exe").readlink()), ["nginx: worker process", *script])
        self.workers[pid] = told
        tell(generation=told["generation"], worker=pid)

    def reap(self) -> None:
        """See which workers have ended."""
        while self.workers:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if told := self.workers.pop(pid, None):  # else it is an orphan that we have taken in
                tell(generation=told["generation"], over=pid)
                if not told.get("ends"):
                    self.start(told)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for given in sys.argv[1:]:
        Worker(json.loads(given)).run()
    Master().run()
