"""Envoy's log, followed by a thread into a real audit log: nothing lost, and little twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.contract.faults import wait_until
from tests.patience import PATIENCE
from tests.unit.envoy.access_lines import written
from tests.unit.envoy.als_entries import PLACE
from vaultauthz.config.values import Audit
from vaultauthz.core import events
from vaultauthz.core.events import Access, Event
from vaultauthz.envoy.access_logs import follower as follower_module
from vaultauthz.envoy.access_logs.follower import Follower
from vaultauthz.envoy.access_logs.history import CredentialHistory
from vaultauthz.envoy.access_logs.log_file import Lines
from vaultauthz.envoy.access_logs.trail import Trail
from vaultauthz.envoy.access_logs.unchecked import Listeners, UncheckedRequests
from vaultauthz.observe import audit_log as audit_module
from vaultauthz.observe.audit_log import AuditLog
from vaultauthz.observe.sink import LogFile


def line(number: int, **changes: object) -> bytes:
    """The line of a request whose id is its number, of this moment."""
    now = f"{time.time() - 0.001:.6f}"
    return written(request_id=str(number), time=now, sent_us=100, **changes) + b"\n"


@dataclass
class House:
    """A log, an audit log, and what else is told of the requests."""

    folder: Path
    audit: AuditLog
    answers: Counter[int] = field(default_factory=Counter)
    trials: list[tuple[str, int]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    rejections: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = self.folder / "access.jsonl"
        self.versions = CredentialHistory(lambda: time.time() - 60)
        self.take("c_1")
        self.follower = self.begin()

    def take(self, credential: str) -> None:
        """Envoy takes a credential; a minute ago, so that nothing is in doubt."""
        event = Event(events.SDS_DELIVERED, *PLACE, "kv", credential, caller="edge/gw-1")
        self.versions.record_event(event)

    def begin(self) -> Follower:
        """Follow the log from where it was kept."""
        listeners = Listeners(
            record=self.audit.queue_access,
            answered=lambda _stage, _upstream, status: self.answers.update([status]),
            rejected=lambda _upstream, _stage, name: not self.rejections.append(name),  # type: ignore[func-returns-value]
            ignored=lambda why, count: self.ignored.update({why: count}),
            known=lambda *place: place == PLACE,
            tried=lambda _stage, _upstream, name, status: self.trials.append((name, status)),
        )
        uses = UncheckedRequests(self.versions, listeners)
        self.follower = Follower(self.path, uses, self.audit, listeners.ignored)
        self.follower.start()
        return self.follower

    def write(self, *numbers: int) -> None:
        """Envoy appends a line for each."""
        with self.path.open("ab") as file:
            file.write(b"".join(map(line, numbers)))

    def audited(self) -> list[int]:
        """The ids of the requests in the audit log, in its order."""
        lines = (self.folder / "audit.jsonl").read_bytes().splitlines()
        # One that was cut short, as by a kill, is no record.
        whole = [json.loads(one) for one in lines if one.endswith(b"}")]
        return [int(one["request_id"]) for one in whole if one["event"] == "request.allowed"]

    def waits_for(self, count: int) -> list[int]:
        """Those, once there are so many."""
        assert wait_until(lambda: len(self.audited()) >= count)
        return self.audited()

    @property
    def kept(self) -> int:
        """The offset that a restart would go on from; 0 for none."""
        place = self.path.with_name("access.jsonl.position")
        return json.loads(place.read_bytes())["offset"] if place.exists() else 0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A log that is followed; it is not there yet."""
    made = House(tmp_path, AuditLog(Audit(tmp_path / "audit.jsonl")))
    yield made
    made.follower.stop(PATIENCE)
    made.audit.close()


def test_each_line_is_in_the_audit(house: House) -> None:
    """With its credential, once; and the position is kept behind it."""
    house.write(*range(3))
    house.write(*range(3, 3000))
    assert house.waits_for(3000) == list(range(3000))
    first = json.loads((house.folder / "audit.jsonl").read_bytes().splitlines()[0])
    assert (first["credential_id"], first["status"], first["reason"]) == ("c_1", "200", "")
    assert house.answers == {200: 3000}
    assert house.trials == [("c_1", 200)] * 3000
    assert wait_until(lambda: house.kept == house.path.stat().st_size)
    assert house.follower.behind == 0


def test_what_is_passed_over_is_counted(house: House) -> None:
    """Junk, other services, lines without end; what is around them is read."""
    with house.path.open("ab") as file:
        file.write(line(1) + b"junk\n\0\xff\n" + b"x" * 200_000 + b"\n")
        file.write(line(7, upstream="other") + line(8, upstream="", stage="") + line(2))
    assert house.waits_for(2) == [1, 2]
    assert house.ignored == {"unreadable": 2, "too_large": 1, "unknown_upstream": 1, "not_ours": 1}


def test_a_401_is_told(house: House) -> None:
    """Also where no log over gRPC does it."""
    with house.path.open("ab") as file:
        file.write(line(1, status=401) + line(2, status=401, details="jwt_authn_access_denied"))
    assert wait_until(lambda: bool(house.rejections))
    assert house.waits_for(1) == [1]
    assert house.rejections == ["c_1"]


@pytest.mark.parametrize("how", ["renamed", "emptied"])
def test_rotations_while_it_is_written(house: House, how: str) -> None:
    """Each line once, however the log is rotated."""
    numbers = iter(range(10_000))
    for turn in range(5):
        house.write(*(next(numbers) for _ in range(200)))
        if not turn:
            house.waits_for(1)  # what was rotated before it ever began is not for it
        if how == "renamed":
            house.path.rename(house.path.with_name(f"access.jsonl.{turn}"))
            continue
        house.waits_for(200 * (turn + 1))
        os.truncate(house.path, 0)
    house.write(next(numbers))
    assert sorted(house.waits_for(1001)) == list(range(1001))


def test_a_stop_reads_what_is_there(house: House) -> None:
    """And keeps the position, so that the next one writes nothing twice."""
    house.write(*range(2000))
    assert house.follower.stop(PATIENCE)
    assert house.audited() == list(range(2000))
    house.write(*range(2000, 2010))
    house.begin()
    assert house.waits_for(2010) == list(range(2010))


def test_a_stop_has_an_end(house: House) -> None:
    """What could not be read in time is read the next time."""
    house.write(*range(20_000))
    house.follower.stop(0.0)  # with all of it read by chance, or not
    house.begin()
    assert wait_until(lambda: set(house.audited()) >= set(range(20_000)))


def test_an_orderly_stop_writes_nothing_twice(house: House) -> None:
    """What was handed over when the time was up is written, and not read again."""
    house.write(*range(20_000))
    house.follower.stop(0.05)
    house.audit.close()
    house.follower.keep()
    house.audit = AuditLog(Audit(house.folder / "audit.jsonl"))
    house.begin()
    assert wait_until(lambda: len(house.audited()) >= 20_000)
    assert house.audited() == list(range(20_000))


def test_without_a_place_for_the_position(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and the log is followed all the same."""
    house.path.with_name("access.jsonl.position").mkdir()
    house.write(1)
    house.waits_for(1)
    assert wait_until(lambda: ".position beside it cannot be written" in caplog.text)
    house.write(2)
    assert house.waits_for(2) == [1, 2]
    assert caplog.text.count("cannot be written") == 1


# --- when the audit log cannot keep up ---


class Slow:
    """An audit log that takes lines when it is told to, and writes them when it is told to."""

    def __init__(self) -> None:
        self.has_room = True
        self.taken: list[Access] = []
        self.waiting: list[Callable[[], None]] = []

    def then(self, call: Callable[[], None]) -> None:
        """Wait for ``write``."""
        self.waiting.append(call)

    def write(self) -> None:
        """All that was taken is written."""
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


@pytest.fixture
def slow() -> Slow:
    """One that takes lines, and has not written any."""
    return Slow()


def following(path: Path, slow: Slow) -> Follower:
    """A log that is followed into it."""

    def take(access: Access) -> None:
        assert slow.has_room
        slow.taken.append(access)

    listeners = Listeners(
        take, lambda *_: None, lambda *_: True, lambda *_: None, lambda *_: True, lambda *_: None
    )
    made = Follower(
        path, UncheckedRequests(CredentialHistory(), listeners), slow, listeners.ignored
    )
    made.start()
    return made


def test_nothing_is_read_without_room(tmp_path: Path, slow: Slow) -> None:
    """The file is the buffer: what it holds waits, and shows."""
    path = tmp_path / "access.jsonl"
    path.write_bytes(line(1))
    slow.has_room = False
    follower = following(path, slow)
    # Only what the thread has opened is known to wait; it looks when there is room.
    time.sleep(0.3)
    assert not slow.taken
    slow.has_room = True
    assert wait_until(lambda: len(slow.taken) == 1)
    slow.has_room = False
    path.write_bytes(path.read_bytes() + line(2))
    assert wait_until(lambda: follower.behind == len(line(2)))
    assert follower.stop(0.1) is False
    assert len(slow.taken) == 1


def test_the_position_waits_for_the_audit_log(tmp_path: Path, slow: Slow) -> None:
    """What is not written there is read again after a crash, and nothing else is."""
    path = tmp_path / "access.jsonl"
    kept = path.with_name("access.jsonl.position")
    path.write_bytes(line(1))
    follower = following(path, slow)
    assert wait_until(lambda: bool(slow.waiting))
    slow.write()
    assert wait_until(kept.exists)
    path.write_bytes(path.read_bytes() + line(2) + line(3))
    assert wait_until(lambda: len(slow.taken) == 3)
    follower.stop(0.1)  # as good as a crash: nothing more is written
    again = Slow()
    follower = following(path, again)
    assert wait_until(lambda: len(again.taken) == 2)
    follower.stop(0.1)
    assert [access.request_id for access in again.taken] == ["2", "3"]


class FullDisk(LogFile):
    """A file on a disk that is full while it is told so."""

    full = False

    def write(self, data: bytes) -> int:
        """Write it, or not."""
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines wait in Envoy's file until the audit log can be written again."""
    monkeypatch.setattr(audit_module, "_PATIENCE", 0.0)  # what has no room is dropped at once
    sink = FullDisk(tmp_path / "audit.jsonl")
    sink.open()
    house = House(tmp_path, AuditLog(Audit(), sink=sink, retry=0.02, capacity=400))
    house.write(*range(100))
    house.waits_for(100)
    sink.full = True
    house.write(*range(100, 2000))
    assert wait_until(lambda: house.follower.behind > 0)
    assert house.kept < house.path.stat().st_size
    sink.full = False
    assert house.waits_for(2000) == list(range(2000))
    assert house.audit.dropped == 0
    house.follower.stop(PATIENCE)
    house.audit.close()


_FOLLOWS = """
import sys, time
from pathlib import Path
from tests.contract.test_access_file import House
from vaultauthz.config.values import Audit
from vaultauthz.observe.audit_log import AuditLog
folder = Path(sys.argv[1])
house = House(folder, AuditLog(Audit(folder / "audit.jsonl")))
time.sleep(600)
"""


def test_killed_and_begun_again(tmp_path: Path) -> None:
    """Again and again, under load: every line is there, and few are there twice."""
    total, kills = 0, 4
    path, audit = tmp_path / "access.jsonl", tmp_path / "audit.jsonl"
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", _FOLLOWS, str(tmp_path)])
        try:
            lines = audit.read_bytes().count(b"\n") if audit.exists() else 0
            for _ in range(10):
                with path.open("ab") as file:
                    file.write(b"".join(line(number) for number in range(total, total + 300)))
                total += 300
            assert wait_until(lambda at=lines: _grown(audit, at))  # type: ignore[misc]
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    house = House(tmp_path, AuditLog(Audit(audit)))
    assert wait_until(lambda: set(house.audited()) >= set(range(total)))
    assert house.follower.stop(PATIENCE)
    again = sum(count - 1 for count in Counter(house.audited()).values())
    sys.stdout.write(f"\n{total} lines, {again} written again\n")
    assert again <= kills * 3000  # what came since the position was kept, at most
    house.audit.close()


def _grown(audit: Path, lines: int) -> bool:
    return audit.exists() and audit.read_bytes().count(b"\n") > lines


def test_a_fault_of_ours_is_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins again at its position: no line is lost, and none is there twice that was kept."""
    monkeypatch.setattr(follower_module, "_PAUSE", 0.01)
    take, broken, line_of_a_client = Trail.take, threading.Event(), "s3cr3t"

    def fails(trail: Trail) -> Lines:
        if broken.is_set():
            raise RuntimeError(line_of_a_client)
        return take(trail)

    monkeypatch.setattr(Trail, "take", fails)
    house = House(tmp_path, AuditLog(Audit(file=tmp_path / "audit.jsonl")))
    house.write(1)
    assert house.waits_for(1) == [1]
    assert wait_until(lambda: house.kept == house.path.stat().st_size)
    broken.set()
    house.write(2)
    assert wait_until(lambda: "fault of ours: RuntimeError" in caplog.text)
    broken.clear()
    assert house.waits_for(2) == [1, 2]
    assert house.follower.stop(PATIENCE)
    house.audit.close()
    assert line_of_a_client not in caplog.text
