"""The audit log from one process to the next: one writer at any time, one chain, no line lost."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from threading import Thread

import pytest

from tests.unit.observe.conftest import FakeSink, wait_until
from vaultauthz.config.values import Audit
from vaultauthz.core.decision import Allowed
from vaultauthz.core.events import ISSUED, Event
from vaultauthz.core.request import Request
from vaultauthz.observe.audit_log import AuditLog
from vaultauthz.observe.chain import verify
from vaultauthz.observe.handing_over import END, sent
from vaultauthz.observe.record import KEYS, of_check, of_event, received
from vaultauthz.observe.sink import AuditError, LogFile

SECONDS = 20.0
NOTES = ("a", "b", "c", "d", "e", "f")


def noted(log: AuditLog, *notes: str) -> None:
    """Hand these over, each as an event's upstream."""
    for note in notes:
        log.record_event(Event(ISSUED, "production", note))


def written(file: Path) -> list[str]:
    """The notes in it, which is one whole chain."""
    lines = file.read_bytes().splitlines(keepends=True)
    assert list(verify(lines)) == []
    records = [json.loads(line) for line in lines]
    assert all(tuple(one) == KEYS for one in records)
    return [one["upstream"] for one in records]


def received_by(log: AuditLog, line: socket.socket) -> Thread:
    """Has what comes by ``line`` written."""

    def receive() -> None:
        for entry in sent(line):
            log.record_entry(entry)

    thread = Thread(target=receive)
    thread.start()
    return thread


def test_a_whole_hand_over(tmp_path: Path) -> None:
    """Lines of both, before, while nobody has the file, and after, in the order in which the file was had."""
    file = tmp_path / "audit.jsonl"
    first, second = AuditLog(Audit(file)), AuditLog(Audit(file), takes_over=True)
    noted(second, "c")
    noted(first, "a")
    first.let_go(SECONDS)
    assert written(file) == ["a"]
    assert first.held
    noted(first, "d")
    second.open(SECONDS)
    noted(second, "b")
    ours, theirs = socket.socketpair()
    reading = received_by(second, theirs)
    first.send(ours, SECONDS)
    noted(first, "e")
    assert first.close(SECONDS)
    reading.join(SECONDS)
    theirs.close()
    assert second.close(SECONDS)
    assert sorted(written(file)) == ["a", "b", "c", "d", "e"]
    assert written(file)[:2] == ["a", "c"]


def test_it_is_had_back(tmp_path: Path) -> None:
    """The chain goes on where another one has left it."""
    file = tmp_path / "audit.jsonl"
    first, second = AuditLog(Audit(file)), AuditLog(Audit(file), takes_over=True)
    noted(first, "a")
    first.let_go(SECONDS)
    second.open(SECONDS)
    noted(second, "b")
    noted(first, "c")
    with pytest.raises(AuditError, match="another process writes"):
        first.open(SECONDS)
    second.let_go(SECONDS)
    first.open(SECONDS)
    noted(first, "d")
    assert first.close(SECONDS)
    second.close(SECONDS)
    assert written(file) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("error", [OSError(5, "an I/O error"), RuntimeError("a fault of ours")])
def test_a_file_that_does_not_close_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The log lives on: it has let go, or says that it has not."""
    log = AuditLog(Audit(tmp_path / "audit.jsonl"))
    noted(log, "a")
    close = LogFile.close
    if isinstance(error, OSError):
        real = os.close

        def closed(fd: int) -> None:
            real(fd)
            raise error

        monkeypatch.setattr("vaultauthz.observe.sink.os.close", closed)
        log.let_go(SECONDS)
        monkeypatch.setattr("vaultauthz.observe.sink.os.close", real)
        assert log.held
        log.open(SECONDS)
    else:

        def broken(file: LogFile) -> None:
            raise error

        monkeypatch.setattr(LogFile, "close", broken)
        with pytest.raises(AuditError, match="RuntimeError"):
            log.let_go(SECONDS)
        monkeypatch.setattr(LogFile, "close", close)
    noted(log, "b")
    assert log.close(SECONDS)
    assert written(tmp_path / "audit.jsonl") == ["a", "b"]


def test_the_one_that_reads_has_ended(tmp_path: Path) -> None:
    """The lines go into the file, which is free again."""
    file = tmp_path / "audit.jsonl"
    log = AuditLog(Audit(file))
    log.let_go(SECONDS)
    ours, theirs = socket.socketpair()
    log.send(ours, SECONDS)
    theirs.close()
    noted(log, "a", "b")
    assert log.close(SECONDS)
    assert written(file) == ["a", "b"]


def test_lines_that_wait_for_the_next_one_are_overdue_after_a_second(
    tmp_path: Path, request_: Request, allowed: Allowed
) -> None:
    """As behind a slow disk: checks are refused until the file is there."""
    log = AuditLog(Audit(tmp_path / "audit.jsonl"), watched=False)
    log.let_go(SECONDS)
    assert log.record_check(request_, allowed)
    wait_until(lambda: log.behind == 1 and not log._queue.qsize())
    for tenth in range(11):
        log.look(tenth / 10)
    assert not log.record_check(request_, allowed)
    log.open(SECONDS)
    wait_until(lambda: not log.behind)
    log.look(1.2)
    assert log.record_check(request_, allowed)
    log.close(SECONDS)


def test_one_that_has_not_begun_may_keep_many(tmp_path: Path) -> None:
    """It logs in for ten thousand upstreams, and no line of that is overdue, or too many."""
    file = tmp_path / "audit.jsonl"
    log = AuditLog(Audit(file), takes_over=True, watched=False, capacity=3)
    for _ in range(20):
        noted(log, *NOTES)
        wait_until(lambda: not log._queue.qsize())
    for tenth in range(30):
        log.look(tenth / 10)
    assert log.working
    assert not file.exists()
    log.open(SECONDS)
    log.close(SECONDS)
    assert written(file) == [*NOTES] * 20


def test_what_cannot_be_written_is_not_let_go_of() -> None:
    """It fails in time, and later it does not happen after all."""
    sink = FakeSink()
    sink.error = OSError(28, "No space left on device")
    log = AuditLog(Audit(), sink=sink, retry=0.01, watched=False)
    noted(log, "a")
    with pytest.raises(AuditError, match="is not written in"):
        log.let_go(0.05)
    sink.error = None
    noted(log, "b")
    wait_until(lambda: sink.data.count(b"\n") == 2)
    assert not sink.closed
    assert not log.held
    log.close(SECONDS)


@pytest.mark.parametrize(
    "data", [b"", b"[1.5, 7]\n", b"[]\n", b"no\n", b'[1.5, "\\"event\\":1,"]\n', b"[1.5"]
)
def test_what_is_no_line(data: bytes) -> None:
    """It is not written: the chain would vouch for it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError):
            list(sent(theirs))


def test_entries_are_taken_as_they_were_made(request_: Request, allowed: Allowed) -> None:
    """And nothing else is: another key, a nested value, another type."""
    for entry in (of_check(2.5, request_, allowed), of_event(1.5, Event(ISSUED, "s", 'u"\n'))):
        assert received(*entry) == entry
        with pytest.raises(ValueError, match="no entry"):
            received(entry[0], entry[1] + '"more":"",')
        with pytest.raises(ValueError, match="no entry"):
            received("1.5", entry[1])
    assert END.endswith(b"\n")
