"""Other processes: whether one is still there, and which of them is Kong.

A number is given to another process some time after its own has ended. So each is held by a
descriptor of its own (``pidfd_open``), or told by the moment at which it began.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_MASTER: Final = b"nginx: master process"  # what nginx puts in the place of its arguments
_DEEP: Final = 16  # ancestors that are looked at: a shell or `sudo` may be among them


class WatchedProcess:
    """A process by its number. ``began`` is a ``began`` of before, if it was seen before."""

    def __init__(self, pid: int, began: str | None = None) -> None:
        self.pid = pid
        self._ended = False
        self._fd = self._opened()
        now = began_at(pid)
        self.began = now if began is None else began
        if began and now and began != now:
            self._ended = True  # the number is another's by now

    def _opened(self) -> int:
        try:
            return os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._ended = True
        except (AttributeError, OSError):
            pass  # a system, or a sandbox, without it
        return -1

    @property
    def gone(self) -> bool:
        """Whether it has ended; also one that nobody has waited for yet."""
        if not self._ended:
            self._ended = self._readable() if self._fd >= 0 else not self._listed()
        return self._ended

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def _listed(self) -> bool:
        if self.began:
            return began_at(self.pid) == self.began
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(PermissionError):
                os.kill(self.pid, 0)
            return True
        return False


def began_at(pid: int, proc: Path = PROC) -> str:
    """When it began, in ticks since the system did; "" where that is not told, or it has ended."""
    fields = _stat(pid, proc)
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def parent_of(pid: int, proc: Path = PROC) -> int:
    """Its parent; 0 where it is not to be found out."""
    fields = _stat(pid, proc)
    return int(fields[1]) if len(fields) > 1 else 0


def master_of(worker: int, proc: Path = PROC) -> int:
    """The master of Kong's that a process belongs to: a reload ends its workers, not it.

    0 where none is seen, as in a /proc that hides others' processes, or under no Kong. A worker
    must not be taken for it: each reload would look like Kong's end.
    """
    pid = worker
    for _ in range(_DEEP):
        if pid <= 0:
            break
        if _arguments(pid, proc).startswith(_MASTER):
            return pid
        pid = parent_of(pid, proc)
    return 0


def _stat(pid: int, proc: Path) -> list[str]:
    """The fields behind its name, which may hold a bracket: state, parent and so on."""
    with contextlib.suppress(OSError):
        return (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def _arguments(pid: int, proc: Path) -> bytes:
    with contextlib.suppress(OSError):
        return (proc / str(pid) / "cmdline").read_bytes()
    return b""
