"""The log's queue: nobody who logs waits for whoever reads it, and what was dropped is counted."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import PATIENCE
from vaultauthz.log_queue import LogQueue, direct


class Slow:
    """Writes nothing while it is held."""

    def __init__(self, *, held: bool = True) -> None:
        self.lines: list[str] = []
        self.records: list[logging.LogRecord] = []
        self.writing = threading.Event()
        self.free = threading.Event()
        self.ended = False
        if not held:
            self.free.set()

    def write(self, record: logging.LogRecord) -> None:
        self.writing.set()
        assert self.free.wait(PATIENCE)
        self.records.append(record)
        self.lines.append(record.getMessage())

    def close(self) -> None:
        self.ended = True


def put(queue: LogQueue, message: str, *args: object, **more: Any) -> None:
    """Log it."""
    record = logging.LogRecord("vaultauthz.test", logging.INFO, "", 0, message, args, None)
    record.__dict__.update(more)
    queue.handle(record)


def test_lines_are_dropped_and_told_where_they_would_be() -> None:
    """Three wait while one is written; the two after them are missing, and the line says for how long."""
    slow, now = Slow(), [0.0]
    queue = LogQueue(slow, most=3, clock=lambda: now[-1])
    put(queue, "0")
    assert slow.writing.wait(PATIENCE)
    for number in range(1, 6):
        put(queue, f"{number}")
        now.append(now[-1] + 1.0)
    slow.free.set()
    queue.flush()
    put(queue, "6")
    queue.close()
    gap = "2 lines of this log are missing here: for 2.0 s whoever reads it was too slow"
    assert slow.lines == ["0", "1", "2", "3", gap, "6"]
    assert vars(slow.records[4])["fields"] == {"dropped_lines": 2, "seconds": 2.0}
    assert slow.records[4].levelno == logging.WARNING
    assert slow.ended


@given(st.lists(st.sampled_from("pwf"), max_size=60), st.integers(2, 5))
def test_every_line_is_written_or_counted(steps: list[str], most: int) -> None:
    """In order, however writing and dropping alternate."""
    slow, put_in = Slow(held=False), 0
    gate = threading.Event()
    gate.set()

    class Gated(Slow):
        def write(self, record: logging.LogRecord) -> None:
            assert gate.wait(PATIENCE)
            slow.write(record)

    queue = LogQueue(Gated(held=False), most=most, patience=PATIENCE)
    for step in steps:
        if step == "p":
            put(queue, f"{put_in}")
            put_in += 1
        elif step == "w":
            gate.clear()
        else:
            gate.set()
            queue.flush()
    gate.set()
    queue.close()
    at = 0
    for line in slow.lines:
        gap = re.match(r"(\d+) lines? of this log", line)
        assert gap or int(line) == at
        at += int(gap[1]) if gap else 1
    assert at == put_in


def test_its_text_is_made_when_it_is_logged() -> None:
    """Whatever becomes of the arguments; of an error its type stays, no value and no frame."""
    slow, changing = Slow(held=False), ["before"]
    queue = LogQueue(slow)
    try:
        int("hunter2")
    except ValueError:
        put(queue, "it is %s", changing, exc_info=sys.exc_info())
    changing[0] = "after"
    queue.close()
    assert slow.lines == ["it is ['before']"]
    info = slow.records[0].exc_info
    assert info
    assert (info[0], *map(bool, info[1:])) == (ValueError, False, False)


@pytest.mark.parametrize("another", [True, False])
def test_a_thread_that_cannot_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, *, another: bool
) -> None:
    """With the next line, or at the end; the lines until then have waited, and nobody who logs fails."""

    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    slow = Slow(held=False)
    queue = LogQueue(slow)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        put(queue, "0")
        put(queue, "1")
    if another:
        put(queue, "2")
    queue.close()
    assert slow.lines == ["0", "1", "2"][: 2 + another]
    assert slow.ended


def test_an_end_waits_for_no_reader_for_ever() -> None:
    """What is written is; the rest goes with the process, and nothing is taken any more."""
    slow = Slow()
    queue = LogQueue(slow, patience=0.01)
    queue.flush()
    put(queue, "0")
    put(queue, "1")
    assert slow.writing.wait(PATIENCE)
    queue.close()
    put(queue, "2")
    assert slow.lines == []
    slow.free.set()


def test_one_line_that_fails_ends_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does one that cannot be made."""

    class Broken(Slow):
        def write(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "lost":
                raise OSError("no space left")
            super().write(record)

    slow = Broken(held=False)
    queue = LogQueue(slow)
    put(queue, "lost")
    put(queue, "%d", "no number")
    put(queue, "next")
    queue.close()
    assert slow.lines == ["next"]
    assert "Logging error" in capsys.readouterr().err


@pytest.mark.parametrize("blocking", [True, False])
def test_a_descriptor_takes_all_of_a_line(blocking: bool) -> None:
    """A pipe that takes a part at a time, also one that somebody has made non-blocking."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, blocking)
    found: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 1000):
            found.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "w", encoding="ascii") as stream:
        direct(stream).write("ä" * 20_000)
    reader.join(PATIENCE)
    os.close(reading)
    assert b"".join(found) == b"\\xe4" * 20_000
