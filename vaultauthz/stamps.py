"""What changes whenever a file does, also when another is moved into its place."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """Of the file that links lead to: Kubernetes replaces a mounted file by moving a link."""

    modified: int  # nanoseconds
    changed: int  # the same, and not what `cp -p` sets; also when somebody lets us read the file
    inode: int
    size: int


def stamp(path: Path) -> Stamp:
    """The stamp of the file at ``path``.

    Raises:
        OSError: there is none, or it cannot be seen.
    """
    found = path.stat()
    return Stamp(found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size)


def stamp_if_any(path: Path) -> Stamp | None:
    """The same; None where there is none."""
    with contextlib.suppress(OSError):
        return stamp(path)
    return None
