"""What a command prints, and a server logs: for people text, in the terminal's width, for programs JSON."""

from __future__ import annotations

import json
import logging
import textwrap
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from types import MappingProxyType
from typing import Any, Final, TextIO

from vaultauthz.log_queue import LogQueue, direct

_GAP: Final = "  "
_WRAPPED: Final[dict[str, Any]] = {"subsequent_indent": "    ", "break_on_hyphens": False}
_SHORTEST: Final = 12  # characters that are left of a name that does not fit


@dataclass(frozen=True, slots=True)
class Output:
    """Where the answer goes and how; ``width`` is None where lines may be of any length."""

    out: TextIO
    as_json: bool = False
    width: int | None = None

    def lines(self, *lines: str) -> None:
        """For people, at a terminal that must not take any text for a command."""
        for line in lines:
            shown = "".join(char if char.isprintable() else "?" for char in line.rstrip())
            fits = self.width is None or len(shown) <= self.width
            parts = [shown] if fits else textwrap.wrap(shown, self.width or 0, **_WRAPPED)
            self.out.writelines(f"{part}\n" for part in parts)

    def json(self, value: Any) -> None:
        """For programs."""
        self.out.write(json.dumps(value, indent=2) + "\n")


def columns(cells: list[list[str]], width: int | None, *, least: int) -> list[str]:
    """The lines of a table, ``cells[0]`` its headings.

    What does not fit in ``width`` loses its last columns, down to ``least`` of them,
    and then the end of the first column's text.
    """
    while width is not None and _width(cells) > width and len(cells[0]) > least:
        cells = [line[:-1] for line in cells]
    if width is not None and _width(cells) > width:
        longest = max(_SHORTEST, _widest(cells, 0) - (_width(cells) - width))
        cells = [[_cut(line[0], longest), *line[1:]] for line in cells]
    widths = [_widest(cells, column) for column in range(len(cells[0]))]
    return [
        _GAP.join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _widest(cells: Sequence[Sequence[str]], column: int) -> int:
    """The widest cell of a column."""
    return max(len(line[column]) for line in cells)


def _width(cells: Sequence[Sequence[str]]) -> int:
    count = len(cells[0])
    return sum(_widest(cells, column) for column in range(count)) + len(_GAP) * (count - 1)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


# --- the log -----------------------------------------------------------------

TEXT_LINE: Final = "%(asctime)s %(levelname)s %(message)s"
# `extra` of a line that answers somebody, who is to see it as often as it was asked for.
EACH_TIME: Final[Mapping[str, Any]] = {"each_time": True}
_TELL_EVERY: Final = 60.0  # seconds between two lines of the same
_MOST_KNOWN: Final = 1024  # lines that are known not to be new


class TextLines(logging.Formatter):
    """For people: time, level and message; what a message is made of cannot begin a line of its own."""

    def __init__(self) -> None:
        super().__init__(TEXT_LINE)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and every character in it that a terminal would obey, or end it at, escaped."""
        record.message = record.getMessage()
        if record.exc_info and record.exc_info[0]:  # not its text, which may quote a value
            record.message += f": {record.exc_info[0].__name__}"
        record.asctime = self.formatTime(record)
        line = self.formatMessage(record)
        if line.isprintable():
            return line
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in line
        )


class JsonLines(logging.Formatter):
    """For programs: an object on a line, in ASCII.

    ``time`` is in UTC as RFC 3339 has it, with milliseconds; then ``level``, ``logger`` and
    ``message``, and as keys of their own what stands in ``extra={"fields": {…}}`` and is not "".
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": f"{when.isoformat(timespec='milliseconds')[:23]}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        more = {name: value for name, value in fields.items() if value not in ("", None)}
        if record.exc_info and record.exc_info[0]:
            more["exception"] = record.exc_info[0].__name__
        return json.dumps({**line, **more, **line}, default=str)


LOG_FORMATS: Final[Mapping[str, Callable[[], logging.Formatter]]] = {
    "text": TextLines,
    "json": JsonLines,
}


def log_format(chosen: str, stream: TextIO) -> str:
    """``chosen``, where that is one of ``LOG_FORMATS``; what is fit for ``stream`` if it is ``auto``."""
    if chosen != "auto":
        return chosen
    return "text" if stream.isatty() else "json"


class Repeats:
    """Of what comes again and again one in ``every`` seconds is told, with how many there were.

    Times are in seconds of one clock. Not safe for threads.
    """

    def __init__(self, every: float = _TELL_EVERY, most: int = _MOST_KNOWN) -> None:
        self._every = every
        self._most = most
        # When each was told, how many came since, and when the last; the longest ago first.
        self._told: OrderedDict[Hashable, tuple[float, int, float]] = OrderedDict()

    def due(self, what: Hashable, now: float) -> int | None:
        """How many were kept back since it was told; None where this one is kept back, too."""
        told_at, kept, _ = self._told.get(what, (None, 0, 0.0))
        if told_at is not None and now - told_at < self._every:
            self._told[what] = (told_at, kept + 1, now)
            return None
        self._told.pop(what, None)
        if len(self._told) < self._most:  # else it is told each time, and no count is lost
            self._told[what] = (now, 0, now)
        return kept

    def over(self, now: float) -> list[tuple[Hashable, int, float]]:
        """Let go of what was told ``every`` seconds ago.

        Of it what was kept back, how many, and when the last of them came.
        """
        untold = []
        while self._told:
            what, (told_at, kept, last_at) = next(iter(self._told.items()))
            if now - told_at < self._every:
                break
            del self._told[what]
            if kept:
                untold.append((what, kept, last_at))
        return untold


class LogWriter:
    """Writes lines of the log to ``stream``, in one of ``LOG_FORMATS``; for one thread.

    Of a warning, or an error, that comes again with the same words one is told a minute, with how
    many there were (``repeated``).
    """

    def __init__(self, stream: TextIO, form: str) -> None:
        self._stream = stream
        self._formatter = LOG_FORMATS[form]()
        self._repeats = Repeats()

    def write(self, record: logging.LogRecord) -> None:
        """Write it, unless it was just written."""
        now = time.monotonic()
        line = (record.name, record.levelno, record.getMessage())
        each_time = record.levelno < logging.WARNING or getattr(record, "each_time", False)
        kept = 0 if each_time else self._repeats.due(line, now)
        if kept is not None:
            self._put(_again(line, kept, 0.0, getattr(record, "fields", {})) if kept else record)
        self._tell_over(now)

    def close(self) -> None:
        """Tell what was kept back."""
        self._tell_over(inf)

    def _tell_over(self, now: float) -> None:
        for line, kept, last_at in self._repeats.over(now):
            self._put(_again(line, kept, time.monotonic() - last_at))

    def _put(self, record: logging.LogRecord) -> None:
        self._stream.write(f"{self._formatter.format(record)}\n")
        self._stream.flush()


def _again(
    line: Any, kept: int, ago: float, fields: Mapping[str, Any] = MappingProxyType({})
) -> logging.LogRecord:
    name, level, message = line
    times = "time" if kept == 1 else "times"
    text = f"{message} (and {kept} more {times} since it was told, the last {ago:.0f} s ago)"
    record = logging.LogRecord(name, level, "", 0, text, (), None)
    record.fields = {**fields, "repeated": kept}
    return record


def log_to(stream: TextIO, form: str, level: str) -> None:
    """Have this process log to ``stream``; ``form`` is ``auto`` or one of ``LOG_FORMATS``.

    Nobody who logs waits for whoever reads it.
    Only our own lines may be of the level ``debug``: those of libraries show what they send.
    """
    numbers = logging.getLevelNamesMapping()
    root, ours = logging.getLogger(), logging.getLogger("vaultauthz")
    root.handlers[:] = [LogQueue(LogWriter(direct(stream), log_format(form, stream)))]
    root.setLevel(max(numbers[level.upper()], logging.INFO))
    ours.setLevel(numbers[level.upper()])
    logging.getLogger("urllib3").setLevel(logging.WARNING)


class Telling:
    """Whether the log is to be told now: once in a while, however often it happens. Under a lock."""

    def __init__(self) -> None:
        self._repeats = Repeats()

    def due(self) -> bool:
        """Whether it is, which begins another while."""
        return self._repeats.due("", time.monotonic()) is not None
