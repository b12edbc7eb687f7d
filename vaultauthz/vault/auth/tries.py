"""Logins that Vault locks after some wrong ones: how often each may be tried.

Vault counts an AppRole's, a userpass user's and an LDAP user's wrong tries. Each that
comes within 15 minutes of the one before makes the count grow; at five the name is locked
for 15 minutes, for everybody. So five tries four minutes apart lock it as five at once do:
after some there must be a quiet quarter of an hour, and a bit. A login that brought no
answer may yet be found wrong: behind LDAP a directory hangs for longer than we wait.
Source: ``failedUserLoginProcess`` of vault/request_handling.go.

We make at most three tries in a row with what was tried before, and a fourth with what is
new in the file, which leaves one to somebody else. What is known is kept in a file (of
times, no secret) for the next start and for others on this machine; what other machines
try with the same name is not known.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Final

_LIMIT: Final = 4096  # bytes of a record


@dataclass(frozen=True, slots=True)
class Bounds:
    """In seconds and tries, by Vault's defaults: lockout_threshold=5, lockout_counter_reset=15m."""

    # After which the next wrong try is Vault's first: one that we gave up may have been found
    # wrong 90 s later (request_timeout of LDAP).
    quiet: float = 1020.0
    pause: float = 240.0  # between tries with what was tried before
    same: int = 3  # tries in a row with what was tried before
    new: int = 4  # … and with what was not

    def wait(
        self, tries: Sequence[float], now: float, *, same: bool, silent: bool = False
    ) -> float:
        """Seconds until the next try does no harm; ``tries`` are those in a row, oldest first.

        ``silent``: the last one brought no answer. If it was the first, most likely Vault
        itself was away for a moment, and the next need not wait.
        """
        if not tries:
            return 0.0
        since = max(0.0, now - tries[-1])
        if since >= self.quiet:
            return 0.0
        if len(tries) >= (self.same if same else self.new):
            return self.quiet - since
        at_once = not same or (silent and len(tries) == 1)
        return 0.0 if at_once else max(0.0, self.pause - since)

    def in_a_row(self, tries: Sequence[float], now: float) -> list[float]:
        """Those of ``tries`` that Vault may still count."""
        # A clock that was set back must not make a wait of it.
        kept = [min(at, now) for at in tries]
        for place in range(len(kept) - 1, -1, -1):
            after = kept[place + 1] if place + 1 < len(kept) else now
            if after - kept[place] >= self.quiet:
                return kept[place + 1 :]
        return kept


@dataclass(slots=True)
class Record:
    """What is known of one name. A mark says what was tried, without telling it."""

    tries: list[float] = field(default_factory=list)  # wrong, or perhaps; since 1970
    tried: str = ""  # the mark of the last of them
    worked: str = ""  # the mark of the last that worked
    silent: bool = False  # the last of them brought no answer

    @classmethod
    def read(cls, text: str) -> Record:
        """What the file holds; an empty one when that is no record."""
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            found: Any = json.loads(text)
            tries = [float(at) for at in found["tries"]][-8:]
            return cls(tries, str(found["tried"]), str(found["worked"]), found["silent"] is True)
        return cls()

    def text(self) -> str:
        """For the file."""
        return json.dumps(asdict(self))


class Tries:
    """The tries of all stages, shared by them. Safe for threads and for processes."""

    def __init__(
        self,
        folder: Callable[[], Path | None],
        bounds: Bounds = Bounds(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``folder`` for the records, None: they are kept in memory only."""
        self.bounds = bounds
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, Record] = {}

    def begin(self, name: str, mark: str) -> float:
        """Seconds to wait; 0: the try may be made, and counts unless ``spare`` says otherwise."""
        now = self._clock()
        with self._record(name) as record:
            record.tries = self.bounds.in_a_row(record.tries, now)
            same = mark == record.tried
            wait = self.bounds.wait(record.tries, now, same=same, silent=record.silent)
            if wait <= 0:
                record.tries.append(now)
                # Until the answer is there: should we be killed meanwhile, there was none.
                record.tried, record.silent = mark, True
            return wait

    def spare(self, name: str) -> None:
        """The try that was begun is none that Vault counts."""
        with self._record(name) as record:
            del record.tries[-1:]
            record.silent = False

    def worked(self, name: str, mark: str) -> None:
        """The try worked: Vault forgets those before."""
        with self._record(name) as record:
            record.tries, record.tried, record.worked, record.silent = [], "", mark, False

    def refused(self, name: str, mark: str) -> float:
        """It was wrong. Seconds until the next; infinity where what is tried has never worked."""
        now = self._clock()
        with self._record(name) as record:
            record.silent = False
            if record.worked != mark:
                return inf
            return self.bounds.wait(record.tries, now, same=True)

    def has_worked(self, name: str, mark: str) -> bool:
        """Whether what is tried now was the last that worked."""
        with self._record(name) as record:
            return record.worked == mark

    def silent(self, name: str) -> bool:
        """Whether the last try brought no answer."""
        with self._record(name) as record:
            return record.silent and bool(record.tries)

    @contextlib.contextmanager
    def _record(self, name: str) -> Iterator[Record]:
        """The name's record, written back at the end."""
        key = hashlib.sha256(name.encode()).hexdigest()[:32]
        with self._lock, contextlib.ExitStack() as held:
            number = _opened(self._folder(), key)
            if number is None:
                yield self._known.setdefault(key, Record())
                return
            file = held.enter_context(os.fdopen(number, "r+"))
            fcntl.flock(file, fcntl.LOCK_EX)
            before = file.read(_LIMIT)
            record = Record.read(before)
            yield record
            if record.text() != before:
                with contextlib.suppress(OSError):  # a full disk
                    file.seek(0)
                    file.truncate()
                    file.write(record.text())
                    file.flush()


def _opened(folder: Path | None, key: str) -> int | None:
    if folder is None:
        return None
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(folder / f"{key}.json", flags, 0o600)
    except OSError:
        return None


def runtime_folder() -> Path | None:
    """Where records are kept: what systemd gives the service, or the user, or the system.

    Of the last, which is everybody's, a folder that is ours alone. None when there is none.
    """
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        given = os.environ.get(variable, "").partition(":")[0]
        if given:
            return _own(Path(given) / "vaultauthz")
    return _own(Path(tempfile.gettempdir()) / f"vaultauthz-{os.geteuid()}")


def _own(folder: Path) -> Path | None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return folder if ours and not found.st_mode & 0o077 else None


SHARED: Final = Tries(runtime_folder)
