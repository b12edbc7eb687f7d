"""A disk of our own that can be filled: a small tmpfs, else a limit on the size of a process's files."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MIB: Final = 64
_CHUNK: Final = 1 << 16


class Disk:
    """Where the audit log is. ``real``: it is a file system of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        argv = ["mount", "-t", "tmpfs", "-o", f"size={_MIB}m,mode=700", "tmpfs", str(folder)]
        try:
            self.real = subprocess.run(argv, capture_output=True, check=False).returncode == 0
        except OSError:
            self.real = False

    @contextlib.contextmanager
    def full(self, log: Path, pid: int | None) -> Iterator[None]:
        """Nothing more can be written there, while it is entered; ``pid``: of the process that writes ``log``."""
        if self.real:
            filler = self.folder / "filler"
            try:
                with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                    while file.write(b"\0" * _CHUNK) == _CHUNK:
                        pass
                yield
            finally:
                filler.unlink(missing_ok=True)
            return
        assert pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size, before[1]))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def close(self) -> None:
        """Give it back. What is on it is gone."""
        if self.real:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
