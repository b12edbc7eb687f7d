"""What one server hands to the next, between two ends in one process."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from pathlib import Path
from typing import cast

import pytest

from tests.patience import PATIENCE
from vaultauthz.kong import ownership
from vaultauthz.kong.gate import Gate, Instance, Instances
from vaultauthz.kong.handover import Giver, Heir, Inheritance
from vaultauthz.kong.ownership import Ownership, coming
from vaultauthz.kong.server import PluginServer


def handed(path: Path, count: int, instances: Instances) -> tuple[Inheritance, list[socket.socket]]:
    """So many connections given and taken, and their other ends."""
    heir = Heir(path)
    giver = Giver.to(path)
    assert giver is not None
    ours = []
    for _ in range(count):
        mine, theirs = socket.socketpair()
        assert giver.give(theirs)
        theirs.close()
        ours.append(mine)
        heir.wait(0)
    giver.end(instances.named, instances.last)
    heir.wait(1)
    found = heir.inheritance()
    heir.close()
    return found, ours


def test_connections_stay_open(tmp_path: Path) -> None:
    """What was sent before, meanwhile and after arrives at whoever has them now; in order."""
    found, ours = handed(tmp_path / "k.sock", 300, Instances())
    for number, (mine, theirs) in enumerate(zip(ours, found.connections, strict=True)):
        mine.sendall(b"%d" % number)
        assert theirs.recv(99) == b"%d" % number
        assert not theirs.get_inheritable()
        mine.close()
        theirs.close()
    assert list(tmp_path.iterdir()) == []


def test_what_the_numbers_mean(tmp_path: Path) -> None:
    """Each instance is known by its number, and the next one gets a number of its own."""
    before, after = Instances(), Instances()
    known = {before.add(_instance("pay", stage)): ("pay", stage) for stage in ("a", "b")}
    found, _ = handed(tmp_path / "k.sock", 0, before)
    after.inherit(found.instances, found.next)
    assert after.named == known
    assert after.add(_instance("geo", "a")) not in known


def _instance(upstream: str, stage: str) -> Instance:
    return Instance(upstream, stage)


def test_nobody_takes_anything(tmp_path: Path) -> None:
    """There is no next server, or it is of a version that does not know of this."""
    assert Giver.to(tmp_path / "k.sock") is None


@pytest.mark.parametrize("said", [b"", b"f", b"{", b"fff5", b'f{"instances": 5, "next": 1}', b"[]"])
def test_nonsense(tmp_path: Path, said: bytes) -> None:
    """Counts for nothing: then the instances are started anew."""
    heir = Heir(tmp_path / "k.sock")
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(tmp_path / ".k.sock.next"))
        line.sendall(said)
    heir.wait(1)
    found = heir.inheritance()
    assert (found.connections, dict(found.instances), found.next) == ([], {}, None)
    heir.close()


def test_one_that_ends_before_it_has_told_all(tmp_path: Path) -> None:
    """What it gave is kept."""
    heir = Heir(tmp_path / "k.sock")
    giver = Giver.to(tmp_path / "k.sock")
    assert giver is not None
    mine, theirs = socket.socketpair()
    assert giver.give(theirs)
    giver.close()
    heir.wait(1)
    (given,) = heir.inheritance().connections
    heir.close()
    for one in (given, mine, theirs):
        one.close()


def test_one_that_does_not_take(tmp_path: Path) -> None:
    """It holds the last server up for seconds at most, and gets no more."""
    heir = Heir(tmp_path / "k.sock")
    giver = Giver.to(tmp_path / "k.sock")
    assert giver is not None
    heir.close()
    one, other = socket.socketpair()
    assert not giver.give(other)
    giver.end({}, 0)
    one.close()
    other.close()


def test_one_that_is_stuck(tmp_path: Path) -> None:
    """The first connection that it does not take is the last that is tried: each would cost seconds."""
    heir = Heir(tmp_path / "k.sock")
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(str(tmp_path / ".k.sock.next"))
    line.settimeout(0.01)
    giver = Giver(line)
    one, other = socket.socketpair()
    while giver.give(other):
        pass
    heir.wait(1)
    assert not giver.give(other)
    giver.close()
    for connection in (*heir.inheritance().connections, one, other):
        connection.close()
    heir.close()


def test_many_at_once(tmp_path: Path) -> None:
    """More than the system lets wait in one socket: one side gives while the other takes."""
    heir = Heir(tmp_path / "k.sock")
    giver = Giver.to(tmp_path / "k.sock")
    assert giver is not None
    one, other = socket.socketpair()
    given: list[bool] = []
    thread = threading.Thread(target=lambda: given.extend(giver.give(other) for _ in range(2000)))
    thread.start()
    while thread.is_alive():
        heir.wait(0.01)
    heir.wait(0)
    giver.close()
    assert given == [True] * 2000
    found = heir.inheritance().connections
    assert len(found) == 2000
    for connection in (*found, one, other):
        connection.close()
    heir.close()


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    """Nothing comes, and the wait is a wait."""
    heir = Heir(tmp_path / ("k" * 100))
    heir.wait(0.01)
    assert Giver.to(tmp_path / ("k" * 100)) is None
    assert heir.inheritance() == Inheritance()
    heir.close()


def test_one_that_gives_way_before_it_has_a_credential(tmp_path: Path) -> None:
    """It has served nobody yet: what it was given, and who waits for it, goes on to the next one."""
    path = tmp_path / "k.sock"
    one, two = Ownership(path), Ownership(path)
    one.take(0)
    mine, theirs = socket.socketpair()
    one.inherited = Inheritance([theirs], {7: ("pay", "a")}, 7)
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    waiting.connect(str(path))
    server = PluginServer(one, cast(Gate, None), started=lambda: False)
    server.start()
    nxt = threading.Thread(target=two.take, args=(PATIENCE,))
    nxt.start()
    while not one.lost:
        pass
    server.stop(PATIENCE)
    one.release()
    nxt.join(PATIENCE)
    assert two.inherited.instances == {7: ("pay", "a")}
    for sock in (mine, waiting):
        sock.sendall(b"?")
    found = two.inherited.connections
    assert [sock.recv(9) for sock in found] == [b"?", b"?"]
    two.release()
    for sock in (*found, mine, waiting):
        sock.close()


class _Time:
    """Of a queue: each that is ahead has its turn for 15 of the 20 seconds that it may take."""

    def __init__(self, file: Path, ahead: int) -> None:
        self.now = 0.0
        self._line = file.open("wb", buffering=0)
        self._ends = 15.0 * ahead
        fcntl.flock(self._line, fcntl.LOCK_EX)
        self._tell()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._tell()
        if self.now >= self._ends:
            self._line.close()

    def _tell(self) -> None:
        if not self._line.closed:
            os.pwrite(self._line.fileno(), b"%20d" % (100 + self.now // 15), 0)


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_many_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    """Each has its own time: the last one does not take those for stuck that come one by one."""
    path = tmp_path / "k.sock"
    time = _Time(path.with_name("k.sock.next"), ahead)
    monkeypatch.setattr(ownership, "time", time)
    last = Ownership(path)
    last.take(15.0)
    assert coming(path)
    assert time.now == pytest.approx(15.0 * ahead, abs=0.1)
    last.release()
