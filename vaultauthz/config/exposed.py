"""Whether others on this machine can change a file: by its mode, or by a folder above it.

A folder that everybody may write lets everybody put another file in the file's place, unless
it is sticky, as /tmp is. Groups are let be: on most systems each user has one of their own.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Final

_LINKS: Final = 40  # as many as the kernel follows


def exposed(path: Path, *, secret: bool = False) -> str | None:
    """What others can do with the file at ``path``, and how to mend it; None for nothing.

    The file need not be there. With ``secret`` they must not read it either.
    """
    mode = _mode(path)
    # /dev/null and /dev/stdout are everybody's by nature: nothing that is written stays there.
    if mode is not None and not stat.S_ISDIR(mode) and not stat.S_ISCHR(mode):
        can = [
            word
            for word, bit in (("read", stat.S_IROTH if secret else 0), ("write", stat.S_IWOTH))
            if mode & bit
        ]
        if can:
            change = "600" if secret else "o-w"
            return (
                f"everybody on this machine can {' and '.join(can)} it "
                f"(mode {stat.S_IMODE(mode):04o}); chmod {change} {quote(str(path))}"
            )
    for folder in _folders(path):
        mode = _mode(folder)
        if mode is not None and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return (
                f"everybody on this machine can put another in its place, as they can write "
                f"{folder} (mode {stat.S_IMODE(mode):04o}); chmod o-w {quote(str(folder))}"
            )
    return None


def _folders(path: Path) -> Iterator[Path]:
    """Those that lead to it, by each link on the way."""
    here = path.absolute()
    for _ in range(_LINKS):
        yield from here.parents
        try:
            here = here.parent / here.readlink()
        except OSError:  # it is no link
            break
    try:
        yield from path.resolve().parents
    except (OSError, RuntimeError):  # links in a circle
        return


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None
