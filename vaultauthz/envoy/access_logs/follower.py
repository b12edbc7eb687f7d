"""Follows the log in a thread of its own, and hands on the requests in it.

The file is the buffer: while the audit log has no room, or cannot be written, nothing is read.
The position that is kept is that of lines which the audit log has written; so a line is never
lost by us, and what was read since the last keeping is written twice after a crash.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any, Final, Protocol

from vaultauthz.core.redaction import where
from vaultauthz.envoy.access_logs.finished import UnreadableLineError, parse_lines, read_line
from vaultauthz.envoy.access_logs.log_file import Lines, Position, save
from vaultauthz.envoy.access_logs.stream import INTERNAL, TOO_LARGE, UNREADABLE
from vaultauthz.envoy.access_logs.trail import Trail
from vaultauthz.envoy.access_logs.unchecked import Reporter, UncheckedRequests

_POLL: Final = 0.2  # seconds between looks at a file that has nothing new
_STEP: Final = 0.01
_LAST: Final = 0.1  # seconds for what is in hand when the time to stop is up
_KEEP: Final = 0.25  # seconds between two writings of the position
# Seconds until it is read again after a fault of ours; doubled each time.
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
# Lines in a row; then checks, which wait for the interpreter, have their turn. About 0.4 ms.
_TURN: Final = 64

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """The audit log, behind ``UncheckedRequests``."""

    @property
    def has_room(self) -> bool:
        """Whether it takes lines now, and writes them soon."""

    def then(self, call: Callable[[], None]) -> None:
        """Call it, in another thread, once all that was handed over before is written."""


class Follower:
    """Reads the log at ``path`` into ``requests``; ``ignored`` is told what it passes over.

    ``wall`` is the time in seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        requests: UncheckedRequests,
        audit: Recorder,
        ignored: Callable[[str, int], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._trail = Trail(path)
        self._requests = requests
        self._audit = audit
        self._ignored = ignored
        self._wall = wall
        self._reporter = Reporter("", sure=False)  # of the line before, as a rule of all of them
        self._handed: Position | None = None
        self._written: Position | None = None  # set by the audit log's thread
        self._kept: Position | None = None
        self._keep_at = 0.0
        self._keeping = True  # the last time that it was tried
        self._behind = 0
        self._closing = Flag()
        self._end_at = 0.0
        self._thread = Thread(target=self._run, name="access-file", daemon=True)

    @property
    def behind(self) -> int:
        """Bytes of the log that were not read yet, when it was last looked at."""
        return self._behind

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether it has been told to stop."""
        return self._closing.is_set()

    def stop(self, timeout: float) -> bool:
        """Read what is there, within ``timeout`` seconds; whether all of it is written and kept."""
        self._end_at = time.monotonic() + timeout
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(timeout + _LAST)
        return not self._thread.is_alive() and self._kept == self._handed and not self._behind

    def keep(self) -> None:
        """Keep the position once more, when it has stopped and the audit log has too."""
        if not self._thread.is_alive():
            self._keep(at_once=True)

    def _run(self) -> None:
        pause = _PAUSE
        while not self._read_on():
            log.error("access log %s: it is read again in %g s", self._path, pause)
            if self._closing.wait(pause):
                break
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _read_on(self) -> bool:
        """Read until the end; False when a fault of ours came before it."""
        try:
            while not self._over():
                more = self._turn()
                self._keep()
                if more:
                    continue
                if self._closing.is_set():
                    break
                self._closing.wait(_POLL)
            self._keep_last()
        except Exception as exc:  # noqa: BLE001 - it begins anew at the position
            log.error("access log %s: a fault of ours: %s", self._path, where(exc))  # noqa: TRY400
            self._begin_anew()
            return False
        finally:
            self._trail.close()
        return True

    def _begin_anew(self) -> None:
        """From what is written, so that no line is lost; what is not yet will be there twice."""
        self._keep(at_once=True)
        self._trail.close()
        self._trail = Trail(self._path)

    def _over(self) -> bool:
        return self._closing.is_set() and time.monotonic() >= self._end_at

    def _turn(self) -> bool:
        """Read on; whether there was something."""
        if not self._audit.has_room:
            self._behind = self._trail.behind
            return self._has_room()
        found = self._trail.take()
        self._behind = self._trail.behind
        if not found:
            return False
        if self._take(found):
            self._handed = self._trail.position
            self._audit.then(partial(self._reached, self._handed))
        return True

    def _has_room(self) -> bool:
        """Wait until the audit log takes lines; False when that is not before the end."""
        while not self._audit.has_room:
            if self._over():
                return False
            time.sleep(_STEP)
        return True

    def _take(self, found: Lines) -> bool:
        """Hand them on; False when they could not all be, and must be read again."""
        if found.too_long:
            self._ignored(TOO_LARGE, found.too_long)
        for start in range(0, len(found.lines), _TURN):
            if not self._take_turn(found.lines[start : start + _TURN]):
                return False
            time.sleep(0)
        return True

    def _take_turn(self, lines: Sequence[bytes]) -> bool:
        now, unreadable, failures = self._wall(), 0, 0
        for values in parse_lines(lines):
            if not self._audit.has_room and not self._has_room():
                return False
            try:
                self._take_one(values, now)
            except UnreadableLineError:
                unreadable += 1
            except Exception as exc:  # noqa: BLE001 - one line must not cost us the log
                failures += 1
                if failures == 1:
                    log.error("access log lines are lost: %s", where(exc))  # noqa: TRY400
        for why, count in ((UNREADABLE, unreadable), (INTERNAL, failures)):
            if count:
                self._ignored(why, count)
        return True

    def _take_one(self, values: Any, now: float) -> None:
        finished = read_line(values, now)
        if finished is None:
            return
        access = finished.access
        if not self._requests.known(access.stage, access.upstream):
            return
        if finished.node != self._reporter.node:
            self._reporter = Reporter(finished.node, sure=False)
        if finished.refused:
            self._requests.refused(access, finished.refused)
            return
        self._requests.answered(access, finished.status)
        if finished.sent:
            self._requests.sent(access, finished.status, self._reporter, finished.span)

    def _reached(self, position: Position | None) -> None:
        self._written = position

    def _keep(self, *, at_once: bool = False) -> None:
        """Keep the position of what is written; now and then, it is a file each time."""
        written, now = self._written, time.monotonic()
        if written is None or written == self._kept or (now < self._keep_at and not at_once):
            return
        self._keep_at = now + _KEEP
        try:
            save(self._path, written)
        except OSError as exc:
            if self._keeping:
                log.warning(
                    "access log %s: the .position beside it cannot be written (%s); after a restart "
                    "lines would be in the audit log twice",
                    self._path,
                    exc.strerror,
                )
            self._keeping = False
        else:
            self._keeping, self._kept = True, written

    def _keep_last(self) -> None:
        """Wait until what was handed over is written, and keep that."""
        while self._written != self._handed and not self._over():
            time.sleep(_STEP)
        self._keep(at_once=True)
