"""Logins that Vault locks after some wrong ones: how often each may be tried.

Vault counts an AppRole's, a userpass user's and an LDAP user's wrong tries, each when it
has found it wrong. One that comes within 15 minutes of the one before makes the count grow;
at five the name is locked for 15 minutes, for everybody. So five tries four minutes apart
lock it as five at once do: after some there must be a quiet quarter of an hour, and a bit.
A login that brought no answer may yet be found wrong: behind LDAP a directory hangs for
longer than we wait, so that a login that works meanwhile does not make up for it.
Source: ``failedUserLoginProcess`` and ``RegisterAuth`` of vault/request_handling.go.

We make at most three tries in a row with what was tried before, and a fourth with what is
new in the file, which leaves one to somebody else. What is known is kept in a file (of
times, no secret) for the next start and for others on this machine; what other machines
try with the same name is not known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from math import inf, isfinite
from pathlib import Path
from typing import Any, Final

from vaultauthz.vault.auth.tries_file import RecordFile, opened, runtime_folder

log = logging.getLogger(__name__)

_MOST: Final = 8  # tries of a record; more are never made in a row


class How(StrEnum):
    """What is known of a try."""

    OUT = "out"  # nothing yet, or its process was killed meanwhile
    SILENT = "silent"  # it brought no answer
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Try:
    """One that Vault counts, or may yet. ``at``: since 1970, of its begin; of its end if WRONG."""

    at: float
    key: str = ""  # which one it is
    how: How = How.OUT


@dataclass(frozen=True, slots=True)
class Bounds:
    """In seconds and tries, by Vault's defaults: lockout_threshold=5, lockout_counter_reset=15m."""

    # After which the next wrong try is Vault's first: one that we gave up may have been found
    # wrong 90 s later (request_timeout of LDAP).
    quiet: float = 1020.0
    late: float = 120.0  # after which one without an answer has been counted, if ever
    pause: float = 240.0  # between tries with what was tried before
    same: int = 3  # tries in a row with what was tried before
    new: int = 4  # … and with what was not
    out: float = 30.0  # for which another's try, whose end is not known, is waited for
    soon: float = 1.0  # … by looks that are so far apart

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

    def in_a_row(self, tries: Sequence[Try], now: float) -> list[Try]:
        """Those of ``tries`` that Vault may still count, oldest first."""
        # A clock that was set back must not make a wait of it.
        kept = sorted((replace(each, at=min(each.at, now)) for each in tries), key=lambda t: t.at)
        for place in range(len(kept) - 1, -1, -1):
            after = kept[place + 1].at if place + 1 < len(kept) else now
            if after - kept[place].at >= self.quiet:
                return kept[place + 1 :]
        return kept


@dataclass(slots=True)
class Record:
    """What is known of one name. A mark says what was tried, without telling it."""

    tries: list[Try] = field(default_factory=list)  # wrong, or perhaps
    tried: str = ""  # the mark of the last of them
    worked: str = ""  # the mark of the last that worked

    @property
    def silent(self) -> bool:
        """Whether the last of them brought no answer."""
        return bool(self.tries) and self.tries[-1].how is not How.WRONG

    def without(self, turn: Turn) -> list[Try]:
        """The tries but this one."""
        return [each for each in self.tries if each.key != turn.key]

    @classmethod
    def read(cls, text: str) -> Record | None:
        """What the file holds; None when that is no record."""
        with contextlib.suppress(
            ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError
        ):
            found: Any = json.loads(text)
            tries = [
                Try(float(each["at"]), str(each["key"]), How(each["how"]))
                for each in found["tries"]
            ]
            if all(isfinite(each.at) for each in tries):
                return cls(tries[-_MOST:], str(found["tried"]), str(found["worked"]))
        return None

    def text(self) -> str:
        """For the file."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Turn:
    """A try that was asked for; to be made if ``wait`` is 0, else after so many seconds."""

    name: str
    mark: str
    at: float
    key: str
    wait: float = 0.0


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
        self._unkept: set[str] = set()  # of which the file does not hold what is known
        self._alone: dict[str, threading.Lock] = {}

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Around a try: those of one process for one name are made one after the other.

        Whether it is ours to try: stages that start together must not take each other's
        tries, of which nothing is known yet, for wrong ones.
        """
        with self._lock:
            lock = self._alone.setdefault(name, threading.Lock())
        mine = lock.acquire(timeout=self.bounds.out)
        try:
            yield mine
        finally:
            if mine:
                lock.release()

    def begin(self, name: str, mark: str) -> Turn:
        """Ask for a try; if it may be made it counts, unless ``spare`` says otherwise."""
        now = self._clock()
        turn = Turn(name, mark, now, os.urandom(6).hex())
        with self._record(name) as record:
            record.tries = self.bounds.in_a_row(record.tries, now)
            wait = self.bounds.wait(
                [each.at for each in record.tries],
                now,
                same=mark == record.tried,
                silent=record.silent,
            )
            if wait <= 0:
                record.tries.append(Try(now, turn.key))
                record.tried = mark
            elif any(t.how is How.OUT and now - t.at < self.bounds.out for t in record.tries):
                wait = min(wait, self.bounds.soon)
            return replace(turn, wait=wait)

    def spare(self, turn: Turn) -> None:
        """The try that was begun is none that Vault counts."""
        with self._record(turn.name) as record:
            record.tries = record.without(turn)

    def unanswered(self, turn: Turn) -> None:
        """Nobody knows whether Vault has found it wrong, or will."""
        with self._record(turn.name) as record:
            record.tries = [
                replace(each, how=How.SILENT) if each.key == turn.key else each
                for each in record.tries
            ]

    def worked(self, turn: Turn) -> None:
        """The try worked: Vault forgets those it has found wrong before, and no others."""
        now = self._clock()
        with self._record(turn.name) as record:
            record.tries = [
                each
                for each in record.without(turn)
                if (
                    each.at >= turn.at
                    if each.how is How.WRONG
                    else now - each.at < self.bounds.late
                )
            ]
            record.tried, record.worked = "", turn.mark

    def refused(self, turn: Turn) -> float:
        """It was wrong. Seconds until the next; infinity where what is tried has never worked."""
        now = self._clock()
        with self._record(turn.name) as record:
            record.tries = [*record.without(turn), Try(now, turn.key, How.WRONG)]
            if record.worked != turn.mark:
                return inf
            return self.bounds.wait([each.at for each in record.tries], now, same=True)

    def silent(self, name: str) -> bool:
        """Whether the last try brought no answer."""
        with self._record(name) as record:
            return record.silent

    @contextlib.contextmanager
    def _record(self, name: str) -> Iterator[Record]:
        """The name's record, written back at the end."""
        key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        with self._lock, opened(self._folder(), key) as file:
            record = self._found(key, file)
            yield record
            self._known[key] = record
            if file and file.write(record.text()):
                self._unkept.discard(key)
            else:
                self._tell_unkept()
                self._unkept.add(key)

    def _found(self, key: str, file: RecordFile | None) -> Record:
        known = self._known.get(key)
        if file is None or (known and key in self._unkept):
            return known or Record()
        if not file.text:
            return Record()
        record = Record.read(file.text) or known
        if record is None:
            # As if all tries had been used up when it was written: that passes by itself.
            log.warning("the record of tries %s.json is damaged: no login for a while", key)
            record = Record([Try(file.written_at, how=How.WRONG)] * self.bounds.new)
        return record

    def _tell_unkept(self) -> None:
        if not self._unkept:
            log.warning(
                "wrong logins are counted in memory only, until the next start: no folder that is "
                "this user's alone in RUNTIME_DIRECTORY, XDG_RUNTIME_DIR or the temporary files, "
                "or it cannot be written"
            )


SHARED: Final = Tries(runtime_folder)
