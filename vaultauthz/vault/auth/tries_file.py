"""Where the tries are kept for the next start: a file a name, in a folder that is ours alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LIMIT: Final = 4096  # bytes of a record, read
SIZE: Final = 2048  # bytes of a record, written: always as many, so that one write does it


class RecordFile:
    """A name's file, locked. What it holds is times and marks: no name, and no secret."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.text = os.pread(number, LIMIT, 0).decode("utf-8", "replace").rstrip()
        self.written_at = os.fstat(number).st_mtime

    def write(self, text: str) -> bool:
        """Whether it is kept now. On a full disk what was there before stays whole."""
        if text == self.text:
            return True
        data = text.encode().ljust(SIZE)
        try:
            done = os.pwrite(self._number, data, 0) == len(data)
            os.ftruncate(self._number, SIZE)
        except OSError:
            return False
        return done


@contextlib.contextmanager
def opened(folder: Path | None, key: str) -> Iterator[RecordFile | None]:
    """The file ``key`` in ``folder``, made if need be; None when it cannot be had."""
    number = _number(folder, key) if folder else None
    try:
        file = None
        if number is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(number, fcntl.LOCK_EX)
                file = RecordFile(number)
        yield file
    finally:
        if number is not None:
            os.close(number)


def _number(folder: Path, key: str) -> int | None:
    """Its descriptor. No link is followed, and nothing is opened that is somebody else's."""
    common = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | common)
    except OSError:
        return None
    try:
        if not _alone(os.fstat(inside)):
            return None
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | common
        number = os.open(f"{key}.json", flags, 0o600, dir_fd=inside)
    except OSError:
        return None
    finally:
        os.close(inside)
    found = os.fstat(number)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        return number
    os.close(number)
    return None


def runtime_folder() -> Path | None:
    """Where records are kept: what systemd gives the service, or the user, or the system.

    Of the last, which is everybody's, a folder that is ours alone. None when there is none,
    as where nothing can be written at all.
    """
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        given = os.environ.get(variable, "").partition(":")[0]
        if given:
            return _own(Path(given) / "vaultauthz")
    try:
        return _own(Path(tempfile.gettempdir()) / f"vaultauthz-{os.geteuid()}")
    except OSError:  # no folder for temporary files can be written
        return None


def _own(folder: Path) -> Path | None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if _alone(folder.lstat()) else None
    except OSError:
        return None


def _alone(found: os.stat_result) -> bool:
    """Whether it is a folder that nobody else can look into or change."""
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return ours and not found.st_mode & 0o077
