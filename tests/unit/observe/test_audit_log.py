"""The audit log under load, when its disk fails, and when it ends."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.unit.observe.conftest import FakeSink, wait_until
from vaultauthz.config.values import Audit
from vaultauthz.core.decision import Allowed, Denied, Reason
from vaultauthz.core.events import ISSUED, Access, Event
from vaultauthz.core.request import Request
from vaultauthz.observe import audit_log
from vaultauthz.observe.audit_log import GATHER, SOON, AuditLog, next_pause
from vaultauthz.observe.chain import verify
from vaultauthz.observe.sink import AuditError

ISSUE = Event(ISSUED, "production", "payments")
QUICK = 0.01
ACCESS = Access("production", "payments", 1.0)


def records(data: bytes) -> list[dict[str, Any]]:
    """The lines of a sound log, parsed."""
    lines = data.splitlines(keepends=True)
    assert list(verify(lines)) == []
    return [json.loads(line) for line in lines]


@pytest.fixture
def sink() -> FakeSink:
    """A sink that works until it is told otherwise."""
    return FakeSink()


@pytest.fixture
def log(sink: FakeSink) -> Iterator[AuditLog]:
    """A log with room for three checks, which nobody watches."""
    made = AuditLog(Audit(), sink=sink, capacity=3, retry=QUICK, watched=False)
    yield made
    made.close()


def test_file_is_private_and_complete(tmp_path: Path, request_: Request, allowed: Allowed) -> None:
    """A new file has mode 600, and after close it has every line in order."""
    file = tmp_path / "audit.jsonl"
    log = AuditLog(Audit(file), wall=lambda: 1.5)
    log.record_event(ISSUE)
    assert log.record_check(request_, allowed)
    assert log.record_check(request_, Denied(Reason.NO_CREDENTIAL, "payments", "production"))
    assert log.close()
    assert file.stat().st_mode & 0o777 == 0o600
    found = records(file.read_bytes())
    assert [one["event"] for one in found] == ["lease.issued", "request.allowed", "request.denied"]
    assert [one["seq"] for one in found] == [1, 2, 3]
    assert found[0]["time"] == "1970-01-01T00:00:01.500000Z"


def test_lines_are_out_soon(log: AuditLog, sink: FakeSink) -> None:
    """A line is written without another one behind it."""
    log.record_event(ISSUE)
    wait_until(lambda: sink.data.endswith(b"\n"))


def test_time_is_that_of_the_check(sink: FakeSink, request_: Request, allowed: Allowed) -> None:
    """The clock is read when the check is handed over, not when it is written."""
    sink.error = OSError(28, "No space left on device")
    times = iter([1.0, 2.0, 3.0])
    log = AuditLog(Audit(), sink=sink, wall=lambda: next(times), retry=QUICK)
    log.record_check(request_, allowed)
    wait_until(lambda: not log.working)
    sink.error = None
    log.close()
    assert records(sink.data)[0]["time"] == "1970-01-01T00:00:01.000000Z"


def test_full_queue_refuses_checks(
    log: AuditLog, sink: FakeSink, request_: Request, allowed: Allowed
) -> None:
    """With the queue full a check is refused and counted; an event is still taken."""
    answers = [log.record_check(request_, allowed) for _ in range(50)]
    taken = answers.count(True)
    assert taken < 50
    assert log.dropped == 50 - taken
    log.record_event(ISSUE)
    log.close()
    *found, last = records(sink.data)
    assert len(found) == taken + 1
    assert (last["event"], last["reason"]) == (
        "audit.dropped",
        f"{50 - taken} checks refused, 0 lines lost",
    )


def test_accesses_leave_room_for_checks(
    sink: FakeSink, request_: Request, allowed: Allowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With half of the queue full an access is held back for a time, then dropped; checks go on."""
    monkeypatch.setattr(audit_log, "_PATIENCE", QUICK)
    monkeypatch.setattr(AuditLog, "_run", lambda _: None)  # nothing is written
    log = AuditLog(Audit(), sink=sink, capacity=4)
    for _ in range(4):
        log.record_access(ACCESS)
    assert log.dropped == 2
    assert log.record_check(request_, allowed)
    log.close()


def test_accesses_wait_for_room(sink: FakeSink) -> None:
    """While the disk is behind they are held back, and none is lost."""
    log = AuditLog(Audit(), sink=sink, capacity=4, retry=QUICK)
    for _ in range(50):
        log.record_access(ACCESS)
    assert log.close()
    assert log.dropped == 0
    assert len(records(sink.data)) == 50


def test_what_waits_is_told_once_the_lines_are_out(sink: FakeSink) -> None:
    """`then` is called after the lines before it are written, each time, and not before."""
    log = AuditLog(Audit(), sink=sink, retry=QUICK)
    sink.error = OSError(28, "No space left on device")
    told: list[int] = []
    for _ in range(3):
        log.record_access(ACCESS)
        log.then(lambda: told.append(sink.data.count(b"\n")))
    wait_until(lambda: not log.working)
    assert not told
    assert not log.has_room
    sink.error = None
    wait_until(lambda: len(told) == 3)
    assert told[-1] == 3
    wait_until(lambda: log.has_room)
    assert log.close()


def test_what_waits_is_not_told_of_lines_that_are_lost(sink: FakeSink) -> None:
    """A log that ends without writing its lines never says that they are out."""
    log = AuditLog(Audit(), sink=sink, retry=QUICK)
    sink.error = OSError(28, "No space left on device")
    told: list[str] = []
    log.record_access(ACCESS)
    log.then(lambda: told.append("written"))
    log.close()
    assert log.dropped == 1
    assert not told


def test_no_room_while_half_of_the_queue_is_full(
    sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can wait is told to, while there is still room for checks."""
    monkeypatch.setattr(AuditLog, "_run", lambda _: None)  # nothing is written
    log = AuditLog(Audit(), sink=sink, capacity=4)
    rooms = []
    for _ in range(2):
        log.record_access(ACCESS)
        rooms.append(log.has_room)
    assert rooms == [True, False]
    log.close()


def test_events_are_bounded_too(sink: FakeSink) -> None:
    """Nothing fills the memory while the disk is full."""
    sink.error = OSError(28, "No space left on device")
    log = AuditLog(Audit(), sink=sink, capacity=3, retry=QUICK)
    for _ in range(5000):
        log.record_event(ISSUE)
    assert log.dropped > 3000
    sink.error = None
    log.close()
    *found, last = records(sink.data)
    assert len(found) + log.dropped == 5000
    assert last["reason"].startswith(f"0 checks refused, {log.dropped} lines lost")


def test_failure_refuses_until_it_is_mended(
    sink: FakeSink, request_: Request, allowed: Allowed, caplog: pytest.LogCaptureFixture
) -> None:
    """While the disk is full no check is taken; once there is room nothing is missing."""
    log = AuditLog(Audit(), sink=sink, retry=QUICK, watched=False)
    sink.room = 700  # a line and a half
    assert log.record_check(request_, allowed)
    assert log.record_check(request_, allowed)
    wait_until(lambda: not log.working)
    assert not log.record_check(request_, allowed)
    log.record_event(ISSUE)
    sink.room = None
    wait_until(lambda: log.working)
    assert log.record_check(request_, allowed)
    log.close()
    found = records(sink.data)
    events = [one["event"] for one in found]
    allowed_twice = ["request.allowed"] * 2
    assert events == [*allowed_twice, "lease.issued", "audit.dropped", "request.allowed"]
    assert found[3]["reason"].startswith(
        "1 checks refused, 0 lines lost: No space left on device, for "
    )
    assert [one.levelno for one in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "No space left on device" in caplog.text


def test_full_device(request_: Request, allowed: Allowed) -> None:
    """On a really full device the first check shows it, and the ones after are refused."""
    log = AuditLog(Audit(Path("/dev/full")), retry=QUICK)
    log.record_check(request_, allowed)
    wait_until(lambda: not log.working)
    assert not log.record_check(request_, allowed)
    assert log.close()
    assert log.dropped == 2


def test_line_cut_short_goes_whole_into_the_next_file(
    sink: FakeSink, request_: Request, allowed: Allowed
) -> None:
    """When the log moves after half a line was written, the new file begins with that line."""
    log = AuditLog(Audit(), sink=sink, retry=QUICK)
    sink.room = 100
    log.record_check(request_, allowed)
    wait_until(lambda: not log.working)
    sink.room, sink.moved = None, True
    wait_until(lambda: log.working)
    log.close()
    assert len(sink.files[0]) == 100
    told, whole = (json.loads(one) for one in sink.data.splitlines())
    assert (told["event"], whole["event"]) == ("audit.torn", "request.allowed")
    assert told["reason"].startswith("100 bytes of a line")
    for lines in (
        [sink.files[0], *sink.data.splitlines()],
        (sink.files[0] + sink.data).splitlines(),
    ):
        assert [(one.line, one.tampering) for one in verify(lines)] == [(1, False)]


def test_closed_log_takes_nothing(
    log: AuditLog, sink: FakeSink, request_: Request, allowed: Allowed
) -> None:
    """After close checks are refused, and a second close does no harm."""
    assert log.close()
    assert sink.closed
    assert not log.record_check(request_, allowed)
    log.record_event(ISSUE)
    assert log.dropped == 2
    assert log.close()


def test_close_gives_up_on_a_pipe_that_nobody_reads(request_: Request, allowed: Allowed) -> None:
    """A reader that hangs does not hold close up."""
    reader, writer = os.pipe()
    try:
        log = AuditLog(Audit(Path(f"/dev/fd/{writer}")))
        for _ in range(1000):
            assert log.record_check(request_, allowed)
        assert not log.close(timeout=0.2)  # which would wait for ever: nobody reads
    finally:
        os.close(reader)
        os.close(writer)


def test_many_threads(tmp_path: Path, request_: Request, allowed: Allowed) -> None:
    """Checks from many threads all get in, in one chain, each once."""
    file = tmp_path / "audit.jsonl"
    log = AuditLog(Audit(file))

    def work(name: int) -> None:
        for number in range(500):
            mine = Request("envoy", request_id=f"{name}-{number}")
            assert log.record_check(mine, allowed)

    threads = [Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.close(PATIENCE)
    found = [one["request_id"] for one in records(file.read_bytes())]
    assert len(found) == 4000
    for name in range(8):
        mine = [one for one in found if one.startswith(f"{name}-")]
        assert mine == [f"{name}-{number}" for number in range(500)]


def test_restart_continues_the_chain(tmp_path: Path) -> None:
    """A second run goes on with the numbers and hashes of the first."""
    file = tmp_path / "audit.jsonl"
    for _ in range(3):
        log = AuditLog(Audit(file))
        log.record_event(ISSUE)
        log.close()
    assert [one["seq"] for one in records(file.read_bytes())] == [1, 2, 3]


KILLED = """
import os, signal, sys
from pathlib import Path
from vaultauthz.config.values import Audit
from vaultauthz.core.events import Event
from vaultauthz.observe.audit_log import AuditLog
log = AuditLog(Audit(Path(sys.argv[1])))
while True:
    log.record_event(Event("lease.renewed", "production", "payments"))
"""


def test_killed_without_warning(tmp_path: Path) -> None:
    """After kill -9 in full flow the log is sound and the next run goes on with it."""
    file = tmp_path / "audit.jsonl"
    for _ in range(3):
        before = file.stat().st_size if file.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(file)])
        wait_until(lambda size=before: file.exists() and file.stat().st_size > size + 20_000)  # type: ignore[misc]
        process.kill()
        process.wait()
    AuditLog(Audit(file)).close()
    with file.open("rb") as lines:
        assert not any(found.tampering for found in verify(lines))


def test_standard_output(tmp_path: Path) -> None:
    """Without a file the lines go to standard output, each chain from 1."""
    script = KILLED.replace("Audit(Path(sys.argv[1]))", "Audit()").replace("while True:\n    ", "")
    out = subprocess.run(
        [sys.executable, "-c", script + "log.close()"], capture_output=True, check=True
    ).stdout
    assert [one["seq"] for one in records(out)] == [1]


def test_second_process_is_refused(tmp_path: Path) -> None:
    """Two writers would weave two chains into one file."""
    file = tmp_path / "audit.jsonl"
    log = AuditLog(Audit(file))
    with pytest.raises(AuditError, match="another process writes this audit log"):
        AuditLog(Audit(file))
    log.close()
    AuditLog(Audit(file)).close()


@pytest.mark.parametrize("name", ["missing/audit.jsonl", "."])
def test_unusable_path(tmp_path: Path, name: str) -> None:
    """A path that cannot be a log is refused at once, by name."""
    with pytest.raises(AuditError, match=str(tmp_path)):
        AuditLog(Audit(tmp_path / name))


def test_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A file with other contents is refused and not changed."""
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0\n")
    with pytest.raises(AuditError, match="no audit records"):
        AuditLog(Audit(file))
    assert file.read_text() == "root:x:0:0\n"


def test_rotated_file(tmp_path: Path) -> None:
    """After logrotate has moved the file, a new one goes on with the same chain."""
    file, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    log = AuditLog(Audit(file))
    log.record_event(ISSUE)
    wait_until(lambda: file.stat().st_size)
    file.rename(old)
    log.record_event(ISSUE)
    wait_until(lambda: file.exists() and file.stat().st_size)
    log.close()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(records(old.read_bytes() + file.read_bytes())) == 2


def test_truncated_file(tmp_path: Path) -> None:
    """The copytruncate of logrotate leaves no hole: the next line is at the new end."""
    file = tmp_path / "audit.jsonl"
    log = AuditLog(Audit(file))
    log.record_event(ISSUE)
    wait_until(lambda: file.stat().st_size)
    copy = file.read_bytes()
    os.truncate(file, 0)
    log.record_event(ISSUE)
    log.close()
    assert len(records(copy + file.read_bytes())) == 2


def test_replaced_file_does_not_pass_for_ours(tmp_path: Path) -> None:
    """A log cut short and put in our file's place while we ran shows at our next line."""
    file, copy = tmp_path / "audit.jsonl", tmp_path / "copy"
    log = AuditLog(Audit(file))
    for _ in range(5):
        log.record_event(ISSUE)
    wait_until(lambda: file.read_bytes().count(b"\n") == 5)
    copy.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:3]))
    copy.rename(file)
    log.record_event(ISSUE)
    log.close()
    with file.open("rb") as lines:
        (found,) = verify(lines)
    assert (found.line, found.tampering) == (4, True)


def test_lost_folder_is_a_failure(tmp_path: Path, request_: Request, allowed: Allowed) -> None:
    """When the file cannot be made again checks are refused, and taken once it can."""
    folder = tmp_path / "logs"
    folder.mkdir()
    file = folder / "audit.jsonl"
    log = AuditLog(Audit(file), retry=QUICK)
    file.unlink()
    folder.rmdir()
    log.record_check(request_, allowed)
    wait_until(lambda: not log.working)
    folder.mkdir()
    wait_until(lambda: log.working)
    log.close()
    assert file.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("pause", "lines", "then"),
    [
        (SOON, 0, SOON),
        (SOON, 1, SOON),  # one by one: each is in the log as soon as its answer is out
        (SOON, 2, GATHER),  # some hundred a second and more: fewer writes
        (GATHER, 5, GATHER),
        (GATHER, 4, SOON),
    ],
)
def test_lines_gather_only_where_they_come_fast(pause: float, lines: int, then: float) -> None:
    assert next_pause(pause, lines) == then
