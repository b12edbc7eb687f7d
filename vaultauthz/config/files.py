"""Files that the configuration names: there, readable, and not open to everybody.

Relative paths start at the folder of the configuration file. What is in a file
never becomes part of a message.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Final

from vaultauthz.config.problems import Refused
from vaultauthz.config.reader import Value
from vaultauthz.core.file_text import BOM, NoTextError, check_form

_LINKS: Final = 40  # as many as the kernel follows
_LARGEST_SECRET = 65_536  # bytes; a secret id has 36


def path(value: Value) -> Path:
    """An absolute path, of a file that may not be there."""
    return value.report.folder / value.text()


def readable(value: Value) -> Path:
    """The path of a file that is there and can be read."""
    found = path(value)
    with _elsewhere(value):
        _check_form(value, found, _first_bytes(value, found, _LARGEST_SECRET))
        _warn_if_exposed(value, found)
    return found


def private(value: Value) -> Path:
    """A readable file with a secret in it; a warning when others can read or replace it."""
    found = path(value)
    with _elsewhere(value):
        data = _first_bytes(value, found, _LARGEST_SECRET)
        _check_form(value, found, data)
        if not data.removeprefix(BOM).strip():
            raise value.wrong(f"{found} is empty; write the secret into it")
        _warn_if_exposed(value, found, secret=True)
    return found


class _AbsentError(Refused):
    """What is named is not on this machine, or not for this user to see."""


def of_gateway(value: Value) -> Path:
    """The path of a file that the gateway reads, not we.

    It is looked at where nothing is served. Who serves is another user, who need not see it.
    """
    return readable(value) if value.report.elsewhere else path(value)


def private_of_gateway(value: Value) -> Path:
    """The same of a private key."""
    return private(value) if value.report.elsewhere else path(value)


@contextmanager
def _elsewhere(value: Value) -> Iterator[None]:
    """What is wrong with a file is only a warning where it is another machine's to have."""
    try:
        yield
    except Refused as refusal:
        _refuse_here(value, refusal)


def _refuse_here(value: Value, refusal: Refused) -> None:
    if not value.report.elsewhere:
        raise refusal
    text = f"{refusal.text}; the machine that serves will need it"
    value.warn(text, absent=isinstance(refusal, _AbsentError))


def awaited(value: Value) -> Path:
    """A secret file that something else writes, perhaps later: a warning when absent.

    Everybody may read it, where that is how its writer leaves it; nobody else may replace it.
    """
    found = _awaited(value)
    _warn_if_exposed(value, found)
    return found


def _awaited(value: Value) -> Path:
    found = path(value)
    with _elsewhere(value):
        mode = _mode(value, found)
        if mode is None:
            value.warn(f"{found} is not there yet; no login before it is", absent=True)
        elif stat.S_ISDIR(mode):
            raise value.wrong(f"{found} is a folder; name the file in it")
        else:
            try:
                check_form(_first_bytes(value, found, _LARGEST_SECRET))
            except NoTextError as exc:  # its writer may write another
                value.warn(f"{found} {exc}")
    return found


def awaited_private(value: Value) -> Path:
    """Like ``awaited``, with a warning when everybody can read it."""
    found = _awaited(value)
    _warn_if_exposed(value, found, secret=True)
    return found


def program(value: Value) -> Path:
    """A program that we may run: one on $PATH, or by its path when that has a slash."""
    word = value.text()
    named = str(value.report.folder / word) if "/" in word else word
    found = shutil.which(named)
    if found is None:  # not repeated: a whole command line may stand there, with a secret
        text = "is no program that can be run here; write its path, and chmod +x it"
        _refuse_here(value, _absent(value, text))
        return Path(named)
    program = Path(found).absolute()
    for place in (program, *(_before(word, program) if "/" not in word else ())):
        if _warn_if_exposed(value, place):
            break
    return program


def _before(word: str, found: Path) -> Iterator[Path]:
    """Where another would be found first, if somebody put it there; see ``shutil.which``."""
    for folder in os.get_exec_path():
        place = (Path(folder) / word).absolute()
        if place == found:
            return
        yield place


def argument(value: Value) -> str:
    """A word for a program; a warning when it is a file, a script say, that others can write."""
    word = value.text()
    try:
        if "/" in word and Path(word).is_file():
            _warn_if_exposed(value, Path(word).absolute())
    except (OSError, ValueError):  # no path at all
        pass
    return word


def socket(value: Value, text: str) -> None:
    """A warning when others can put another in the place of the socket at ``text``."""
    _warn_if_exposed(value, Path(text).parent / "-")


def to_write(value: Value) -> Path:
    """The path of a file to write, which need not be there."""
    found = path(value)
    with _elsewhere(value):
        mode = _mode(value, found)
        if mode is not None and stat.S_ISDIR(mode):
            raise value.wrong(f"{found} is a folder; name a file in it")
        _warn_if_exposed(value, found)
    return found


def _mode(value: Value, found: Path) -> int | None:
    try:
        return found.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _unreadable(value, found, exc) from None


def _first_bytes(value: Value, found: Path, count: int) -> bytes:
    try:
        # Asked before it is opened: opening a pipe waits for a writer.
        if not stat.S_ISREG(found.stat().st_mode):
            raise value.wrong(f"{found} is not a regular file; name one")
        with found.open("rb") as file:
            return file.read(count)
    except OSError as exc:
        raise _unreadable(value, found, exc) from None


def _check_form(value: Value, found: Path, data: bytes) -> None:
    try:
        check_form(data)
    except NoTextError as exc:
        raise value.wrong(f"{found} {exc}") from None


def _unreadable(value: Value, found: Path, exc: OSError) -> Refused:
    why = (exc.strerror or "it does not open").lower()
    return _absent(value, f"{found} cannot be read: {why}; check the path and its rights")


def _absent(value: Value, text: str) -> _AbsentError:
    return _AbsentError(value.line, value.key, text)


def _warn_if_exposed(value: Value, found: Path, *, secret: bool = False) -> bool:
    problem = exposure(found, secret=secret)
    if problem:
        value.warn(problem)
    return problem is not None


def exposure(file: Path, *, secret: bool = False) -> str | None:
    """What others can do with the file at ``file``, and how to mend it; None for nothing.

    The file need not be there. With ``secret`` they must not read it either. A folder that
    everybody may write lets everybody put another file in the file's place, unless it is sticky,
    as /tmp is. Groups are let be: on most systems each user has one of their own.
    """
    mode = _mode_of(file)
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
                f"(mode {stat.S_IMODE(mode):04o}); chmod {change} {quote(str(file))}"
            )
    for folder in _folders(file):
        mode = _mode_of(folder)
        if mode is not None and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return (
                f"everybody on this machine can put another in its place, as they can write "
                f"{folder} (mode {stat.S_IMODE(mode):04o}); chmod o-w {quote(str(folder))}"
            )
    return None


def _folders(file: Path) -> Iterator[Path]:
    """Those that lead to it, by each link on the way."""
    here = file.absolute()
    for _ in range(_LINKS):
        yield from here.parents
        try:
            here = here.parent / here.readlink()
        except OSError:  # it is no link
            break
    try:
        yield from file.resolve().parents
    except (OSError, RuntimeError):  # links in a circle
        return


def _mode_of(file: Path) -> int | None:
    try:
        return file.stat().st_mode
    except (OSError, ValueError):
        return None
