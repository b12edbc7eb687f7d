"""Lines on their way to a sink, which may take any part of them, or none.

What a sink has taken of a line is finished where it is, if the sink is still the same. When
the file was moved away (or emptied) with half a line at its end, that line goes whole into
the next file, behind an ``audit.torn`` that tells of the piece and whose hash covers it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from vaultauthz.core.events import AUDIT_TORN, Event
from vaultauthz.observe import record
from vaultauthz.observe.chain import Chain, Ending
from vaultauthz.observe.sink import Sink

if TYPE_CHECKING:
    from hashlib import _Hash


class Outgoing:
    """For one thread; ``end`` is where the sink's log ends, ``wall`` as of ``AuditLog``."""

    def __init__(self, sink: Sink, end: Ending, wall: Callable[[], float]) -> None:
        self._sink = sink
        self._wall = wall
        self._chain = end.chain
        self._entries: deque[record.Entry] = deque()  # whose lines are not out
        self._data = b""  # those lines
        self._out = 0  # bytes of the first one that are out
        self._newline = end.open  # one has to end what the log ends with
        # The last whole line that is out, its number, and its hash with the pieces after it.
        self._last, self._seq = end.text, end.seq
        self._torn = sha256(self._last) if end.torn else None
        if self._torn:
            self._tie_to(self._torn, end.torn)

    @property
    def waiting(self) -> int:
        """How many lines are not wholly out."""
        return len(self._entries)

    def put(self, entries: Sequence[record.Entry]) -> None:
        """Tie them to the lines before."""
        self._entries.extend(entries)
        self._data += b"".join(map(self._chain.link, entries))

    def write(self) -> None:
        """Write some of what is waiting.

        Raises:
            OSError: nothing was written; all of it still waits.
        """
        if self._sink.refresh():
            self._begin_anew()
        if self._newline:
            self._newline = not self._sink.write(b"\n")
            return
        out = self._out + self._sink.write(self._data[self._out :])
        ended = self._data.rfind(b"\n", 0, out) + 1
        if ended:
            self._ended(self._data[:ended])
            self._data = self._data[ended:]
        self._out = out - ended

    def give_up(self) -> int:
        """Let what waits go, since this is the end; how many lines that were."""
        lost = len(self._entries)
        self._entries.clear()
        self._data, self._newline = b"", False
        return lost

    def _ended(self, lines: bytes) -> None:
        self._last = lines[lines.rfind(b"\n", 0, -1) + 1 : -1]
        self._torn = None
        count = lines.count(b"\n")
        self._seq += count
        for _ in range(count):
            self._entries.popleft()

    def _begin_anew(self) -> None:
        """The file is another: what is out of a line stays behind, at the end of that one."""
        self._newline = False
        if not self._out:
            return
        if self._data[self._out : self._out + 1] == b"\n":  # all of it but its end, so no piece
            self._ended(self._data[: self._out + 1])
            self._data, self._out = self._data[self._out + 1 :], 0
            return
        piece = self._data[: self._out]
        if self._torn is None and not self._last:
            self._torn = sha256(piece)
        else:
            self._torn = self._torn or sha256(self._last)
            self._torn.update(b"\n" + piece)
        self._tie_to(self._torn, self._out)

    def _tie_to(self, torn: _Hash, size: int) -> None:
        """Tie all that waits anew: to the last line and the pieces after it, and tell of them."""
        told = (
            f"{size} bytes of a line that was not finished, at the end of what was written before"
        )
        tell = record.of_event(self._wall(), Event(AUDIT_TORN, "", reason=told))
        self._entries.appendleft(tell)
        self._chain = Chain(self._seq, torn.hexdigest())
        self._data, self._out = b"".join(map(self._chain.link, self._entries)), 0
