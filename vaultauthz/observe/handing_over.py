"""The audit log from one process to the next, as one chain.

One process writes the file at any time. The one that serves writes out what it has, lets go of the
file and holds its lines; the next opens the file, where it goes on with the chain; then the first sends it the lines
that it still has, and those of its end. In between lines wait: as behind a slow disk, for a second at most
before checks are refused. When the next one cannot open the file, the first has it again, and its lines go there.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol

from vaultauthz.config.values import Audit
from vaultauthz.observe.chain import LogEnd
from vaultauthz.observe.record import Entry, received
from vaultauthz.observe.sink import AuditError, LineWriter, LogFile, OutputStream, Sink

_SENT_AT_ONCE: Final = 65_536  # bytes
_LONGEST: Final = 1 << 20  # bytes of one entry
END: Final = b'"end"\n'


class Outlet(Protocol):
    """Where the audit log's thread puts lines. ``write`` raises OSError; then all of it still waits."""

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def waiting(self) -> int:
        """How many are not wholly out, and should be."""

    @property
    def due(self) -> int:
        """How many ``write`` could bring out."""

    def put(self, entries: Sequence[Entry]) -> None:
        """Take them."""

    def write(self) -> None:
        """Write some of what is due."""

    def give_up(self) -> int:
        """Let what waits go, since this is the end; how many lines that were."""

    def close(self) -> None:
        """Let go of the file."""

    def instead(self) -> Outlet | None:
        """Where the lines go when they cannot go here any more."""


@dataclass(frozen=True, slots=True)
class Switch:
    """From here on lines go elsewhere; ``made`` from where they went before.

    Where it raises AuditError they still go there.
    """

    made: Callable[[Outlet], Outlet]
    done: Future[None] = field(default_factory=Future)


class FileLines(LineWriter):
    """Lines tied to a chain, into a sink."""

    def __init__(self, sink: Sink, end: LogEnd, wall: Callable[[], float]) -> None:
        super().__init__(sink, end, wall)
        self._to = sink

    @classmethod
    def opened(cls, settings: Audit, wall: Callable[[], float]) -> FileLines:
        """Where the configuration says. Raises AuditError."""
        if settings.file is None:
            return cls(OutputStream.standard(), LogEnd(), wall)
        file = LogFile(settings.file)
        return cls(file, file.open(), wall)

    @property
    def name(self) -> str:
        """See ``Outlet``."""
        return self._to.name

    @property
    def due(self) -> int:
        """See ``Outlet``."""
        return self.waiting

    def close(self) -> None:
        """See ``Outlet``."""
        self._to.close()

    def instead(self) -> Outlet | None:
        """Nowhere: it is tried again."""
        return None


class HeldLines:
    """Lines of one that has no file. ``counted``: they should be out, and soon."""

    def __init__(self, name: str, *, counted: bool) -> None:
        self.name = name
        self._counted = counted
        self._entries: list[Entry] = []

    @property
    def waiting(self) -> int:
        """See ``Outlet``."""
        return len(self._entries) if self._counted else 0

    @property
    def due(self) -> int:
        """None of them."""
        return 0

    def put(self, entries: Sequence[Entry]) -> None:
        """Keep them."""
        self._entries.extend(entries)

    def write(self) -> None:
        """There is nowhere to."""

    def give_up(self) -> int:
        """See ``Outlet``."""
        return len(self.taken())

    def taken(self) -> list[Entry]:
        """All of them, to go elsewhere."""
        entries, self._entries = self._entries, []
        return entries

    def close(self) -> None:
        """It has no file."""

    def instead(self) -> Outlet | None:
        """Nowhere."""
        return None


def held(lines: Outlet) -> Outlet:
    """``HeldLines`` in the place of these, which have let go of their file."""
    lines.close()
    return HeldLines(lines.name, counted=True)


class SentLines:
    """Lines for another process, over ``line``; when that is gone, for the file as ``otherwise`` opens it."""

    def __init__(self, line: socket.socket, name: str, otherwise: Callable[[], Outlet]) -> None:
        self.name = name
        self._line = line
        self._otherwise = otherwise
        self._entries: deque[tuple[Entry, bytes]] = deque()
        self._out = 0  # bytes of the first that are out

    @property
    def waiting(self) -> int:
        """See ``Outlet``."""
        return len(self._entries)

    @property
    def due(self) -> int:
        """All of them."""
        return len(self._entries)

    def put(self, entries: Sequence[Entry]) -> None:
        """See ``Outlet``."""
        self._entries.extend((entry, json.dumps(entry).encode() + b"\n") for entry in entries)

    def write(self) -> None:
        """See ``Outlet``."""
        data = bytearray()
        for _, one in self._entries:
            data += one
            if len(data) >= _SENT_AT_ONCE:
                break
        self._out += self._line.send(data[self._out :])
        while self._entries and self._out >= len(self._entries[0][1]):
            self._out -= len(self._entries.popleft()[1])

    def give_up(self) -> int:
        """See ``Outlet``."""
        lost = len(self._entries)
        self._entries.clear()
        return lost

    def close(self) -> None:
        """Say that this was all."""
        try:
            if not self._entries:
                self._line.sendall(END)
        except OSError:
            pass  # whoever was to read it has ended
        finally:
            self._line.close()

    def instead(self) -> Outlet | None:
        """The file, if it is to be had: the process that had it is gone."""
        try:
            lines = self._otherwise()
        except AuditError:
            return None
        self._line.close()
        lines.put([entry for entry, _ in self._entries])
        return lines


def sent(line: socket.socket, before: bytes = b"") -> Iterator[Entry]:
    """What the other side's ``SentLines`` send, to their end; ``before`` was read already.

    Raises:
        OSError: it ended without an end, or sent what is no entry.
    """
    data = bytearray(before)
    while True:
        while (at := data.find(b"\n")) >= 0:
            one = bytes(data[: at + 1])
            del data[: at + 1]
            if one == END:
                return
            yield _entry(one)
        more = line.recv(_SENT_AT_ONCE)
        if not more or len(data) > _LONGEST:
            raise ConnectionError("it ended in the middle")
        data += more


def _entry(text: bytes) -> Entry:
    try:
        when, rest = json.loads(text)
        return received(when, rest)
    except (ValueError, TypeError) as exc:
        raise ConnectionError("it sent what is no line of an audit log") from exc
